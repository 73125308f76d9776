"""What people see of a record's registers: one value for each field, and the conflicts.

Both are derived, never written: every node that has the same entries shows the same. A policy that
decides by itself makes no entry; only a person (or a rule that acts as one) resolves a conflict, by
an ordinary edit whose base is everything live (research/sync 2.4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import StrEnum

import merge3
import msgspec

from appliance.kernel.kind import Field, Json, Kind, Policy
from appliance.kernel.registers import Cell, Leaf, Registers
from appliance.kernel.stamps import EXISTS, NUMBER, OWNER, UNIT


class ConflictSort(StrEnum):
    """What two people did without seeing each other."""

    FIELD = "field"
    EDIT_VS_DELETE = "edit_vs_delete"
    PROPOSAL = "proposal"


class Side(msgspec.Struct, frozen=True):
    """One of the values, by the dot of its entry."""

    dot: str
    values: dict[str, Json]


class Conflict(msgspec.Struct, frozen=True):
    """Values that wait for somebody to decide; the same on every node."""

    sort: ConflictSort
    register: str
    sides: tuple[Side, ...]


class Shown(msgspec.Struct, frozen=True):
    """A record as it is shown: `data` without nulls, whether it is there, what is open."""

    data: dict[str, Json]
    is_deleted: bool
    conflicts: tuple[Conflict, ...]


def show(record: Registers, kind: Kind) -> Shown:
    """The shown values and open conflicts of a record, unit, owner and number among them. Pure.

    A field that this node's schema does not know (yet) keeps its newest value.
    """
    data: dict[str, Json] = {}
    conflicts: list[Conflict] = []
    unit = _newest(record, UNIT)
    for register, fields in _registers(record, kind).items():
        policy = fields[0].policy
        if policy is Policy.SET:
            for field in fields:
                _set(data, field.fid, _members(record, field.fid))
            continue
        if policy is Policy.COUNTER:
            for field in fields:
                _count(data, field, record)
            continue
        cell = {dot: _of(leaf, fields) for dot, leaf in record.cell(register).items()}
        if not cell:
            continue
        chosen, conflict = _choose(record, register, fields, cell, unit)
        for field in fields:
            _set(data, field.fid, chosen.get(field.fid))
        if conflict is not None:
            conflicts.append(conflict)
    is_deleted, conflict = _existence(record)
    return Shown(data, is_deleted, (*conflicts, *([conflict] if conflict else [])))


def _registers(record: Registers, kind: Kind) -> dict[str, Sequence[Field]]:
    """The kind's registers, those that every record has, and what nobody here knows."""
    found: dict[str, Sequence[Field]] = {**kind.registers()}
    held = {fid for leaf in record.born.values() for fid in leaf.values}
    held |= {f for cell in record.cells.values() for leaf in cell.values() for f in leaf.values}
    for fid in sorted({UNIT, OWNER, NUMBER} | held - set(kind.by_fid)):
        if "/" not in fid and fid != EXISTS:
            policy = Policy.ASK if fid == OWNER else Policy.NEWEST
            found.setdefault(fid, (Field(fid=fid, name=fid, type="text", policy=policy),))
    return found


def _newest(record: Registers, fid: str) -> Json:
    cell = record.cell(fid)
    if not cell:
        return None
    return cell[max(cell, key=lambda dot: rank(cell[dot], dot))].values.get(fid)


def _choose(
    record: Registers,
    register: str,
    fields: Sequence[Field],
    cell: dict[str, dict[str, Json]],
    unit: Json,
) -> tuple[dict[str, Json], Conflict | None]:
    """The values of a register that is no set and no counter."""
    policy = fields[0].policy
    newest = max(cell, key=lambda dot: rank(record.cell(register)[dot], dot))
    if len({_key(values) for values in cell.values()}) == 1:
        return cell[newest], None
    if policy is Policy.NEWEST:
        return cell[newest], None
    if policy is Policy.STRICTEST:
        return cell[_strictest(record.cell(register), fields[0])], None
    if policy in _JOINS:
        return {
            f.fid: joined(policy, [v[f.fid] for v in cell.values() if v.get(f.fid) is not None])
            for f in fields
        }, None
    sides = tuple(Side(dot, cell[dot]) for dot in sorted(cell))
    leaves = record.cell(register)
    if policy is Policy.OWNER:
        owners = [dot for dot in cell if unit is not None and leaves[dot].by == unit]
        if len({_key(cell[dot]) for dot in owners}) == 1:
            return cell[owners[0]], Conflict(ConflictSort.PROPOSAL, register, sides)
    if policy is Policy.TEXT3 and len(fields) == 1:
        merged = _merge_texts(fields[0].fid, cell, leaves)
        if merged is not None:
            return {fields[0].fid: merged}, None
    return cell[newest], Conflict(ConflictSort.FIELD, register, sides)


