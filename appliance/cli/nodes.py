"""`nexus node …`: let a branch in, make this node one, see and revoke nodes, change a key.

`invite`, `list` and `revoke` are for the hub's data folder, `join` for the new site's, `status` and
`rotate` for either. All of them work on a node that runs and on one that is stopped.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec

from appliance import __version__, tenancy
from appliance.base.errors import Clash, Misconfigured, Refused, Unavailable
from appliance.cli.node import Opened, opened, read_settings
from appliance.db.placement import Route
from appliance.runtime.account import own_account, write_private
from appliance.sync import enrol, joining, keys, nodes
from appliance.sync.foreseen import read_masks
from appliance.sync.inviting import invite_site

PENDING = "joining.pending"
RESTART_S = 120.0


class _Pending(msgspec.Struct, frozen=True):
    """A join whose answer is here and whose steps are not all done."""

    url: str
    joined: enrol.Joined


def invite(
    name: str,
    *,
    prefix: str = "",
    tenant: str,
    units: str = "",
    mask: str = "",
    minutes: int = enrol.MINUTES,
    data: str | None = None,
) -> None:
    """Print a one-time code that lets one new node in, or gives a site one more tenant.

    Parameters
    ----------
    name: what the node is called, for example the branch; or a site of this hub, without a prefix.
    prefix: stands in the numbers that the node gives to records: 1 to 6 capital letters and digits.
    tenant: the short name of the tenant that the node will hold.
    units: names of the units it will hold, by comma, with all below them; all when left out.
    mask: fields that are kept from it, by comma, as deal.margin,card.cost.
    minutes: how long the code lives.
    data: the data folder of the hub (NEXUS_DATA).
    """

    async def go() -> tuple[enrol.Invitation, str]:
        settings = read_settings(data)
        async with opened(settings) as node:
            ident = node.db.routes.by_slug(tenant).tenant
            named = [part.strip() for part in units.split(",") if part.strip()]
            wanted = await enrol.find_units(node.db, ident, named) if named else None
            public = keys.load_key(settings.data_dir).public
            if prefix:
                made = await enrol.invite(
                    node.db, ident, name, prefix, hub_key=public, units=wanted,
                    masks=read_masks(mask), minutes=minutes,
                )  # fmt: skip
            else:
                peer = await nodes.find_named(node.db, name)
                made = await invite_site(
                    node.db, ident, peer, hub_key=public, units=wanted, masks=read_masks(mask),
                    minutes=minutes,
                )  # fmt: skip
            return made, keys.fingerprint(public)

    made, mark = asyncio.run(go())
    print(f"Code      {made.code}")
    print(f"          for {made.name} ({made.prefix}), once, until {made.expires_at:%H:%M} UTC")
    print(f"Hub's key {mark}")
    print("At the new node, with a data folder of its own:" if prefix else "At the site:")
    print("  nexus node join https://THIS-HUB --code CODE")


def join(url: str, *, code: str = "", insecure_http: bool = False, data: str | None = None) -> None:
    """Make this node a site of the hub that made the code; on a site of it, take one more tenant.

    A join that was broken off is gone on with by the same command; the code is not needed again
    once the hub has answered.

    Parameters
    ----------
    url: where the hub is, https://host[:port].
    code: what `nexus node invite` printed at the hub.
    insecure_http: take plain http to an address of a private network; never to a public one.
    data: the data folder of the new site (NEXUS_DATA).
    """

    async def go() -> tuple[enrol.Joined, str]:
        settings = read_settings(data)
        async with opened(settings) as node:
            key = keys.load_key(settings.data_dir)
            pending = await _answer_of(node, url, code, key, insecure_http=insecure_http)
            await _become(node, pending, key)
            return pending.joined, keys.fingerprint(key.public)

    joined, mark = asyncio.run(go())
    print(f"Joined {joined.hub_name} as {joined.name} (prefix {joined.prefix}).")
    print(f"Hub's key  {keys.fingerprint(joined.hub_key)}")
    print(f"Own key    {mark}")
    print("Compare both with `nexus node list` at the hub.")
    print(f"Tenant {joined.slug} is here and empty; it fills by replication while the node runs.")


def list_(*, tenant: str | None = None, data: str | None = None) -> None:
    """The nodes known here, with what they hold and the fingerprints of their keys."""

    async def go() -> tuple[list[nodes.PeerNode], dict[object, str]]:
        async with opened(read_settings(data)) as node:
            ident = node.db.routes.by_slug(tenant).tenant if tenant else None
            slugs: dict[object, str] = {r.tenant: r.slug for r in node.db.routes.all()}
            return await nodes.list_nodes(node.db, ident), slugs

    found, slugs = asyncio.run(go())
    for one in found:
        holds = f"{slugs.get(one.tenant, one.tenant)} ({one.scope_state})" if one.tenant else "-"
        units = "all units" if one.unit_ids is None else f"{len(one.unit_ids)} units"
        seen = f"{one.seen_at:%Y-%m-%d %H:%M}" if one.seen_at else "never"
        here = " (this node)" if one.is_self else ""
        print(f"{one.name}{here}: {one.role}, {one.state}, prefix {one.prefix or '-'}")
        if one.tenant:
            print(f"  holds {holds}, {units}; seen {seen}")
        if one.public_key:
            print(f"  key   {keys.fingerprint(one.public_key)}")
        if one.revoked_reason:
            print(f"  revoked: {one.revoked_reason}")


def revoke(
    name: str,
    *,
    reason: str = "revoked at the hub's command line",
    tenant: str | None = None,
    data: str | None = None,
) -> None:
    """Shut a node out at once: of one tenant, or of all.

    Parameters
    ----------
    name: the node's name or id, as `nexus node list` shows it.
    reason: why, for the audit and for whoever asks later.
    tenant: take this tenant from it alone.
    data: the data folder of the hub (NEXUS_DATA).
    """

    async def go() -> nodes.PeerNode:
        async with opened(read_settings(data)) as node:
            ident = node.db.routes.by_slug(tenant).tenant if tenant else None
            peer = await nodes.find_named(node.db, name, ident)
            return await nodes.revoke(node.db, peer.id, reason, tenant=ident)

    done = asyncio.run(go())
    if done.state == nodes.REVOKED:
        print(f"{done.name} is revoked: it is let in no more and has no session.")
    else:
        print(f"{done.name} holds {tenant} no more; it is still a node for its other tenants.")


def status(*, data: str | None = None) -> None:
    """What this node is, whose site it is, and the fingerprints to compare."""

    async def go() -> tuple[nodes.PeerNode, nodes.PeerNode | None, str, int]:
        settings = read_settings(data)
        async with opened(settings) as node:
            me = await nodes.find_self(node.db)
            if me is None:
                raise Misconfigured("This node has no row of its own; start it with `nexus up`.")
            mark = keys.fingerprint(keys.load_key(settings.data_dir).public)
            peers = {n.id for n in await nodes.list_nodes(node.db)} - {me.id}
            return me, await nodes.hub_of(node.db), mark, len(peers)

    me, hub, mark, count = asyncio.run(go())
    print(f"{me.name}: {me.role}, prefix {me.prefix or '-'}, origin {me.origin}")
    print(f"  key   {mark}")
    if me.former_origins:
        print(f"  wrote before under {', '.join(map(str, me.former_origins))}")
    if hub is not None:
        print(f"Hub {hub.name} at {hub.url}")
        print(f"  key   {keys.fingerprint(hub.public_key or b'')}")
    else:
        print(f"Other nodes known here: {count}; `nexus node list` shows them.")


def rotate(*, data: str | None = None) -> None:
    """Give this node a new key, signed by the old one; broken off, the same command goes on."""

    async def go() -> str:
        settings = read_settings(data)
        async with opened(settings) as node:
            return keys.fingerprint(await _rotate(node, settings.data_dir))

    print(f"New key {asyncio.run(go())}")


async def _answer_of(
    node: Opened, url: str, code: str, key: keys.NodeKey, *, insecure_http: bool
) -> _Pending:
    """The hub's answer: one that is here already, or a new one. Raises Clash, Unauthenticated."""
    path = node.settings.data_dir / PENDING
    if path.exists():
        try:
            pending = msgspec.msgpack.decode(path.read_bytes(), type=_Pending)
        except (msgspec.MsgspecError, OSError):
            raise Misconfigured(f"{path.name}: cannot be read; remove it and join again.") from None
        print(f"Going on with the join of {pending.joined.hub_name}.")
        return pending
    hub = await joining.check_may_ask(node.db, code)
    found = joining.check_url(url, insecure_http=insecure_http)
    joined = await joining.ask_to_join(found, code, key, __version__)
    await joining.check_answer(node.db, joined, hub)
    pending = _Pending(found, joined)
    write_private(own_account(), path, msgspec.msgpack.encode(pending))
    return pending


