"""Decide a conflict: an edit like any other, upon everything that is live.

Its base are all live dots of what it decides, so whoever comes second is refused with what the
first one said, the decision is in the history and undo takes it back. What is no matter of one
value (a balance, a value that two records hold) is mended where it went wrong, and is gone then.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import UNSET

from appliance.base.errors import ApplianceError, Clash, FieldFault, Forbidden, Invalid
from appliance.db.database import Database
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.profile import Mode
from appliance.kernel.record import NUMBER, OWNER, UNIT
from appliance.kernel.stamps import EXISTS, Stamps
from appliance.sync.conflicts import (
    DELETED,
    FIELD,
    PROPOSAL,
    Filter,
    Held,
    Place,
    Side,
    find,
    is_same,
    read_page,
    visible,
)
from appliance.sync.nodes import hub_origins
from appliance.sync.showing import names_of
from appliance.write import Applied, Command, Conflict, Guard, Op, Rejected, Result, apply
from appliance.write.clashes import NEGATIVE
from appliance.write.shown import narrow_version

DECIDED = frozenset({FIELD, PROPOSAL, DELETED})
AT_ONCE = 100
ATOMIC_MAX = 1_000


class Keep(StrEnum):
    """What becomes of a record that one deleted and another changed."""

    DELETED = "deleted"
    RECORD = "record"


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the three: `choose` a side by its dot, `values` by field name (a merged text, another
    number), or of a deletion what to `keep`.
    """

    choose: str | None = None
    values: dict[str, Json] | None = None
    keep: Keep | None = None


class Rule(StrEnum):
    """Which side is taken where many are decided at once."""

    NEWEST = "newest"
    SHOWN = "shown"
    HUB = "hub"
    MINE = "mine"


class Decided(msgspec.Struct, frozen=True):
    """What became of one of many: `resolved`, or why it is still open."""

    record: UUID
    sort: str
    register: str
    status: str
    detail: str = ""


class Batch(msgspec.Struct, frozen=True):
    """What became of some of many, and where to go on; None at the end."""

    decided: list[Decided]
    next: Place | None
    change_sets: list[UUID]


async def resolve(
    db: Database,
    ctx: Ctx,
    held: Held,
    choice: Choice,
    *,
    expect: str | None = None,
    command_id: UUID | None = None,
    guard: Guard | None = None,
) -> Result:
    """Decide one conflict. `expect`: the version of the record that its reader saw.

    Raises Clash when it has moved on since, Invalid for a choice that is none of this sort's.
    """
    seen = Stamps.parse(expect) if expect is not None else None
    if expect is not None:
        now = Stamps.parse(narrow_version(ctx, held.kind, held.stamps))
        if seen is None or now is None or not is_same(seen, now, held):
            raise _moved()
    command = command_for(ctx, held, choice)
    return await apply(db, ctx, [command], command_id=command_id, guard=guard)


def command_for(ctx: Ctx, held: Held, choice: Choice) -> Command:
    """The edit that decides a conflict. Raises Invalid, Clash, Forbidden."""
    said = [n for n in ("choose", "values", "keep") if getattr(choice, n) is not None]
    if len(said) != 1:
        raise _fail("", "required", "Say one of: choose, values, keep.")
    if held.sort == NEGATIVE:
        raise Clash(
            "A balance is mended by an entry: reverse a wrong one, or enter what was counted.",
            code="conflict.by_entry",
        )
    if held.sort == DELETED:
        return _existence(held, choice)
    if choice.keep is not None:
        raise _fail("/keep", "unexpected", "Nobody deleted this record; say choose or values.")
    if choice.choose is not None:
        if held.sort not in DECIDED:
            raise _fail("/choose", "unexpected", "There are no sides to choose from; say values.")
        side = _side_of(held, choice.choose)
        return _edit(ctx, held, {fid: side.values.get(fid) for fid in held.fids})
    given = choice.values or {}
    seen = visible(ctx, held.kind, held.shown())
    names = {name: fid for fid, name in names_of(held, held.fids).items() if name in seen}
    for name in given:
        if name not in names:
            raise _fail(f"/values/{name[:80]}", "unknown_field", "This is not what is open here.")
    if not given:
        raise _fail("/values", "required", "Say the value that is to be.")
    return _edit(ctx, held, {names[name]: value for name, value in given.items()}, whole=False)


async def resolve_many(
    db: Database,
    ctx: Ctx,
    asked: Filter,
    rule: Rule,
    *,
    after: Place | None = None,
    limit: int = AT_ONCE,
    atomic: bool = False,
    guard: Guard | None = None,
) -> Batch:
    """Decide a page of conflicts by one rule: each by itself, or all of them in one change.

    What the rule says nothing of stays open and is reported; so is what the actor may not write.
    """
    page, place = await read_page(db, ctx, asked, limit=limit, after=after)
    hub = await hub_origins(db) if rule is Rule.HUB else frozenset[int]()
    reports: dict[tuple[UUID, str, str], Decided] = {}
    groups: dict[UUID, list[tuple[Held, Command]]] = {}
    for held in page:
        try:
            command = _by_rule(ctx, held, rule, hub)
        except ApplianceError as refused:
            _report(reports, held, "skipped", refused.detail)
            continue
        if command is None:
            _report(reports, held, "skipped", f"There is no side that {rule} says.")
            continue
        groups.setdefault(held.record, []).append((held, command))
    commands: list[Command] = []
    grouped: list[list[Held]] = []
    for pairs in groups.values():
        command, taken = _as_one(pairs)
        commands.append(command)
        grouped.append(taken)
        for held, _ in pairs:
            if held not in taken:
                _report(reports, held, "skipped", "Decide first whether the record is kept.")
    sets: list[UUID] = []
    if commands:
        if atomic and reports:
            raise Clash(
                "Some of these cannot be decided by this rule; nothing was written.",
                code="conflict.not_all",
            )
        result = await apply(db, ctx, commands, atomic=atomic, guard=guard)
        for taken, outcome in zip(grouped, result.outcomes, strict=True):
            for held in taken:
                status, detail = _outcome(outcome, committed=result.committed)
                _report(reports, held, status, detail)
        if any(r.status == "resolved" for r in reports.values()):
            sets.append(result.change_set)
    ordered = [reports[(h.record, h.sort, h.register)] for h in page]
    return Batch(ordered, place, sets)


