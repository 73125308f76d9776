"""What came late through a record's former home is told to those who hold only the new one."""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.db.database import Transaction
from appliance.db.wire import Call
from appliance.kernel.change import Body, Entry, EntryOp
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.record import GOT, HAD, RecordState
from appliance.kernel.replay import is_told, told_of
from appliance.write.draft import Draft
from appliance.write.log import CLOCK, LOCK_STREAMS, advance_calls, arrival, log_call, read_heads
from appliance.write.merging import Merged, live_dots


def streams_in(state: RecordState) -> set[UUID]:
    """The streams that a record's live dots are of."""
    return {UUID(dot.rpartition("@")[2]) for dot in live_dots(state)}


def _knows_more(draft: Draft, after: RecordState, stream: UUID, ctx: Ctx) -> bool:
    """Whether a record has just come to `stream` by somebody who had not seen all that is here."""
    if after.stream != stream or any(e.origin == ctx.origin for e in draft.entries):
        return False
    arrived = [e for e in draft.entries if e.op == EntryOp.ARRIVE and not is_told(e)]
    if not arrived:
        return False
    told = {dot for e in arrived for dot in told_of(e)}
    known = {dot for dot in live_dots(after) if not dot.endswith(f"@{stream.hex}")}
    return not known <= told


async def late_arrivals(
    tx: Transaction, ctx: Ctx, stream: UUID, merged: Merged, count: int
) -> list[Call]:
    """Tell the new home what came through the former one, as the hub's own entries."""
    moved = [
        d for d in merged.drafts
        if d.before is not None and d.after is not None and d.kind is not None
        and d.kind.ledger is None and (
            d.before.stream == d.after.stream != stream or _knows_more(d, d.after, stream, ctx)
        )
    ]  # fmt: skip
    if not moved or merged.known is None:
        return []
    homes = sorted({d.after.stream for d in moved if d.after})
    (rows,) = await tx.run((LOCK_STREAMS, (ctx.tenant, sorted({*homes, stream}), ctx.origin)))
    heads = {s: h for s, h in read_heads(ctx, rows).items() if s in homes}
    if stream in heads:
        # Behind what the frame itself brings.
        heads[stream].head += count
    entries: list[Entry] = []
    for draft in moved:
        after, before = draft.after, draft.before
        assert after is not None and before is not None, "what has moved was here"
        if after.stream not in heads:
            continue
        former = stream if stream != after.stream else before.stream
        head = heads[after.stream]
        got: dict[str, Json] = {str(o): q for o, q in merged.known.got(after.stream).items()}
        for e in draft.entries:
            if e.stream == after.stream:
                got[str(e.origin)] = max(int(str(got.get(str(e.origin), 0))), e.oseq)
        had: dict[str, Json] = {
            s.hex: {str(o): q for o, q in merged.known.got(s).items()}
            for s in {former, *streams_in(after)} - {after.stream}
        }
        head.oseq += 1
        entries.append(
            Entry(
                stream=after.stream, origin=ctx.origin, oseq=head.oseq, tx=head.tx,
                hlc=CLOCK.tick(), actor=draft.entries[-1].actor, door=ctx.door, kind=after.kind,
                record_id=after.id, op=EntryOp.ARRIVE, schema_rev=ctx.schema.rev,
                change_set=draft.entries[-1].change_set,
                body=arrival(former, after, Body(ext={GOT: got, HAD: had})),
            )
        )  # fmt: skip
    calls = [
        log_call(msgspec.structs.replace(ctx, actor=e.actor, request_id=e.change_set), [e], heads)
        for e in entries
    ]
    return [*calls, *advance_calls(ctx, heads)] if entries else []
