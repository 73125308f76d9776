"""What becomes of trust when a database was put back from a backup, or copied.

A site that has fewer entries of its own than its hub has of it, or others in their place, has
lost its memory: whatever it wrote next under its origin would take the names of entries that
exist. The hub gives it a new origin; it keeps the old ones as former, and pulls back what it lost.

A hub that has less than a site took from it has lost its memory: it begins a new epoch. Sites that
hear another epoch than they know offer everything above the hub's vectors again and take its
streams from their beginning; what is known on either side is skipped.

Promises: an origin is issued once; a question that comes twice, or twice at once, makes one new
incarnation and one new epoch; nothing here looks at a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.values import bytea_of, text_of
from appliance.db.wire import Statement
from appliance.sync.nodes import (
    ISSUE_ORIGIN,
    PeerNode,
    control_transaction,
    find_peer,
    hub_of,
    list_nodes,
    note,
    run_control,
    unknown,
)

BEHIND, FORKED = "behind", "forked"
# Origins that a lost stretch of the hub's life may have given out are never given out again.
ORIGINS_SKIPPED = 1_000
# By stream and own origin: the last entry a site has made, as (oseq, chain hash).
Tips = Mapping[UUID, Mapping[int, tuple[int, bytes]]]
# By stream: the last entry a site took from the hub, as (the hub's seq, origin, oseq, chain hash).
HubTips = Mapping[UUID, tuple[int, int, int, bytes]]

_VECTORS = Statement(
    "SELECT stream::text, origin, got, hash FROM stream_vector WHERE tenant_id = $1 "
    "AND origin = ANY($2::bigint[])"
)
# Below a stream's floor an entry itself is gone; that its origin is known that far has to do.
_KNOWN = Statement(
    "SELECT u.stream::text, greatest(v.got, CASE WHEN s.origin = u.origin THEN s.oseq END) >= u.oseq, "
    "c.hash FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) AS u(stream, origin, oseq) "
    "LEFT JOIN stream s ON s.tenant_id = $1 AND s.id = u.stream LEFT JOIN stream_vector v "
    "ON v.tenant_id = $1 AND v.stream = u.stream AND v.origin = u.origin LEFT JOIN change c "
    "ON c.tenant_id = $1 AND c.stream = u.stream AND c.origin = u.origin AND c.oseq = u.oseq"
)
_OWN_TIPS = Statement(
    "SELECT s.id::text, s.origin, s.oseq, s.hash FROM stream s WHERE s.tenant_id = $1 AND s.oseq > 0 "
    "AND s.origin = ANY($2::bigint[]) UNION ALL SELECT v.stream::text, v.origin, v.got, v.hash "
    "FROM stream_vector v WHERE v.tenant_id = $1 AND v.origin = ANY($2::bigint[])"
)
_HUB_TIPS = Statement(
    "SELECT p.stream::text, p.cursor, c.origin, c.oseq, c.hash FROM peer_stream p "
    "JOIN LATERAL (SELECT origin, oseq, hash FROM change WHERE tenant_id = $1 "
    "AND stream = p.stream AND NOT origin = ANY($3::bigint[]) ORDER BY seq DESC LIMIT 1) c ON true "
    "WHERE p.tenant_id = $1 AND p.peer = $2 AND p.cursor > 0"
)
_START_OVER = Statement(
    "UPDATE peer_stream SET cursor = 0, acked = 0 WHERE tenant_id = $1 AND peer = $2"
)


async def needs_new_incarnation(
    db: Database, tenant: UUID, peer: PeerNode, tips: Tips
) -> str | None:
    """At the hub: BEHIND or FORKED when a site no longer has what it gave us, else None.

    `tips` is all that the site has of its own (`read_own_tips`); a stream that it does not name is
    one it has nothing in. Former origins count for nothing: they are written no more.
    """
    (rows,) = await db.read(tenant, (_VECTORS, (tenant, [peer.origin])))
    for stream, origin, got, known in rows:
        claimed = tips.get(UUID(text_of(stream)), {}).get(int(origin or 0))
        oseq, theirs = claimed or (0, b"")
        if oseq < int(got or 0):
            return BEHIND
        if oseq == int(got or 0) and theirs != bytea_of(known):
            return FORKED
    return None


async def issue_origin(
    db: Database, node_id: UUID, instead_of: int, *, tenant: UUID | None = None, reason: str = ""
) -> PeerNode:
    """At the hub: a new origin for a site that wrote under `instead_of`; the same when asked again.

    Raises Refused.
    """
    async with control_transaction(db) as conn:
        await conn.execute("SELECT FROM origin_issued FOR UPDATE")
        found = await conn.execute(
            "SELECT FROM node WHERE id = %s AND origin = %s AND role = 'site'",
            (node_id, instead_of),
        )
        is_new = await found.fetchone() is not None
        if is_new:
            ((origin,),) = await (await conn.execute(ISSUE_ORIGIN)).fetchall()
            await conn.execute(
                "UPDATE node SET former_origins = former_origins || origin, "
                "incarnation = incarnation + 1, origin = %s WHERE id = %s",
                (origin, node_id),
            )
    peer = await _peer(db, node_id)
    if is_new:
        details: dict[str, object] = {"origin": peer.origin, "former": instead_of, "reason": reason}
        await note(db, tenant, "node.incarnated", subject=node_id, details=details)
        logs.event("sync.node_incarnated", level="warning", node=node_id, origin=peer.origin,
                   reason=reason or None)  # fmt: skip
    return peer


async def take_origin(
    db: Database, origin: int, incarnation: int, former_origins: Sequence[int] = ()
) -> bool:
    """At the site: write under another origin from now on; False when it does so already.

    Processes read the origin when they start: whoever calls this has them started anew before
    anything is written.
    """
    changed = await run_control(
        db,
        "UPDATE node SET former_origins = ARRAY(SELECT DISTINCT f FROM unnest(former_origins || "
        "origin || %s::bigint[]) AS f WHERE f <> %s ORDER BY f), origin = %s, incarnation = %s "
        "WHERE is_self AND (origin, incarnation) IS DISTINCT FROM (%s, %s) RETURNING origin",
        list(former_origins), origin, origin, incarnation, origin, incarnation,
    )  # fmt: skip
    if changed:
        logs.event("sync.origin_taken", level="warning", origin=origin)
    return bool(changed)


async def read_own_tips(db: Database, tenant: UUID, origins: Sequence[int]) -> Tips:
    """At the site: the last entry made under each own origin in each stream, for hello."""
    (rows,) = await db.read(tenant, (_OWN_TIPS, (tenant, list(origins))))
    found: dict[UUID, dict[int, tuple[int, bytes]]] = {}
    for stream, origin, oseq, known in rows:
        tip = (int(oseq or 0), bytea_of(known))
        by_origin = found.setdefault(UUID(text_of(stream)), {})
        # A stream's own row and a vector's of the same origin: the longer one is the newer.
        by_origin[int(origin or 0)] = max(by_origin.get(int(origin or 0), tip), tip)
    return found


async def read_hub_tips(db: Database, tenant: UUID, hub: int, own: Sequence[int]) -> HubTips:
    """At the site: the last entry taken from the hub in each stream, for hello."""
    (rows,) = await db.read(tenant, (_HUB_TIPS, (tenant, hub, list(own))))
    return {
        UUID(text_of(stream)): (int(cursor or 0), int(origin or 0), int(oseq or 0), bytea_of(known))
        for stream, cursor, origin, oseq, known in rows
    }


async def hub_went_back(db: Database, tenant: UUID, tips: HubTips) -> list[UUID]:
    """At the hub: streams of which a site took an entry that this hub has no more, or another.

    Nothing is asked of the hub's sequence but that the entry is known: a hub that was put back and
    has since written as much again still lacks what it gave away.
    """
    if not tips:
        return []
    columns = list(
        zip(*((s, origin, oseq) for s, (_, origin, oseq, _) in tips.items()), strict=True)
    )
    (rows,) = await db.read(tenant, (_KNOWN, (tenant, *columns)))
    lost = []
    for stream, is_known, ours in rows:
        ident = UUID(text_of(stream))
        theirs = tips[ident][3]
        # What was stripped for the site has no hash there.
        if is_known != b"t" or (ours is not None and theirs not in (b"", bytea_of(ours))):
            lost.append(ident)
    return sorted(lost)


async def read_epoch(db: Database) -> UUID:
    """At the hub its epoch; at a site that of its hub, as it was last heard."""
    ((found,),) = await run_control(db, "SELECT id FROM hub_epoch")
    return UUID(str(found))


class Era(msgspec.Struct, frozen=True):
    """A hub's epoch; `issued` is the last origin it has given out."""

    id: UUID
    number: int
    issued: int