async def _become(node: Opened, pending: _Pending, key: keys.NodeKey) -> None:
    """All that an answer asks for; each step is harmless when it is done already."""
    joined, db, servers = pending.joined, node.db, node.servers
    me = await nodes.find_self(db)
    is_site = me is not None and me.id == joined.node and await nodes.hub_of(db) is not None
    if is_site and me is not None:
        # One more tenant: what this node is called and writes under it knows best itself.
        joined = msgspec.structs.replace(joined, origin=me.origin)
    else:
        await joining.check_may_join(db, joined.tenant)
    try:
        row = await tenancy.create_tenant(
            servers, joined.slug, joined.tenant_name, "pool", tenant=joined.tenant
        )
    except Clash:
        row = await tenancy.find_tenant(servers, str(joined.tenant))
    with db.routes.pinned(Route(row.id, row.slug, row.name, "active", row.target, row.placement)):
        await joining.take_tenant(db, joined)
    if not is_site:
        await joining.take_node(db, joined, pending.url, key)
    if node.is_running:
        await _wait_for_restart(node, joined.origin)
    if row.state == "creating":
        # Not before: a process that still writes under the old origin must not reach the tenant.
        await tenancy.activate(servers, row.id)
    (node.settings.data_dir / PENDING).unlink(missing_ok=True)


