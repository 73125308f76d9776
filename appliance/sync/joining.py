"""How a node becomes a site: it asks the hub with a code and makes itself what the answer says.

Promises: nothing is taken from an answer that the hub named by the code did not sign; a node that
has entries of its own is left alone, because they carry an origin that is another's elsewhere; each
step may be repeated, so that a stop anywhere is gone on from. The tenant arrives empty: its state
and streams are made here, everything in them comes by replication.
"""

from __future__ import annotations

import base64
import ipaddress
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import msgspec

from appliance.base import logs
from appliance.base.errors import (
    ApplianceError,
    Clash,
    Invalid,
    Unauthenticated,
    Unavailable,
)
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.sync.enrol import Joined, mark_of, prove_joining, read_mark
from appliance.sync.keys import NodeKey, Rotation
from appliance.sync.nodes import PeerNode, control_transaction, find_self, hub_of
from appliance.sync.signing import UNTRUSTED, verify_answer
from appliance.write.emit import stream_call

MEDIA = "application/vnd.nexus.sync"
TIMEOUT_S = 60.0
QUESTION_BYTES_MAX = 4_096
ANSWER_BYTES_MAX = 1024 * 1024
_STATE = Statement(
    "INSERT INTO tenant_state (tenant_id, log_key, template, settings) "
    "VALUES ($1, $2, nullif($3, ''), $4::jsonb) ON CONFLICT DO NOTHING"
)
_ENTRIES = Statement("SELECT coalesce(sum(head), 0) FROM stream WHERE tenant_id = $1")


class Rotated(msgspec.Struct, frozen=True, array_like=True):
    """The hub knows the new key."""

    new_key: bytes


class KeyChain(msgspec.Struct, frozen=True, array_like=True):
    """Proofs of a hub's keys, oldest first."""

    rotations: list[Rotation]


def check_url(url: str, *, insecure_http: bool = False) -> str:
    """The hub's address without a slash at its end. Raises Invalid.

    Plain HTTP only to this machine, or (`insecure_http`) to an address of a private network.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise _bad_url("it cannot be read") from None
    if parts.username or parts.password or parts.query or parts.fragment or parts.path.strip("/"):
        raise _bad_url("only scheme, host and port belong into it")
    if parts.scheme not in ("https", "http") or not host:
        raise _bad_url("expected https://host")
    if parts.scheme == "http":
        _check_plain(host, insecure_http=insecure_http)
    return f"{parts.scheme}://{parts.netloc}"


async def ask_to_join(
    url: str, code: str, key: NodeKey, version: str, *, transport: httpx.AsyncBaseTransport | None = None
) -> Joined:  # fmt: skip
    """Ask the hub at a checked address. Raises Unauthenticated, Limited, Unavailable, Invalid."""
    mark = read_mark(code)
    if mark is None:
        raise Invalid(
            "This is no code: it starts with nxj_ and has 69 characters. Copy it whole from what "
            "`nexus node invite` printed.",
            code="node.code_form",
        )
    asked = prove_joining(key, code, version)
    answer = await _post(url, "join", asked, transport)
    return _read(answer, mark, signature_of(asked.proof))


async def send_rotation(
    hub: PeerNode, rotation: Rotation, *, transport: httpx.AsyncBaseTransport | None = None
) -> None:
    """Tell the hub this node's new key; the same again is harmless. Raises as `ask_to_join`."""
    answer = await _post(hub.url, "rotate", rotation, transport)
    signature = signature_of(rotation.by_new)
    verify_answer(hub.public_key or b"", 200, answer.headers, answer.content, signature)


async def ask_for_keys(
    hub: PeerNode, *, transport: httpx.AsyncBaseTransport | None = None
) -> list[Rotation]:
    """The hub's chain of keys, to be followed from the one that is trusted (`nodes.learn_key`)."""
    answer = await _post(hub.url, "keys", None, transport)
    try:
        return msgspec.msgpack.decode(answer.content, type=KeyChain).rotations
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        raise _no_hub() from None


def signature_of(proof: bytes) -> str:
    """What the hub's answer is bound to."""
    return f"sig1=:{base64.b64encode(proof).decode()}:"


async def check_may_join(db: Database, tenant: UUID | None = None) -> None:
    """Refuse to make a site of a node that is one, or that has entries. Raises Clash.

    `tenant` is the one that is being joined, when a join is gone on with.
    """
    if tenant is None and (hub := await hub_of(db)) is not None:
        raise Clash(f"This node is a site of {hub.name} already.", code="node.joined")
    for route in db.routes.all():
        if route.tenant == tenant:
            continue
        is_open = route.state == "active"
        if is_open:
            (rows,) = await db.read(route.tenant, (_ENTRIES, (route.tenant,)))
            row = rows.first()
            is_open = row is not None and int(row[0] or 0) == 0
        if not is_open:
            raise Clash(
                f"This node has the tenant {route.slug} with entries of its own. They carry an "
                "origin that is another node's in the installation, so it cannot become a site: "
                "use an empty data folder, and bring the tenant's data in by import.",
                code="node.has_entries",
            )


async def check_may_ask(db: Database, code: str) -> PeerNode | None:
    """Refuse a code that is of no use here; the hub of this site, which it then is of. Raises Clash."""
    hub = await hub_of(db)
    if hub is None:
        await check_may_join(db)
    elif hub.public_key is None or read_mark(code) not in (None, mark_of(hub.public_key)):
        raise Clash(
            f"This node is a site of {hub.name}; the code is of another hub.", code="node.joined"
        )
    return hub