async def read_era(db: Database) -> Era:
    """At the hub: its epoch, and how far it has given out origins."""
    ((ident, number, issued),) = await run_control(
        db, "SELECT e.id, e.number, o.last FROM hub_epoch e, origin_issued o"
    )
    return Era(UUID(str(ident)), int(str(number)), int(str(issued)))


async def renew_epoch(
    db: Database, known: UUID, reason: str, *, is_claimed: bool = False,
    after: tuple[int, int] = (0, 0),
) -> UUID:  # fmt: skip
    """At the hub: begin a new epoch, unless another than `known` has begun; the present one.

    `is_claimed`: a site of an older program says so without proof, which may be wrong or a lie: at
    most once an hour, for a new epoch makes every site offer all it has again. `after`: the number
    of an epoch, and an origin, that this hub has given out and forgotten.

    The hub takes a new origin with it: what it wrote under the old one since the backup is out
    there. To be called by whatever puts a hub back, and by hello when a site proves it; processes
    take the new origin up when they start (`nexus up` sees to it).
    """
    async with control_transaction(db) as conn:
        done = await conn.execute(
            "UPDATE hub_epoch SET id = %s, number = greatest(number, %s) + 1, began_at = now(), "
            "reason = %s "
            "WHERE id = %s AND (NOT %s OR number = 1 OR began_at < now() - interval '1 hour')",
            (uuid7(), after[0], reason, known, is_claimed),
        )
        if done.rowcount:
            await conn.execute(
                "UPDATE origin_issued SET last = greatest(last, %s) + %s",
                (after[1], ORIGINS_SKIPPED),
            )
            ((origin,),) = await (await conn.execute(ISSUE_ORIGIN)).fetchall()
            await conn.execute(
                "UPDATE node SET former_origins = former_origins || origin, incarnation = "
                "incarnation + 1, origin = %s WHERE is_self",
                (origin,),
            )
            logs.event("sync.epoch_begun", level="error", reason=reason)
    return await read_epoch(db)


