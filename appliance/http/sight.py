"""What a change was to one reader: a record that left their sight, or nothing they may know of.

Promises: a change of hidden fields alone makes no frame, unless it brought the record into the
reader's sight or took it away; a record leaves only for one who could see it before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

import msgspec

from appliance.http.ask import Ask
from appliance.kernel.change import Entry, EntryOp
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Kind
from appliance.kernel.record import RecordState
from appliance.kernel.replay import Replay
from appliance.read import visible_fields
from appliance.write.authorize import in_scope
from appliance.write.trail import Placed, read_placed, set_call, trail_call


class Told(msgspec.Struct, frozen=True):
    """`untold`: nothing of the change is for the reader; `left`: out of their sight since then."""

    untold: frozenset[UUID] = frozenset()
    left: tuple[UUID, ...] = ()


async def judge(
    ask: Ask, source: str, ids: Sequence[UUID], shown: Collection[UUID], sets: Collection[UUID]
) -> Told:
    """What the change sets were to the reader, for records of which they see `shown` now."""
    ctx, db = ask.ctx, ask.node.db
    kind = ctx.schema.kind(source)
    if kind is None or not ctx.profile.sees(kind):
        return Told()
    hidden = await _hidden_changes(ask, kind, ids, sets)
    missing = [i for i in ids if i not in shown]
    asked = {*missing, *hidden}
    if not asked:
        return Told()
    (rows,) = await db.read(ctx.tenant, trail_call(ctx.tenant, asked))
    trails: dict[UUID, list[Placed]] = defaultdict(list)
    for placed in map(read_placed, rows):
        trails[placed.entry.record_id].append(placed)
    saw = {i for i in asked if _saw(ctx, trails[i], sets, kind)}
    sees = {*shown, *(i for i in missing if i in saw and _sees_now(ctx, trails[i], kind))}
    untold = frozenset(i for i in hidden if i in saw and i in sees)
    return Told(untold, tuple(i for i in missing if i in saw and i not in untold))


async def _hidden_changes(
    ask: Ask, kind: Kind, ids: Sequence[UUID], sets: Collection[UUID]
) -> set[UUID]:
    """Those of which the change sets touched hidden fields and nothing else."""
    ctx = ask.ctx
    seen = {field.fid for field, _ in visible_fields(ctx, kind)}
    if len(seen) == len(kind.fields):
        return set()
    (rows,) = await ask.node.db.read(ctx.tenant, set_call(ctx.tenant, ids, sets))
    verdicts: dict[UUID, bool] = {}
    for entry in (read_placed(row).entry for row in rows):
        verdicts[entry.record_id] = verdicts.get(entry.record_id, True) and _is_hidden(entry, seen)
    return {ident for ident, is_hidden in verdicts.items() if is_hidden}


def _is_hidden(entry: Entry, seen: Collection[str]) -> bool:
    body = entry.body
    touched = {*body.fields, *body.sets, *body.deltas}
    return (
        entry.op is EntryOp.PUT
        and bool(touched)
        and not any(name in seen or name.startswith("@") for name in touched)
    )


def _saw(ctx: Ctx, trail: Sequence[Placed], sets: Collection[UUID], kind: Kind) -> bool:
    """Whether the reader could see the record before the change sets came."""
    own = [p for p in trail if p.entry.change_set in sets]
    if own:
        return _sees(ctx, _state(_before(trail, own), kind), kind)
    # Told of by another name than in the log: whoever could ever see it may hear that it left.
    replay = Replay(kind)
    return any(_sees(ctx, replay.take(placed.entry), kind) for placed in trail)


def _before(trail: Sequence[Placed], own: Sequence[Placed]) -> list[Entry]:
    """The entries that were there before `own` came: ahead of them in the order of this node,
    whatever clock their authors had; in a stream that `own` is not in, by the clock.
    """
    firsts: dict[UUID, int] = {}
    for placed in own:
        stream = placed.entry.stream
        firsts[stream] = min(placed.seq, firsts.get(stream, placed.seq))
    latest = max(p.entry.hlc for p in own)
    sets = {p.entry.change_set for p in own}
    return [
        p.entry
        for p in trail
        if p.entry.change_set not in sets
        and (p.seq < firsts[p.entry.stream] if p.entry.stream in firsts else p.entry.hlc < latest)
    ]


def _state(entries: Iterable[Entry], kind: Kind) -> RecordState | None:
    replay = Replay(kind)
    for entry in entries:
        replay.take(entry)
    return replay.state


def _sees_now(ctx: Ctx, trail: Sequence[Placed], kind: Kind) -> bool:
    return _sees(ctx, _state((p.entry for p in trail), kind), kind)


def _sees(ctx: Ctx, state: RecordState | None, kind: Kind) -> bool:
    if state is None or state.deleted_at is not None:
        return False
    return in_scope(ctx, ctx.profile.scope(kind.key, "read"), state, kind)