def _members(record: Registers, fid: str) -> Json:
    """Add wins: a member is there while any live entry says so."""
    prefix = f"{fid}/"
    names = {register[len(prefix) :] for register in record.cells if register.startswith(prefix)}
    for leaf in record.born.values():
        held = leaf.values.get(fid)
        names.update(map(str, held if isinstance(held, list) else ()))
    found = [
        n for n in names if any(_holds(leaf, fid, n) for leaf in record.cell(prefix + n).values())
    ]
    return [*sorted(found)] or None


def _holds(leaf: Leaf, fid: str, member: str) -> bool:
    register = f"{fid}/{member}"
    if register in leaf.values:
        return leaf.values[register] is True
    held = leaf.values.get(fid)
    return isinstance(held, list) and member in held


def _count(data: dict[str, Json], field: Field, record: Registers) -> None:
    """Creations give the start (one, as a rule), deltas what came since."""
    start = sum(
        (
            Decimal(str(leaf.values[field.fid]))
            for leaf in record.born.values()
            if leaf.values.get(field.fid) is not None
        ),
        Decimal(0),
    )
    total = start + record.sums.get(field.fid, Decimal(0))
    if field.fid in record.sums or any(field.fid in leaf.values for leaf in record.born.values()):
        data[field.fid] = str(total)


def _existence(record: Registers) -> tuple[bool, Conflict | None]:
    """Deleted unless somebody brought it back; an edit that the deleter had not seen is a conflict."""
    cell = record.cell(EXISTS)
    gone = {dot for dot, leaf in cell.items() if leaf.values.get(EXISTS) is False}
    if not gone:
        return False, None
    alive = set(cell) - gone
    known = frozenset[str]().union(*(record.seen.get(dot, frozenset()) for dot in gone))
    unseen = (record.live_dots() - known - gone) | alive
    if not unseen:
        return True, None
    sides = [Side(dot, {EXISTS: False}) for dot in sorted(gone)]
    sides += [Side(dot, {}) for dot in sorted(unseen)]
    return not alive, Conflict(ConflictSort.EDIT_VS_DELETE, EXISTS, tuple(sides))


def _merge_texts(fid: str, cell: dict[str, dict[str, Json]], leaves: Cell) -> str | None:
    """All texts against what they replaced; None when two changed the same lines."""
    dots = sorted(cell)
    bases = [leaves[dot].was.get(fid) for dot in dots]
    base = bases[0]
    if not isinstance(base, str) or any(other != base for other in bases):
        return None
    merged = base
    for dot in dots:
        text = cell[dot].get(fid)
        if not isinstance(text, str):
            return None
        found = merge3.Merge3(_lines(base), _lines(merged), _lines(text))
        groups = list(found.merge_groups())
        if any(group[0] == "conflict" for group in groups):
            return None
        merged = "".join(line for group in groups for line in group[1])
    return merged


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _of(leaf: Leaf, fields: Sequence[Field]) -> dict[str, Json]:
    return {f.fid: leaf.values.get(f.fid) for f in fields}


def rank(leaf: Leaf, dot: str) -> tuple[int, int, int, str]:
    """Which of two is shown, or is the newest: by the hybrid clock, then by the dot."""
    name, _, stream = dot.partition("@")
    origin, _, oseq = name.partition(".")
    return leaf.hlc, int(origin), int(oseq), stream


def _key(values: dict[str, Json]) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(values, order="sorted"), digest_size=16).digest()


def _set(data: dict[str, Json], fid: str, value: Json) -> None:
    if value is not None:
        data[fid] = value


def joined(policy: Policy, values: Sequence[Json]) -> Json:
    """What several values come to under a policy that decides by itself; none of them is null."""
    return _JOINS[policy](values)


def _strictest(cell: Cell, field: Field) -> str:
    """The dot of the value that stands last among the choices; of equal ones the newest."""
    choices = field.option("choices")
    listed = choices if isinstance(choices, list) else []
    keys = [choice.get("key") for choice in listed if isinstance(choice, dict)]

    def place(dot: str) -> tuple[int, tuple[int, int, int, str]]:
        value = cell[dot].values.get(field.fid)
        return keys.index(value) if value in keys else -1, rank(cell[dot], dot)

    return max(cell, key=place)


def _largest(values: Sequence[Json]) -> Json:
    return max(values, key=_comparable, default=None)


def _least(values: Sequence[Json]) -> Json:
    return min(values, key=_comparable, default=None)


def _comparable(value: Json) -> tuple[int, Decimal, str]:
    """Numbers by value, everything else as its canonical text, which sorts by time."""
    if isinstance(value, bool):
        return 0, Decimal(value), ""
    try:
        return 0, Decimal(str(value)), ""
    except ArithmeticError:
        return 1, Decimal(0), str(value)


_JOINS: dict[Policy, Callable[[Sequence[Json]], Json]] = {
    Policy.MAX: _largest,
    Policy.MIN: _least,
    Policy.OR: lambda values: any(v is True for v in values) if values else None,
    Policy.AND: lambda values: all(v is True for v in values) if values else None,
}
