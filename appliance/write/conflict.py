"""Explain a stale edit: mine, theirs, what both started from, and who changed it when."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from appliance.base.clock import hlc_moment
from appliance.db.database import Transaction
from appliance.kernel.change import Entry
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.profile import Mode
from appliance.kernel.record import OWNER, UNIT, RecordState
from appliance.kernel.replay import Replay, Taken
from appliance.kernel.stamps import Stamps
from appliance.write.draft import Draft
from appliance.write.outcome import Conflict, FieldConflict
from appliance.write.trail import STREAMS, read_streams, read_trail
from appliance.write.validate import UNPROFILED


async def explain(tx: Transaction, ctx: Ctx, drafts: Sequence[Draft]) -> None:
    """Turn drafts with stale registers into Conflict outcomes."""
    if not drafts:
        return
    trails = await read_trail(tx, ctx.tenant, [d.id for d in drafts])
    (rows,) = await tx.run((STREAMS, (ctx.tenant,)))
    streams = read_streams(rows)
    for draft in drafts:
        before, seen = draft.before, Stamps.parse(draft.command.expect or "")
        assert before is not None and seen is not None, "only updates with a base are stale"
        base = _state_as_seen(draft.kind, trails[draft.id], seen, streams)
        last = {r: e for e in trails[draft.id] for r in _written(e.body.base, e.body.fields)}
        conflicts: list[FieldConflict] = []
        for fid, mine, theirs in _differences(draft, before):
            register = fid if fid.startswith("@") else draft.kind.by_fid[fid].register  # type: ignore[union-attr]
            # Of a record that came as a state the log may know nothing.
            entry = last.get(register) or next(reversed(trails[draft.id]), None)
            conflicts.append(
                FieldConflict(
                    field=_name(draft, fid),
                    mine=mine,
                    theirs=theirs if _readable(ctx, draft, fid) else None,
                    base=_value(base, fid) if _readable(ctx, draft, fid) else None,
                    who=entry.actor if entry else before.updated_by,
                    at=hlc_moment(entry.hlc) if entry else before.updated_at,
                )
            )
        draft.outcome = Conflict(draft.id, str(before.stamps), tuple(conflicts))


def _differences(draft: Draft, before: RecordState) -> list[tuple[str, Json, Json]]:
    stale, kind = set(draft.stale), draft.kind
    assert kind is not None, "only settled updates can be stale"
    found: list[tuple[str, Json, Json]] = [
        (fid, value, before.data.get(fid))
        for fid, value in draft.values.items()
        if kind.by_fid[fid].register in stale
    ]
    if UNIT in stale:
        found.append((UNIT, _id(draft.unit), _id(before.unit)))
    if OWNER in stale:
        found.append((OWNER, _id(draft.owner), _id(before.owner)))
    return found


def _state_as_seen(
    kind: Kind | None, trail: Sequence[Entry], seen: Stamps, streams: frozenset[UUID]
) -> RecordState | None:
    """Replay the record up to the last entry whose dot the author's version names."""
    known = {dot.partition("@")[0] for dot in seen.all_dots()}
    places = [n for n, entry in enumerate(trail) if entry.dot in known]
    replay = Replay(kind, Taken(streams.__contains__))
    for entry in trail[: (places[-1] + 1) if places else 0]:
        replay.take(entry)
    return replay.state


def _written(base: dict[str, list[str]], fields: dict[str, Json]) -> set[str]:
    return {*base, *fields}


def _readable(ctx: Ctx, draft: Draft, fid: str) -> bool:
    if fid.startswith("@") or ctx.door in UNPROFILED or draft.kind is None:
        return True
    return ctx.profile.mode(draft.kind.key, draft.kind.by_fid[fid]) >= Mode.READ


def _name(draft: Draft, fid: str) -> str:
    assert draft.kind is not None, "only settled updates can be stale"
    return fid[1:] if fid.startswith("@") else draft.kind.by_fid[fid].name


def _value(state: RecordState | None, fid: str) -> Json:
    if state is None:
        return None
    match fid:
        case "@unit":
            return _id(state.unit)
        case "@owner":
            return _id(state.owner)
        case _:
            return state.data.get(fid)


def _id(value: object) -> str | None:
    return str(value) if value is not None else None
