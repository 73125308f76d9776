"""Stage 4: bring the author's edit onto what is there now.

The base of an edit is what the form was opened with (`expect`), not what is there when it is
saved: the one rule for API and replication alike (research/sync 2.11). A register that somebody
else changed meanwhile settles by its policy, or is a conflict that shows both values.
"""

from __future__ import annotations

from uuid import UUID

from msgspec import UNSET

from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Field, Json, Kind, Policy
from appliance.kernel.record import OWNER, UNIT, RecordState
from appliance.kernel.shown import joined
from appliance.kernel.stamps import Stamps
from appliance.write.command import Op
from appliance.write.draft import Draft
from appliance.write.load import Loaded
from appliance.write.outcome import Unchanged

_COMMUTING = frozenset({Policy.NEWEST, Policy.MAX, Policy.MIN, Policy.OR, Policy.AND, Policy.SET})


def settle(draft: Draft) -> None:
    """Reduce a draft to what really changes, mark stale registers, or answer Unchanged."""
    if draft.command.op is not Op.UPDATE:
        _check_unmoved(draft)
        return
    before, kind = draft.before, draft.kind
    assert before is not None and kind is not None, "authorize has refused the others"
    command = draft.command
    draft.unit = (draft.unit or before.unit) if command.unit is UNSET else command.unit
    draft.owner = before.owner if command.owner is UNSET else command.owner
    if kind.home == "unit" and draft.unit is None:
        draft.fault("/unit", "required", "Say which unit the record belongs to.")
        return
    seen = Stamps.parse(command.expect) if command.expect is not None else before.stamps
    assert seen is not None, "validate has refused an unreadable version"
    stale = {r for r in _registers(draft, kind, before) if is_stale(seen, before.stamps, r)}
    for fid in list(draft.values):
        field = kind.by_fid[fid]
        if field.policy is Policy.SET:
            draft.values[fid] = _settle_set(field, seen, before, draft.values[fid])
        elif field.register in stale and field.policy in _COMMUTING:
            draft.values[fid] = _lattice(field, before.data.get(fid), draft.values[fid])
    draft.values = {
        f: v
        for f, v in draft.values.items()
        if before.data.get(f) != v or decides(draft, kind.by_fid[f].register)
    }
    draft.stale = sorted(
        stale & {r for r in _registers(draft, kind, before) if not _commutes(kind, r)}
    )
    if not (draft.values or moves(draft, before) or hands_over(draft, before)):
        draft.outcome = Unchanged(before.id, str(before.stamps))


def decides(draft: Draft, register: str) -> bool:
    """Whether a draft ends what several people have said of a register beside one another."""
    before = draft.before
    return draft.command.resolves and before is not None and len(before.stamps.of(register)) > 1


def moves(draft: Draft, before: RecordState) -> bool:
    """Whether an edit says which unit the record belongs to."""
    said = draft.command.unit is not UNSET and decides(draft, UNIT)
    return said or draft.unit != before.unit


def hands_over(draft: Draft, before: RecordState) -> bool:
    """Whether an edit says who owns the record."""
    said = draft.command.owner is not UNSET and decides(draft, OWNER)
    return said or draft.owner != before.owner


def _check_unmoved(draft: Draft) -> None:
    """Whether to keep a record is decided upon all that is known of it, or not at all."""
    seen = Stamps.parse(draft.command.expect or "") if draft.command.resolves else None
    if seen is not None and draft.before is not None:
        if seen.all_dots() != draft.before.stamps.all_dots():
            detail = "Somebody wrote this record meanwhile; look at it again and decide anew."
            draft.fault("/version", "moved_on", detail, status=409)


def place_with_parent(ctx: Ctx, draft: Draft, loaded: Loaded, batch: dict[UUID, Draft]) -> None:
    """A line that is new, or comes from another document, belongs where its document does, unless
    somebody said a unit. Whether the document moves is not known yet: see `follow`.
    """
    kind, op = draft.kind, draft.command.op
    field = kind.belonging if kind is not None and op in (Op.CREATE, Op.UPDATE) else None
    if kind is None or field is None or draft.command.unit is not UNSET or kind.home != "unit":
        return
    parent = draft.values.get(field.fid)
    if draft.before is not None and parent == draft.before.data.get(field.fid):
        return
    if isinstance(parent, str):
        ident = UUID(parent)
        target, sibling = loaded.targets.get(ident), batch.get(ident)
        found = target.unit if target else sibling.unit if sibling is not None else None
        draft.unit = found or draft.unit
    if op is Op.CREATE and draft.unit is None and ctx.door is not Door.SYNC:
        draft.fault("/unit", "required", "Say which unit the record belongs to.")


def is_stale(seen: Stamps, now: Stamps, register: str) -> bool:
    """Whether the author saw other live dots of this register than there are now."""
    old, new = seen.of(register), now.of(register)
    # The creation dot reads differently only when the home stream changed. After a move old dots
    # carry their stream's name; a plain dot is younger than the move, also where its number is that
    # of an entry of the former home.
    moved = seen.born != now.born
    if old == new and (not moved or all("@" in dot for dot in new)):
        return False
    plain = tuple(dot.partition("@")[0] for dot in new)
    return not (moved and old == plain and all("@" in dot for dot in new))


def _registers(draft: Draft, kind: Kind, before: RecordState) -> set[str]:
    found = {kind.by_fid[fid].register for fid in draft.values}
    if moves(draft, before):
        found.add(UNIT)
    if hands_over(draft, before):
        found.add(OWNER)
    return found


def _commutes(kind: Kind, register: str) -> bool:
    fields = kind.registers().get(register, ())
    return bool(fields) and all(f.policy in _COMMUTING for f in fields)


def _settle_set(field: Field, seen: Stamps, before: RecordState, mine: Json) -> Json:
    """Member by member: what the author did not see stays as it is, the rest is as they said."""
    now = (
        {str(m) for m in found} if isinstance(found := before.data.get(field.fid), list) else set()
    )
    wanted = {str(m) for m in mine} if isinstance(mine, list) else set()
    unseen = {m for m in now | wanted if is_stale(seen, before.stamps, f"{field.fid}/{m}")}
    return [*sorted((wanted - unseen) | (now & unseen))] or None


def _lattice(field: Field, theirs: Json, mine: Json) -> Json:
    if mine is None or theirs is None or field.policy is Policy.NEWEST:
        return mine
    return joined(field.policy, [theirs, mine])


def stale_fields(draft: Draft) -> list[Field]:
    """The fields of the stale registers that this draft would change."""
    kind, before = draft.kind, draft.before
    assert kind is not None and before is not None, "only settled updates can be stale"
    wanted = set(draft.stale)
    return [kind.by_fid[f] for f in draft.values if kind.by_fid[f].register in wanted]