async def check_answer(db: Database, joined: Joined, hub: PeerNode | None) -> None:
    """Refuse what would make a site another node, or a tenant of its own one of the hub's. Raises
    Clash.
    """
    me = await find_self(db)
    if hub is None:
        return
    if me is None or (joined.hub, joined.node) != (hub.id, me.id):
        raise Clash(
            f"This node is a site of {hub.name} already; ask there for a code that gives it one "
            "more tenant (`nexus node invite NAME --tenant SLUG`).", code="node.joined",
        )  # fmt: skip
    if any(r.tenant == joined.tenant and r.state == "active" for r in db.routes.all()):
        raise Clash(
            f"This node is a site of {hub.name} already and has {joined.slug}.", code="node.joined"
        )
    if any(
        route.tenant != joined.tenant and route.slug == joined.slug for route in db.routes.all()
    ):
        raise Clash(f"There is a tenant {joined.slug} here already.", code="node.has_entries")


async def take_node(db: Database, joined: Joined, url: str, key: NodeKey) -> None:
    """Make this node what the hub says it is, and know the hub."""
    async with control_transaction(db) as conn:
        await conn.execute(
            "UPDATE node SET id = %s, name = %s, origin = %s, prefix = %s, role = 'site', "
            "public_key = %s, joined_at = coalesce(joined_at, now()) WHERE is_self",
            (joined.node, joined.name, joined.origin, joined.prefix, key.public),
        )
        await conn.execute(
            "INSERT INTO node (id, name, origin, prefix, role, public_key, url, joined_at) "
            "VALUES (%s, %s, %s, %s, 'hub', %s, %s, now()) ON CONFLICT (id) DO UPDATE SET "
            "name = EXCLUDED.name, origin = EXCLUDED.origin, public_key = EXCLUDED.public_key, "
            "url = EXCLUDED.url",
            (
                joined.hub,
                joined.hub_name,
                joined.hub_origin,
                joined.hub_prefix,
                joined.hub_key,
                url,
            ),
        )
        await conn.execute("UPDATE hub_epoch SET id = %s", (joined.hub_epoch,))
    logs.event("sync.joined", node=joined.node, tenant=joined.tenant, origin=joined.origin)


async def take_tenant(db: Database, joined: Joined) -> None:
    """Make the tenant's state and streams; its route must lead somewhere (`Routes.pinned`)."""
    settings = msgspec.json.encode(joined.settings).decode()
    async with db.transaction(joined.tenant) as tx:
        await tx.run(
            (_STATE, (joined.tenant, joined.log_key, joined.template, settings)),
            stream_call(joined.tenant, joined.origin, joined.streams),
            commit=True,
        )


def _check_plain(host: str, *, insecure_http: bool) -> None:
    if host == "localhost":
        return
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise _bad_url("plain http takes no names, which may lead anywhere; use https") from None
    if address.is_loopback:
        return
    if not (address.is_private and not address.is_unspecified):
        raise _bad_url("plain http never crosses a public network; use https")
    if not insecure_http:
        raise _bad_url(
            "whoever is on the line could read a tenant's data over plain http; use https, or "
            "--insecure-http on a private network of your own"
        )


def _bad_url(why: str) -> Invalid:
    return Invalid(f"The hub's address is not acceptable: {why}.", code="node.hub_url")


async def _post(
    url: str, verb: str, said: object, transport: httpx.AsyncBaseTransport | None
) -> httpx.Response:
    try:
        async with httpx.AsyncClient(
            transport=transport, timeout=TIMEOUT_S, follow_redirects=False
        ) as client:
            answer = await client.post(
                f"{url}/api/v1/sync/{verb}", content=msgspec.msgpack.encode(said),
                headers={"content-type": MEDIA},
            )  # fmt: skip
    except (httpx.HTTPError, OSError) as lost:
        raise Unavailable(
            f"The hub at {url} does not answer ({type(lost).__name__}). Check the address, the line "
            "and the certificate, then repeat.",
            dependency="hub",
        ) from lost
    if answer.status_code != 200 or len(answer.content) > ANSWER_BYTES_MAX:
        raise _refusal(answer)
    return answer


def _no_hub() -> Unavailable:
    return Unavailable(
        "What answers at this address is no hub of this program, or one of another version.",
        dependency="hub",
    )


def _read(answer: httpx.Response, mark: str, request: str) -> Joined:
    try:
        joined = msgspec.msgpack.decode(answer.content, type=Joined)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        raise _no_hub() from None
    if mark_of(joined.hub_key) != mark:
        raise Unauthenticated(
            "What answers at this address is not the hub that made the code: its key is another. "
            "Nothing was taken from it. Check the address.",
            code=UNTRUSTED,
        )
    verify_answer(joined.hub_key, 200, answer.headers, answer.content, request)
    return joined


def _refusal(answer: httpx.Response) -> ApplianceError:
    try:
        problem = msgspec.json.decode(answer.content[:10_000], type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        problem = {}
    detail = str(problem.get("detail", ""))[:300]
    if answer.status_code == 401:
        return Unauthenticated(detail or "The hub refuses the code.", code="node.code_refused")
    if answer.status_code in (409, 422):
        return Clash(detail or "The hub refuses.", code=str(problem.get("code", "node.taken"))[:60])
    return Unavailable(f"The hub answered {answer.status_code}. {detail}".strip(), dependency="hub")
