"""What the write path answers, in the words of the HTTP contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from appliance.base.errors import (
    ApplianceError,
    Clash,
    FieldFault,
    Forbidden,
    Invalid,
    Refused,
)
from appliance.kernel.kind import Json
from appliance.write import Applied, Conflict, Effect, Outcome, Rejected, Result, Unchanged


class FieldClash(msgspec.Struct, frozen=True):
    """A field that someone else changed meanwhile: both values, the base, who and when."""

    id: UUID
    field: str
    mine: Json
    theirs: Json
    base: Json
    who: UUID
    at: Any
    version: str


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One outcome, in the place of its command."""

    status: str
    id: UUID | None = None
    number: str | None = None
    version: str | None = None
    errors: tuple[FieldFault, ...] = ()
    conflicts: tuple[FieldClash, ...] = ()


class Written(msgspec.Struct, frozen=True):
    """The answer to a batch: what became of each, and what was set in motion."""

    change_set: UUID
    outcomes: list[Entry]
    effects: tuple[Effect, ...]


Placing = Callable[[int, str], str]


def in_list(place: int, pointer: str) -> str:
    """Where a fault stands when the body is a list of commands."""
    return f"/{place}{pointer}"


def alone(_: int, pointer: str) -> str:
    """Where a fault stands when the body is the command itself."""
    return pointer


def written(result: Result, placing: Placing = alone) -> Written:
    """The answer of a batch. Raises the refusal of one that was not committed."""
    refuse_uncommitted(result, placing)
    entries = [entry_of(o, n, placing) for n, o in enumerate(result.outcomes)]
    return Written(result.change_set, entries, result.effects)


def entry_of(outcome: Outcome, place: int = 0, placing: Placing = alone) -> Entry:
    """One outcome; `placing` turns the pointers of a command into those of the body."""
    match outcome:
        case Applied(id=ident, version=version, number=number):
            return Entry("applied", ident, number, version or None)
        case Unchanged(id=ident, version=version):
            return Entry("unchanged", ident, None, version)
        case Conflict(id=ident, version=version):
            return Entry("conflict", ident, None, version, conflicts=_clashes(outcome))
        case Rejected(id=ident, faults=faults):
            return Entry("rejected", ident, errors=_placed(faults, place, placing))


def refuse_uncommitted(result: Result, placing: Placing = alone) -> None:
    """Raise what refused a batch: the faults of all commands at once, by their places."""
    if result.committed:
        return
    clashes: list[FieldClash] = []
    faults: list[FieldFault] = []
    statuses: set[int] = set()
    for place, outcome in enumerate(result.outcomes):
        if isinstance(outcome, Conflict):
            clashes += _clashes(outcome)
        elif isinstance(outcome, Rejected):
            statuses.add(outcome.http_status)
            faults += _placed(outcome.faults, place, placing)
    if not statuses:
        raise Clash(
            "Someone else changed this meanwhile; both values are in `conflicts`. Nothing was written.",
            conflicts=tuple(clashes),
        )
    raise _refusal(statuses, tuple(faults), tuple(clashes))


def _refusal(
    statuses: set[int], faults: tuple[FieldFault, ...], clashes: tuple[FieldClash, ...]
) -> ApplianceError:
    # Several at once: the one that the sender can do most about stands for all.
    if 422 in statuses:
        return Invalid("Nothing was written; see `errors`.", faults=faults, conflicts=clashes)
    if 409 in statuses:
        return Clash("Nothing was written; see `errors`.", faults=faults, conflicts=clashes)
    if 403 in statuses:
        return Forbidden("Your profile does not allow this here.", faults=faults)
    return Refused("There is no such record for you.", code="record.unknown", faults=faults)


def _clashes(conflict: Conflict) -> tuple[FieldClash, ...]:
    return tuple(
        FieldClash(conflict.id, f.field, f.mine, f.theirs, f.base, f.who, f.at, conflict.version)
        for f in conflict.fields
    )


def _placed(faults: Sequence[FieldFault], place: int, placing: Placing) -> tuple[FieldFault, ...]:
    return tuple(FieldFault(placing(place, f.pointer), f.code, f.detail) for f in faults)
