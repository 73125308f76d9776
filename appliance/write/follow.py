"""What belongs to a document goes with it: into another unit, in the same change.

A reference with the option `belongs` makes its record part of what it points to. When that moves,
its records move too, as consequences of the same batch: one change set, one undo. The rights of the
actor on the document decide; nobody needs a right of their own on its lines. What somebody has put
into another unit than the document's stays there.

An entry of a balance never changes: it is reversed where it was and entered anew where the document
is, both at its own moment, so every balance at every moment is what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from msgspec import UNSET

from appliance.base import limits
from appliance.base.errors import TooLarge
from appliance.base.ids import uuid_of
from appliance.db.database import Transaction
from appliance.db.wire import Call, Statement
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Field, Home, Kind
from appliance.kernel.ledger import LedgerSort, reversal_id, transfer_id
from appliance.kernel.record import RecordState
from appliance.write.command import Command, Op
from appliance.write.draft import Draft
from appliance.write.entries import reversing
from appliance.write.load import COLUMNS, points_at, read_state

_LOCK_BELONGING = (
    "SELECT {columns} FROM record WHERE tenant_id = $1 AND kind = $2 AND deleted_at IS NULL "
    "AND {points} ORDER BY id LIMIT $4 FOR UPDATE"
)
_STANDING = (
    "SELECT {columns} FROM entry WHERE tenant_id = $1 AND kind = $2 AND {points} "
    "AND reverses IS NULL AND NOT EXISTS (SELECT FROM entry v WHERE v.tenant_id = $1 "
    "AND v.kind = $2 AND v.reverses = entry.id) ORDER BY id LIMIT $4"
)


async def follow(tx: Transaction, ctx: Ctx, good: Sequence[Draft]) -> list[Draft]:
    """Let what belongs to the moved documents of a batch follow; the consequences, to be written.

    Raises TooLarge when more hangs on them than a batch may write.
    """
    if ctx.door is Door.SYNC:
        return []  # Its origin has written the consequences.
    batch = {d.id: d for d in good}
    moved = {d.id: d for d in good if _is_moved(d)}
    if not moved:
        return []
    while sum(_go_along(draft, moved) for draft in good):
        moved = {d.id: d for d in good if _is_moved(d)}
    found: list[Draft] = []
    while moved:
        states = await _lock_belonging(tx, ctx, moved.values())
        new = [
            draft
            for kind, state in states
            if (leader := _leader(kind, state, moved)) is not None
            and leader.before is not None
            and state.unit == leader.before.unit
            for draft in _consequences(kind, state, leader)
            if batch.keys().isdisjoint((state.id, reversal_id(state.id)))
        ]
        found += new
        if len(good) + len(found) > limits.BATCH_COMMANDS_MAX:
            raise TooLarge(
                f"More than {limits.BATCH_COMMANDS_MAX} records belong to what you move; move fewer "
                "documents at once."
            )
        # What belongs to a line goes with the line.
        moved = {d.id: d for d in new if _is_moved(d)}
        batch |= moved
    return found


def stay(drafts: Sequence[Draft]) -> list[Draft]:
    """Without the consequences of documents that were refused after all."""
    left = {d.id for d in drafts if _is_left(d)}
    for draft in drafts:
        if draft.id in left and not draft.is_consequence:
            assert draft.follows and draft.follows.before, "only followers of what was are left"
            draft.unit, draft.follows = draft.follows.before.unit, None
    return [d for d in drafts if not (d.id in left and d.is_consequence)]


def _is_left(draft: Draft) -> bool:
    leader = draft.follows
    return leader is not None and (bool(leader.faults) or _is_left(leader))


def _is_moved(draft: Draft) -> bool:
    before = draft.before
    return draft.command.op is Op.UPDATE and before is not None and draft.unit != before.unit


def _go_along(draft: Draft, moved: dict[UUID, Draft]) -> bool:
    """Whether a line that the batch itself writes goes too: unless somebody said its unit."""
    field = draft.kind.belonging if draft.kind is not None else None
    if field is None or draft.command.op not in (Op.CREATE, Op.UPDATE):
        return False
    held = draft.before.data.get(field.fid) if draft.before is not None else None
    parent = draft.values.get(field.fid, held)
    leader = moved.get(uuid_of(parent)) if isinstance(parent, str) else None
    if leader is None or leader.before is None or draft.command.unit is not UNSET:
        return False
    if draft.follows is not None or draft.unit != leader.before.unit:
        return False
    draft.unit, draft.follows = leader.unit, leader
    return True


def _leader(kind: Kind, state: RecordState, moved: dict[UUID, Draft]) -> Draft | None:
    field = kind.belonging
    parent = state.data.get(field.fid) if field is not None else None
    return moved.get(uuid_of(parent)) if isinstance(parent, str) else None


def _consequences(kind: Kind, state: RecordState, leader: Draft) -> list[Draft]:
    if kind.ledger is None:
        command = Command(op=Op.UPDATE, kind=kind.key, id=state.id, unit=leader.unit)
        return [Draft(-1, command, state.id, kind=kind, before=state, unit=leader.unit,
                      owner=state.owner, follows=leader)]  # fmt: skip
    steps = (
        (transfer_id(state.id), leader.unit, dict(state.data)),
        (reversal_id(state.id), state.unit, reversing(kind, state)),
    )
    return [
        Draft(-1, Command(op=Op.CREATE, kind=kind.key, id=ident), ident, kind=kind, values=values,
              unit=unit, owner=state.owner, follows=leader)
        for ident, unit, values in steps
    ]  # fmt: skip


async def _lock_belonging(
    tx: Transaction, ctx: Ctx, moved: Iterable[Draft]
) -> list[tuple[Kind, RecordState]]:
    by_kind: dict[str, list[UUID]] = {}
    for draft in moved:
        by_kind.setdefault(draft.command.kind, []).append(draft.id)
    asked = [
        (kind, field, by_kind[str(field.option("target"))])
        for kind in ctx.schema.kinds.values()
        if (field := _moving(kind)) is not None and field.option("target") in by_kind
    ]
    calls = [_lock_call(ctx, kind, field, ids) for kind, field, ids in asked]
    answers = await tx.run(*calls) if calls else []
    return [
        (kind, read_state(row))
        for (kind, _, _), rows in zip(asked, answers, strict=True)
        for row in rows
    ]


def _moving(kind: Kind) -> Field | None:
    """The field by which records of a kind belong somewhere, if they can move at all."""
    is_kept = kind.ledger is not None and kind.ledger.sort is not LedgerSort.BALANCE
    return kind.belonging if kind.home is Home.UNIT and not is_kept else None


def _lock_call(ctx: Ctx, kind: Kind, field: Field, ids: Sequence[UUID]) -> Call:
    form = _STANDING if kind.ledger else _LOCK_BELONGING
    text = form.format(columns=COLUMNS, points=points_at(field))
    most = limits.BATCH_COMMANDS_MAX + 1
    return Statement(text), (ctx.tenant, kind.key, sorted(ids), most)