def _by_rule(ctx: Ctx, held: Held, rule: Rule, hub: frozenset[int]) -> Command | None:
    if held.sort not in DECIDED:
        raise Clash("This is mended by hand, one by one.", code="conflict.by_hand")
    now = held.shown()
    sides = list(held.sides)
    if rule is Rule.HUB:
        sides = [s for s in sides if int(s.dot.partition(".")[0] or 0) in hub]
    elif rule is Rule.MINE:
        sides = [s for s in sides if s.actor == ctx.actor]
    elif rule is Rule.SHOWN and held.sort == DELETED:
        sides = [s for s in sides if (s.values.get(EXISTS) is False) == held.is_deleted]
    elif rule is Rule.SHOWN:
        sides = [s for s in sides if {f: s.values.get(f) for f in held.fids} == now]
    if not sides:
        return None
    side = max(sides, key=lambda s: (s.at or "", s.dot))
    if held.sort == DELETED:
        gone = side.values.get(EXISTS) is False
        return _existence(held, Choice(keep=Keep.DELETED if gone else Keep.RECORD))
    return _edit(ctx, held, {fid: side.values.get(fid) for fid in held.fids})


def _as_one(pairs: Sequence[tuple[Held, Command]]) -> tuple[Command, list[Held]]:
    """A record stands once in a batch: its open registers are decided by one edit."""
    for held, command in pairs:
        if command.op is not Op.UPDATE:
            return command, [held]
    first = pairs[0][1]
    fields = {name: value for _, c in pairs for name, value in c.fields.items()}
    unit = next((c.unit for _, c in pairs if c.unit is not UNSET), UNSET)
    owner = next((c.owner for _, c in pairs if c.owner is not UNSET), UNSET)
    one = msgspec.structs.replace(first, fields=fields, unit=unit, owner=owner)
    return one, [held for held, _ in pairs]


def _existence(held: Held, choice: Choice) -> Command:
    if choice.keep is None:
        raise _fail("/keep", "required", "Say whether to keep it `deleted`, or the `record`.")
    op = Op.DELETE if choice.keep is Keep.DELETED else Op.RESTORE
    return Command(op=op, kind=held.kind.key, id=held.record, expect=held.stamps, resolves=True)


def _edit(ctx: Ctx, held: Held, values: dict[str, Json], *, whole: bool = True) -> Command:
    """`whole`: the values of a side. What its author may not write must be as it is shown already;
    which field it is would say what they may not see.
    """
    if whole:
        now = held.shown()
        written = {f: v for f, v in values.items() if _writes(ctx, held, f)}
        if not written or any(v != now[f] for f, v in values.items() if f not in written):
            raise Forbidden(
                "This decides more than your profile may write; somebody who may can do it.",
                code="conflict.beyond_profile",
            )
        values = written
    names = names_of(held, values)
    fields = {names[f]: v for f, v in values.items() if f not in (UNIT, OWNER, NUMBER)}
    unit, owner = (_uuid(f, values[f]) if f in values else UNSET for f in (UNIT, OWNER))
    return Command(
        op=Op.UPDATE, kind=held.kind.key, id=held.record, fields=fields, unit=unit, owner=owner,
        expect=held.stamps, resolves=held.sort in DECIDED,
    )  # fmt: skip


def _writes(ctx: Ctx, held: Held, fid: str) -> bool:
    field = held.kind.by_fid.get(fid)
    return field is None or ctx.profile.mode(held.kind.key, field) is Mode.WRITE


def _side_of(held: Held, dot: str) -> Side:
    for side in held.sides:
        if side.dot == dot:
            return side
    raise _moved()


def _uuid(fid: str, value: Json) -> UUID | None:
    if value is None:
        return None
    try:
        return UUID(str(value))
    except ValueError:
        raise _fail(f"/values/{fid[1:]}", "out_of_range", "Expected an id.") from None


def _outcome(outcome: object, *, committed: bool) -> tuple[str, str]:
    match outcome:
        case Conflict():
            return "conflict", "Somebody wrote this meanwhile; look at it again."
        case Rejected(faults=faults):
            return "rejected", " ".join(f"{f.pointer}: {f.detail}" for f in faults)
        case Applied() if committed:
            return "resolved", ""
        case _:
            return (
                ("resolved", "") if committed else ("skipped", "Others of the batch were refused.")
            )


def _report(
    reports: dict[tuple[UUID, str, str], Decided], held: Held, status: str, detail: str
) -> None:
    key = (held.record, held.sort, held.register)
    reports[key] = Decided(*key, status, detail)


def _moved() -> Clash:
    return Clash(
        "Somebody wrote this meanwhile; look at the conflict again and decide anew.",
        code="conflict.moved_on",
    )


def _fail(pointer: str, code: str, detail: str) -> Invalid:
    return Invalid(detail, faults=(FieldFault(pointer, code, detail),))


__all__ = ["Batch", "Choice", "Decided", "Keep", "Rule", "command_for", "find", "resolve",
           "resolve_many"]  # fmt: skip
