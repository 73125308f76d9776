"""The merge core: what is live in each register of a record, as a pure function of its entries.

A register holds the values that nobody who wrote later had seen: an entry covers the dots that its
author saw (its base) and adds its own. So nodes that have the same entries hold the same values,
in whatever order they came; no clock takes part. An entry may cover one that has not come yet (a
device that roamed): that is remembered until it does (research/sync 2.3, 2.11).

Dots here name their stream (`1.42@<stream>`), because a record that moves keeps its past.
Which value is shown, and what is a conflict, is `appliance.kernel.shown`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.kernel.change import Entry, EntryOp
from appliance.kernel.kind import Json
from appliance.kernel.stamps import EXISTS

# Keys of an entry's `ext`; see Leaf.
WAS, BY = "was", "by"

Has = Callable[[str], bool]
"""Whether this node has taken the entry of a dot."""


class Leaf(msgspec.Struct, frozen=True):
    """One entry's values in one register: by field id, null where it cleared."""

    values: dict[str, Json]
    hlc: int
    actor: UUID
    # Of a text that is merged by lines: what it replaced, by field id; of a deletion: what its
    # author had seen point to the record. Of a value that one unit has the last word on: the unit
    # its author worked in.
    was: dict[str, Json] = {}
    by: str | None = None


Cell = dict[str, Leaf]


@dataclass(slots=True)
class Registers:
    """One record. A creation is the first value of every register, so only registers that were
    written since stand in `cells`.

    `pending` are dots that were covered before they came, `seen` what the author of a live
    deletion knew, `sums` the counters.
    """

    born: Cell = field(default_factory=dict)
    cells: dict[str, Cell] = field(default_factory=dict)
    pending: dict[str, set[str]] = field(default_factory=dict)
    seen: dict[str, frozenset[str]] = field(default_factory=dict)
    sums: dict[str, Decimal] = field(default_factory=dict)

    def cell(self, register: str) -> Cell:
        """The live leaves of a register."""
        return self.cells.get(register, self.born)

    def live_dots(self) -> set[str]:
        """Every dot that is live somewhere in the record."""
        found = set(self.born)
        for cell in self.cells.values():
            found.update(cell)
        return found


def qualified(dot: str, stream: UUID) -> str:
    """A dot that says of which stream it is."""
    return dot if "@" in dot else f"{dot}@{stream.hex}"


def merge(record: Registers, entry: Entry, has: Has) -> None:
    """Take one entry over. The caller takes each entry once and in its origin's order."""
    dot = qualified(entry.dot, entry.stream)
    body = entry.body
    if entry.op is EntryOp.NEW:
        _create(record, dot, leaf_of(entry, body.fields))
    elif entry.op in (EntryOp.DEL, EntryOp.UNDEL):
        gone = entry.op is EntryOp.DEL
        _put(record, EXISTS, dot, leaf_of(entry, {EXISTS: not gone}), entry, has)
        if gone and dot in record.cells[EXISTS]:
            record.seen[dot] = frozenset(qualified(d, entry.stream) for d in body.seen)
    else:
        for register, values in _written(entry):
            _put(record, register, dot, leaf_of(entry, values), entry, has)
    for fid, delta in body.deltas.items():
        record.sums[fid] = record.sums.get(fid, Decimal(0)) + Decimal(delta)


def leaf_of(entry: Entry, values: dict[str, Json]) -> Leaf:
    """What an entry leaves in a register; of nothing there are no nulls but in what was cleared."""
    ext = entry.body.ext
    replaced, unit = ext.get(WAS), ext.get(BY)
    said = (*values, EXISTS)
    was = {f: replaced[f] for f in said if f in replaced} if isinstance(replaced, dict) else {}
    held: dict[str, Json] = {fid: value for fid, value in values.items() if value is not None}
    return Leaf(held, entry.hlc, entry.actor, was, unit if isinstance(unit, str) else None)


def join(record: Registers, other: Registers, has: Has, other_has: Has) -> None:
    """Take over what another node knows of a record: a dot that only one of the two shows was
    covered at the other if that one has had it, and is news if it has not.
    """
    for register in {*record.cells, *other.cells}:
        mine, theirs = record.cell(register), other.cell(register)
        record.cells[register] = {
            **{d: leaf for d, leaf in mine.items() if d not in theirs and not other_has(d)},
            **{
                d: earlier(leaf, mine.get(d))
                for d, leaf in theirs.items()
                if d in mine or not has(d)
            },
        }
    born = {d: earlier(leaf, record.born.get(d)) for d, leaf in other.born.items()}
    record.born = {**record.born, **born}
    for dot, seen in other.seen.items():
        record.seen.setdefault(dot, seen)
    for register, dots in other.pending.items():
        for dot in dots:
            if record.cells.get(register, {}).pop(dot, None) is None and not has(dot):
                record.pending.setdefault(register, set()).add(dot)
    for register, dots in list(record.pending.items()):
        # What the other has had by then has come, and is where it belongs.
        record.pending[register] = {d for d in dots if not other_has(d)}
        if not record.pending[register]:
            del record.pending[register]
    for fid, total in other.sums.items():
        record.sums.setdefault(fid, total)


def earlier(leaf: Leaf, other: Leaf | None) -> Leaf:
    """The leaf with the clock that counts: a clock that was ahead was cut, and never set forward.
    A leaf without a clock is one of which nobody has told.
    """
    if other is None or not other.hlc or 0 < leaf.hlc <= other.hlc:
        return leaf
    return msgspec.structs.replace(
        leaf, hlc=other.hlc, actor=other.actor, was=leaf.was or other.was, by=leaf.by or other.by
    )


def _written(entry: Entry) -> Iterator[tuple[str, dict[str, Json]]]:
    """The registers of an edit with their values: a group as one, a set member by member."""
    body = entry.body
    grouped = {fid: name for name, fids in body.groups.items() for fid in fids}
    registers: dict[str, dict[str, Json]] = {}
    for fid, value in body.fields.items():
        registers.setdefault(grouped.get(fid, fid), {})[fid] = value
    yield from registers.items()
    for fid, (added, removed) in body.sets.items():
        for member in added:
            yield f"{fid}/{member}", {f"{fid}/{member}": True}
        for member in removed:
            yield f"{fid}/{member}", {f"{fid}/{member}": None}


def _create(record: Registers, dot: str, leaf: Leaf) -> None:
    """A creation that comes late finds registers that were written, and perhaps covered it."""
    for register, cell in record.cells.items():
        _add(record, register, cell, dot, leaf)
    record.born[dot] = leaf


def _put(record: Registers, register: str, dot: str, leaf: Leaf, entry: Entry, has: Has) -> None:
    cell = record.cells.get(register)
    if cell is None:
        cell = record.cells[register] = dict(record.born)
    for base in entry.body.base.get(register, ()):
        covered = qualified(base, entry.stream)
        if cell.pop(covered, None) is not None:
            record.seen.pop(covered, None)
        elif not has(covered):
            record.pending.setdefault(register, set()).add(covered)
    _add(record, register, cell, dot, leaf)


def _add(record: Registers, register: str, cell: Cell, dot: str, leaf: Leaf) -> None:
    waiting = record.pending.get(register)
    if waiting is not None and dot in waiting:
        # Whoever covered it came first.
        waiting.discard(dot)
        if not waiting:
            del record.pending[register]
    else:
        cell[dot] = leaf