async def note_attested(db: Database, node_id: UUID) -> None:
    """At the hub: from now on the node has signed words, and is believed by them alone."""
    await run_control(
        db, "UPDATE node SET attested_at = now() WHERE id = %s AND attested_at IS NULL", node_id
    )


async def was_attested(db: Database, node_id: UUID) -> bool:
    """At the hub: whether the node was ever given signed words."""
    asked = "SELECT 1 FROM node WHERE id = %s AND attested_at IS NOT NULL"
    return bool(await run_control(db, asked, node_id))


async def note_restored(db: Database, tenant: UUID) -> bool:
    """To be called where a tenant was put back from a backup, before it opens: whether this is a
    hub with sites of it, which begins a new epoch. A site is found out by its hub.
    """
    if await hub_of(db) is not None or not await list_nodes(db, tenant):
        return False
    await renew_epoch(db, await read_epoch(db), "a tenant was restored")
    return True


async def note_hub_epoch(db: Database, tenants: Sequence[UUID], epoch: UUID, origin: int) -> bool:
    """At the site: hear the hub's epoch and the origin it writes under; True when the epoch is
    another, and everything starts over. Stopped in between, it is heard as another once more.
    """
    hub = await hub_of(db)
    if hub is None or await read_epoch(db) == epoch:
        return False
    for tenant in tenants:
        async with db.transaction(tenant) as tx:
            await tx.run((_START_OVER, (tenant, hub.origin)), commit=True)
    async with control_transaction(db) as conn:
        await conn.execute(
            "UPDATE node SET former_origins = former_origins || origin, origin = %s WHERE id = %s "
            "AND origin <> %s",
            (origin, hub.id, origin),
        )
        await conn.execute(
            "UPDATE hub_epoch SET id = %s, number = number + 1, began_at = now()", (epoch,)
        )
    logs.event("sync.epoch_heard", level="warning", node=hub.id, count=len(tenants))
    return True


async def _peer(db: Database, node_id: UUID) -> PeerNode:
    peer = await find_peer(db, node_id)
    if peer is None:
        raise unknown(node_id)
    return peer
