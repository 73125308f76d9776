"""Entries of ledgers on their way through the stages: written once, answered by a reversal.

An entry takes the moment of writing when it names none. A reversing entry names only what it
reverses: key and values come from there, a balance's with the other sign, and its id follows
from the id of what it takes back, so that the same entry cannot be reversed twice.
"""

from __future__ import annotations

from uuid import UUID
from zoneinfo import ZoneInfo

from appliance.fields import type_of
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.ledger import REVERSES, LedgerSort, reversal_id
from appliance.kernel.record import RecordState
from appliance.write.command import Command, Op
from appliance.write.draft import Draft
from appliance.write.load import Loaded


def check_entry(ctx: Ctx, draft: Draft, kind: Kind) -> bool:
    """Whether a command may go on: facts are made, never changed."""
    if kind.ledger is None or draft.command.op is Op.CREATE or ctx.door is Door.SYNC:
        return True
    draft.fault(
        "/id", "entry_fixed",
        f"Entries are never changed: create one with {REVERSES} set to this id, then a right one.",
    )  # fmt: skip
    return False


def id_of(kind: Kind, command: Command) -> UUID | None:
    """The id of a reversing entry; None where any fresh one will do."""
    reversed_ = command.fields.get(REVERSES) if kind.ledger else None
    try:
        return reversal_id(UUID(reversed_)) if isinstance(reversed_, str) else None
    except ValueError:
        return None


def complete_entry(ctx: Ctx, draft: Draft, kind: Kind) -> None:
    """The moment an entry holds from; a reversing entry says nothing of its own."""
    ledger = kind.ledger
    assert ledger is not None, "asked of entries only"
    at = kind.by_name[ledger.at]
    if draft.values.get(REVERSES) is None:
        if draft.values.get(at.fid) is None:
            draft.values[at.fid] = _now(ctx, at)
        return
    for name in (*ledger.key, *ledger.values):
        if draft.values.pop(kind.by_name[name].fid, None) is not None:
            draft.fault(
                f"/fields/{name}", "reversal_fixed",
                "A reversing entry takes its key and values from what it reverses.",
            )  # fmt: skip


def reverse(ctx: Ctx, draft: Draft, loaded: Loaded) -> None:
    """Fill a reversing entry from the one it takes back."""
    kind = draft.kind
    target_id = draft.values.get(REVERSES)
    if kind is None or kind.ledger is None or not isinstance(target_id, str):
        return
    target = loaded.targets[UUID(target_id)]
    if target.data.get(REVERSES) is not None:
        draft.fault(
            f"/fields/{REVERSES}", "reversal_fixed", "A reversal is not reversed: enter anew."
        )
        return
    ledger, draft.unit = kind.ledger, target.unit
    at = kind.by_name[ledger.at]
    moment = draft.values.get(at.fid) if ledger.sort is LedgerSort.BALANCE else None
    draft.values |= reversing(kind, target)
    if ledger.sort is LedgerSort.BALANCE:
        draft.values[at.fid] = moment or _now(ctx, at)


def reversing(kind: Kind, target: RecordState) -> dict[str, Json]:
    """What an entry says that takes another one back, at the moment of that one."""
    ledger = kind.ledger
    assert ledger is not None, "asked of entries only"
    at = kind.by_name[ledger.at].fid
    values: dict[str, Json] = {kind.by_name[REVERSES].fid: str(target.id), at: target.data[at]}
    for name in (*ledger.key, *ledger.values):
        fid = kind.by_name[name].fid
        value = target.data.get(fid)
        if value is not None:
            negate = name in ledger.values and ledger.sort is LedgerSort.BALANCE
            values[fid] = negated(value) if negate else value
    return values


def negated(value: Json) -> Json:
    """A canonical number with the other sign."""
    if isinstance(value, int):
        return -value
    text = str(value)
    if text.startswith("-"):
        return text[1:]
    return f"-{text}" if text.strip("0.") else text


def _now(ctx: Ctx, field: Field) -> Json:
    if field.type == "date":
        return ctx.at.astimezone(ZoneInfo(ctx.tz)).date().isoformat()
    return type_of(field.type).accept(field, ctx.at.isoformat())
