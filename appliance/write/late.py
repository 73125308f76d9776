"""What came late through a record's former home is told to those who hold only the new one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.db.database import Transaction
from appliance.db.wire import Call
from appliance.kernel.arrival import GOT, HAD, Past, is_late, learn
from appliance.kernel.change import Body, Entry, EntryOp, Logged
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.record import RecordState, touched_by
from appliance.kernel.registers import Leaf, qualified
from appliance.kernel.replay import came_from, told_of
from appliance.write.draft import Draft
from appliance.write.known import NodeKnown
from appliance.write.log import CLOCK, LOCK_STREAMS, advance_calls, arrival, log_call, read_heads
from appliance.write.merging import Merged, live_dots
from appliance.write.past import read_passed, streams_in


def _comes_late(draft: Draft, stream: UUID) -> bool:
    """Whether an entry came through a former home of its record."""
    before, after = draft.before, draft.after
    return before is not None and after is not None and before.stream == after.stream != stream


def _moves_in(draft: Draft, ctx: Ctx) -> list[Entry]:
    """The moves of others by which a record has just come to its home."""
    after = draft.after
    if after is None or any(e.origin == ctx.origin for e in draft.entries):
        return []
    came = (e for e in draft.entries if e.op == EntryOp.ARRIVE and e.stream == after.stream)
    return [e for e in came if not is_late(e)]


def _knows_more(draft: Draft, after: RecordState, moves: Sequence[Entry], known: NodeKnown) -> bool:
    """Whether more is known of a record than those who moved it here could say: values that they had
    not seen, clocks that were cut, who touched it last.
    """
    told = {dot for e in moves for dot in told_of(e)}
    marks: dict[str, Leaf] = {}
    learn(marks, moves)
    for dot in live_dots(after):
        if dot.endswith(f"@{after.stream.hex}"):
            continue
        said = marks.get(dot)
        if dot not in told or said is None or said.hlc != known.leaf(dot).hlc:
            return True
    born = min(datetime.fromisoformat(str(_first(e.body.ext.get("born")))) for e in moves)
    here = [touched_by(e) for e in draft.entries if e.stream == after.stream]
    return born != after.created_at or (after.updated_at, after.updated_by) > max(here)


def _first(row: Json) -> Json:
    return row[0] if isinstance(row, list) else row


async def _untold(
    tx: Transaction, ctx: Ctx, stream: UUID, merged: Merged, known: NodeKnown
) -> list[Draft]:
    """The records of which those who hold only their new home would have it otherwise."""
    found = [d for d in merged.drafts if d.kind is not None and d.kind.ledger is None]
    moves = {d.id: [] if _comes_late(d, stream) else _moves_in(d, ctx) for d in found}
    found = [d for d in found if moves[d.id] or _comes_late(d, stream)]
    if not found:
        return []
    dots = sorted({dot for d in found if d.after for dot in live_dots(d.after)})
    await known.read_leaves(tx, ctx.tenant, dots, [d.id for d in found])
    return [
        d for d in found
        if not moves[d.id] or (d.after and _knows_more(d, d.after, moves[d.id], known))
    ]  # fmt: skip


async def late_arrivals(
    tx: Transaction, ctx: Ctx, stream: UUID, merged: Merged, fresh: Sequence[Logged]
) -> list[Call]:
    """Tell the new home what came through the former one, as the hub's own entries. `fresh` is what
    goes into the log of `stream` before them.
    """
    known = merged.known
    moved = await _untold(tx, ctx, stream, merged, known) if known is not None else []
    if not moved or known is None:
        return []
    homes = sorted({d.after.stream for d in moved if d.after})
    (rows,) = await tx.run((LOCK_STREAMS, (ctx.tenant, sorted({*homes, stream}), ctx.origin)))
    heads = {s: h for s, h in read_heads(ctx, rows).items() if s in homes}
    if stream in heads:
        # Behind what the frame itself brings.
        heads[stream].head += len(fresh)
    passed = await read_passed(tx, ctx, [d.id for d in moved])
    left = {qualified(e.entry.dot, e.entry.stream) for e in fresh if e.parked}
    entries: list[Entry] = []
    for draft in moved:
        after = draft.after
        assert after is not None, "what has moved is here"
        if after.stream not in heads:
            continue
        head = heads[after.stream]
        head.oseq += 1
        former = stream if stream != after.stream else _former(draft, after)
        were = {former, *passed[draft.id], *streams_in(after), *(e.stream for e in draft.entries)}
        entries.append(
            Entry(
                stream=after.stream, origin=ctx.origin, oseq=head.oseq, tx=head.tx,
                hlc=CLOCK.tick(), actor=draft.entries[-1].actor, door=ctx.door, kind=after.kind,
                record_id=after.id, op=EntryOp.ARRIVE, schema_rev=ctx.schema.rev,
                change_set=draft.entries[-1].change_set,
                body=_told(known, draft, after, former, were, left),
            )
        )  # fmt: skip
    calls = [
        log_call(msgspec.structs.replace(ctx, actor=e.actor, request_id=e.change_set), [e], heads)
        for e in entries
    ]
    return [*calls, *advance_calls(ctx, heads)] if entries else []


def _former(draft: Draft, after: RecordState) -> UUID:
    """Where a record was before that has just come to its home."""
    moves = (e for e in reversed(draft.entries) if e.op == EntryOp.ARRIVE)
    return next((came_from(e) for e in moves if e.stream == after.stream), after.stream)


def _told(
    known: NodeKnown,
    draft: Draft,
    after: RecordState,
    former: UUID,
    were: set[UUID],
    left: set[str],
) -> Body:
    """What is told of a record: its state, and what of each stream this follows from."""
    had: dict[UUID, dict[str, Json]] = {
        s: {str(o): n for o, n in known.got(s).items()} for s in {*were, after.stream}
    }
    for e in draft.entries:
        of = had[e.stream]
        of[str(e.origin)] = max(int(str(of.get(str(e.origin), 0))), e.oseq)
    got = had.pop(after.stream)
    leaves = {dot: known.leaf(dot) for dot in live_dots(after)}
    without = tuple(sorted({*left, *known.parked_in({*had, after.stream})}))
    ext: dict[str, Json] = {GOT: got, HAD: {s.hex: of for s, of in had.items()}}
    return arrival(former, after, Body(ext=ext), Past(after.stream, leaves, without=without))
