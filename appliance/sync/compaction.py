"""Old entries leave a hub's log; the records they made, and what may still decide between values,
stay.

Promises: an entry leaves when it is older than the days asked for, every site that was heard of in
that time has taken it, and nothing waits for it; the database refuses anything else
(`compact_log`). Of each record that loses an entry the leaves of its live dots are kept first, in
the same transaction, so that what comes later merges as it would have. History and undo reach back
to the floor; the chain is proved from there on (docs/adr/0019).
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.clock import now
from appliance.db.columns import Column
from appliance.db.database import Database, Transaction
from appliance.db.wire import Call, Statement
from appliance.kernel.registers import Leaf
from appliance.sync.nodes import list_nodes
from appliance.sync.scope import streams_for
from appliance.write.carried import dots_of, kept_leaves, live_dots
from appliance.write.known import read_leaves
from appliance.write.load import LOCK_ROWS, read_state

KEEP_DAYS = 90
BATCH = 1_000

_REACH = Statement(
    "SELECT s.id::text, s.floor, LEAST(s.head, "
    "(SELECT c.seq - 1 FROM change c WHERE c.tenant_id = $1 AND c.stream = s.id AND c.seq > s.floor "
    "AND (c.ehlc >> 16) > extract(epoch FROM now() - make_interval(days => $2)) * 1000 "
    "ORDER BY c.seq LIMIT 1), "
    "(SELECT min(p.cursor) FROM peer_stream p WHERE p.tenant_id = $1 AND p.stream = s.id "
    "AND p.seen_at > now() - make_interval(days => GREATEST($2, 1))), "
    "(SELECT min(c.seq) - 1 FROM parked p JOIN change c ON c.tenant_id = $1 AND c.stream = p.stream "
    "AND c.origin = p.origin AND c.oseq = p.oseq WHERE p.tenant_id = $1 AND p.stream = s.id "
    "AND p.is_logged AND p.state = 'waiting'), "
    "(SELECT min(c.seq) - 1 FROM early e JOIN change c ON c.tenant_id = $1 "
    "AND c.record_id = e.record_id WHERE e.tenant_id = $1 AND c.stream = s.id)) "
    "FROM stream s WHERE s.tenant_id = $1 ORDER BY s.id"
)
_SPOKEN = Statement("SELECT peer, stream::text FROM peer_stream WHERE tenant_id = $1")
_IDS = Statement(
    "SELECT DISTINCT record_id::text FROM change WHERE tenant_id = $1 AND stream = $2 "
    "AND seq > $3 AND seq <= $4"
)
_BASE = Statement(
    "INSERT INTO record_base (tenant_id, record_id, leaves) SELECT $1, r, l "
    "FROM unnest($2::uuid[], $3::bytea[]) AS u(r, l) ON CONFLICT (tenant_id, record_id) "
    "DO UPDATE SET leaves = EXCLUDED.leaves"
)
_COMPACT = Statement(
    "SELECT compact_log($2, $3, make_interval(days => $4), $5) WHERE $1 = $1::uuid"
)


class Compacted(msgspec.Struct, frozen=True):
    """What left the log."""

    streams: int
    entries: int


async def compact(
    db: Database, tenant: UUID, *, keep_days: int = KEEP_DAYS, upto: int | None = None
) -> Compacted:
    """Take what may go out of every stream of a tenant, batch by batch. `upto` bounds the place."""
    (rows,) = await db.read(tenant, (_REACH, (tenant, keep_days)), timeout_ms=60_000)
    held = await _not_begun(db, tenant, keep_days)
    streams = entries = 0
    for ident, floor, reach in rows:
        stream, end = UUID((ident or b"").decode()), int(reach or 0)
        if stream in held:
            continue
        end = end if upto is None else min(end, upto)
        place, gone = int(floor or 0), 0
        while place < end:
            step = min(place + BATCH, end)
            gone += await _compact_some(db, tenant, stream, (place, step), keep_days)
            place = step
        streams, entries = streams + bool(gone), entries + gone
        if gone:
            logs.event("sync.log_compacted", tenant=tenant, stream=stream, count=gone)
    return Compacted(streams, entries)


async def _not_begun(db: Database, tenant: UUID, keep_days: int) -> set[UUID]:
    """Streams that a site was granted and has not begun to take."""
    (rows,) = await db.read(tenant, (_SPOKEN, (tenant,)))
    spoken = {(int(peer or 0), UUID((stream or b"").decode())) for peer, stream in rows}
    since = now() - timedelta(days=max(keep_days, 1))
    found: set[UUID] = set()
    for site in await list_nodes(db, tenant):
        if site.is_self or site.state != "active" or (site.seen_at or since) <= since:
            continue
        granted = await streams_for(db, site.id, tenant)
        found |= {s for s in granted if (site.origin, s) not in spoken}
    return found


async def _compact_some(
    db: Database, tenant: UUID, stream: UUID, places: tuple[int, int], keep_days: int
) -> int:
    """One batch: keep the leaves, then let the entries go."""
    async with db.transaction(tenant, timeout_ms=60_000) as tx:
        (found,) = await tx.run((_IDS, (tenant, stream, *places)))
        ids = sorted(UUID((i or b"").decode()) for i in found.column())
        keeping = await _keep_calls(tx, tenant, ids)
        low, high = places
        (*_, done) = await tx.run(
            *keeping, (_COMPACT, (tenant, stream, high, keep_days, high - low)), commit=True
        )
        return int((done.first() or (b"0",))[0] or 0)


async def _keep_calls(tx: Transaction, tenant: UUID, ids: list[UUID]) -> list[Call]:
    """Keep of each record what is live, while the log still says it."""
    (rows,) = await tx.run((LOCK_ROWS, (tenant, ids)))
    states = [read_state(row) for row in rows]
    if not states:
        return []
    leaves: dict[str, Leaf] = await read_leaves(tx, tenant, dots_of(states), [s.id for s in states])
    kept = [kept_leaves(live_dots(s), leaves) for s in states]
    return [(_BASE, (tenant, Column("uuid", [s.id for s in states]), Column("bytea", kept)))]