async def _wait_for_restart(node: Opened, origin: int) -> None:
    print("Waiting for the running node to take up its new identity…", flush=True)
    end = time.monotonic() + RESTART_S
    while time.monotonic() < end:
        rows = await nodes.run_control(node.db, "SELECT running_origin FROM node WHERE is_self")
        if rows and rows[0][0] == origin:
            return
        await asyncio.sleep(0.3)
    raise Unavailable(
        "The running node did not start its processes anew. Stop it, repeat this command, and start "
        "it again.",
        dependency="node",
    )


async def _rotate(node: Opened, data: Path) -> bytes:
    me, hub = await nodes.find_self(node.db), await nodes.hub_of(node.db)
    if me is None:
        raise Refused("This node has no row of its own; start it with `nexus up`.")
    old, new = keys.load_key(data), keys.begin_rotation(data)
    rotation = keys.make_rotation(me.id, old, new)
    if hub is not None:
        # The hub's own key may have been followed by another meanwhile.
        await nodes.learn_key(node.db, hub.id, await joining.ask_for_keys(hub))
        hub = await nodes.hub_of(node.db) or hub
        await joining.send_rotation(hub, rotation)
    async with nodes.control_transaction(node.db) as conn:
        await nodes.keep_rotation(conn, rotation)
    keys.finish_rotation(data)
    # Last: it is what the running node starts its processes anew for.
    await nodes.run_control(node.db, "UPDATE node SET public_key = %s WHERE is_self", new.public)
    for tenant in node.db.routes.all() if hub is None else ():
        await nodes.note(node.db, tenant.tenant, "node.key_rotated", subject=me.id)
    return new.public
