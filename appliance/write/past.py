"""What a record that moves has to say of its past, read while its row is locked.

The clocks of its live values, and how far this node has each stream that the record was in; of
streams that are not here, how far those had them who moved it on from there. See kernel/arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from appliance.base.ids import uuid_of
from appliance.db.database import Transaction
from appliance.db.wire import Statement
from appliance.kernel.arrival import Past, vectors_of
from appliance.kernel.change import Entry, EntryOp
from appliance.kernel.context import Ctx
from appliance.kernel.record import RecordState
from appliance.write.command import Op
from appliance.write.draft import Draft
from appliance.write.known import NodeKnown, ahead_call, known_calls
from appliance.write.log import home_stream
from appliance.write.merging import live_dots
from appliance.write.trail import COLUMNS, NOT_PARKED, read_entry

_PASSED = Statement(
    "SELECT DISTINCT record_id::text, stream::text FROM change WHERE tenant_id = $1 "
    "AND record_id = ANY($2::uuid[])"
)
_ARRIVALS = Statement(
    f"SELECT {COLUMNS} FROM change WHERE tenant_id = $1 AND record_id = ANY($2::uuid[]) "
    f"AND op = '{EntryOp.ARRIVE}' AND {NOT_PARKED}"
)


async def read_pasts(tx: Transaction, ctx: Ctx, drafts: Sequence[Draft]) -> None:
    """Give those drafts their past that go into another stream."""
    moving = [d for d in drafts if _moves(ctx, d)]
    if not moving:
        return
    ids = [d.id for d in moving]
    vectors, parked, ahead, told = await tx.run(
        *known_calls(ctx.tenant), ahead_call(ctx.tenant, ids), (_ARRIVALS, (ctx.tenant, ids))
    )
    known = NodeKnown(vectors, parked, (), ahead)
    streams = await read_passed(tx, ctx, ids)
    arrivals: dict[UUID, list[Entry]] = {i: [] for i in ids}
    for entry in map(read_entry, told):
        arrivals[entry.record_id].append(entry)
    dots = {d.id: live_dots(d.before) for d in moving if d.before}
    await known.read_leaves(tx, ctx.tenant, sorted({x for of in dots.values() for x in of}), ids)
    for draft in moving:
        assert draft.before is not None and draft.kind is not None, "what moves was here"
        home = home_stream(ctx.tenant, draft.kind, draft.unit)
        leaves = {dot: known.leaf(dot) for dot in dots[draft.id]}
        were = streams[draft.id] | {home, draft.before.stream} | streams_in(draft.before)
        got = _vectors(known, draft.id, were, arrivals[draft.id])
        draft.past = Past(home, leaves, got, _left_out(known, draft.id, got))


async def read_passed(tx: Transaction, ctx: Ctx, ids: Sequence[UUID]) -> dict[UUID, set[UUID]]:
    """The streams in which the log has something of each record."""
    (rows,) = await tx.run((_PASSED, (ctx.tenant, list(ids))))
    found: dict[UUID, set[UUID]] = {i: set() for i in ids}
    for ident, stream in rows:
        found[uuid_of((ident or b"").decode())].add(uuid_of((stream or b"").decode()))
    return found


def streams_in(state: RecordState) -> set[UUID]:
    """The streams that a record's live dots are of."""
    return {UUID(dot.rpartition("@")[2]) for dot in live_dots(state)}


def _moves(ctx: Ctx, draft: Draft) -> bool:
    before, kind = draft.before, draft.kind
    if before is None or kind is None or draft.command.op is not Op.UPDATE:
        return False
    return home_stream(ctx.tenant, kind, draft.unit) != before.stream


def _vectors(
    known: NodeKnown, record: UUID, streams: set[UUID], arrivals: Sequence[Entry]
) -> dict[UUID, dict[int, int]]:
    """How far each of these streams is known; of a stream that nobody told of, nothing is said."""
    found = {s: known.got(s) for s in streams if known.holds(s)}
    told = [pair for a in arrivals for pair in vectors_of(a) if not known.holds(pair[0])]
    if (ahead := known.ahead(record)) is not None:
        told += [(s, got) for s, got in ahead.got.items() if s in streams]
    for stream, got in told:
        mine = found.setdefault(stream, {})
        for origin, oseq in got.items():
            mine[origin] = max(mine.get(origin, 0), oseq)
    return found


def _left_out(known: NodeKnown, record: UUID, got: dict[UUID, dict[int, int]]) -> tuple[str, ...]:
    ahead = known.ahead(record)
    parked = {*known.parked_in(got), *(ahead.parked if ahead is not None else ())}
    here = (d for d in parked if UUID(d.rpartition("@")[2]) in got)
    return tuple(sorted(d for d in here if not known.has(d)))
