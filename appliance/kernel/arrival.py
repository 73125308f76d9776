"""What a move says beside values and dots, so that its new home decides as the old one would.

Clock and author of each live value: they decide between values that were written beside one
another, and a node that holds only the new home has no entry to look them up in. And what the
mover had of each stream the record has been in: a node that was away may have written there
meanwhile, or have written what the mover knew and replaced; only this tells the two apart.

Both stand in an entry's `ext`, so that a program that does not know them passes them on. A move of
a program that did not write them is taken as before: its values rank behind all others, and what
was written before it is taken to be in it.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from uuid import UUID

import msgspec

from appliance.kernel.beside import unpack
from appliance.kernel.change import Entry, EntryOp
from appliance.kernel.kind import Json
from appliance.kernel.registers import Leaf, earlier, qualified

# Keys of an arrival's `ext`. MARKS: of each dot in `seen`, in that order, [clock, author, unit,
# what it replaced], the last two only where there are any. KNEW: {stream: {origin: how far}}, of
# which BUT were not counted, because somebody had to look at them first.
# LATER: it was touched by somebody whose clock is further than that of the mover.
MARKS, KNEW, BUT, OPEN, LATER = "marks", "knew", "knew_not", "open", "later"
# When it brings what came late through the former home: the entries of the new one that its sender
# had, by origin.
GOT = "got"
# And, of other streams that its live values come from: {stream: {origin: how far}}.
HAD = "had"

_Vector = dict[int, int]


class Past(msgspec.Struct, frozen=True):
    """What is known of a record that moves to the stream `home`: clocks by dot, how far each stream
    that it was in is here, what of those is left out.
    """

    home: UUID
    leaves: Mapping[str, Leaf]
    got: Mapping[UUID, Mapping[int, int]] = {}
    without: tuple[str, ...] = ()


def tell(past: Past, dots: Iterable[str], *, is_open: bool) -> dict[str, Json]:
    """A record's past as its arrival says it. An open record has its clocks in its registers."""
    said: dict[str, Json] = {}
    if not is_open:
        said[MARKS] = [_row(past.leaves.get(qualified(dot, past.home))) for dot in dots]
    if past.got:
        said[KNEW] = {s.hex: {str(o): n for o, n in got.items()} for s, got in past.got.items()}
    if past.without:
        said[BUT] = [*past.without]
    return said


def _row(leaf: Leaf | None) -> Json:
    if leaf is None or not leaf.hlc:
        return None
    found: list[Json] = [leaf.hlc, str(leaf.actor)]
    if leaf.by is not None or leaf.was:
        found.append(leaf.by)
    if leaf.was:
        found.append(leaf.was)
    return found


def marks_of(entry: Entry) -> dict[str, Leaf]:
    """Clocks and authors that an entry tells of, by dot; none where it does not say."""
    if entry.op is not EntryOp.ARRIVE:
        return {}
    ext, seen = entry.body.ext, entry.body.seen
    found: dict[str, Leaf] = {}
    if isinstance(registers := ext.get(OPEN), str):
        record = unpack(b64decode(registers))
        for cell in (record.born, *record.cells.values()):
            for dot, leaf in cell.items():
                found[dot] = earlier(leaf, found.get(dot))
    rows = ext.get(MARKS)
    if isinstance(rows, list) and len(rows) == len(seen):
        for dot, row in zip(seen, rows, strict=True):
            if (read := _read(row)) is not None:
                found[qualified(dot, entry.stream)] = read
    return {dot: msgspec.structs.replace(leaf, values={}) for dot, leaf in found.items()}


def _read(row: Json) -> Leaf | None:
    """One row of MARKS; None for what is none, which says as little as nothing."""
    match row:
        case [int(hlc), str(actor), *more] if hlc > 0 and len(more) <= 2:
            by, was = (*more, None, None)[:2]
        case _:
            return None
    try:
        author = UUID(actor)
    except ValueError:
        return None
    return Leaf(
        {}, hlc, author, was if isinstance(was, dict) else {}, by if isinstance(by, str) else None
    )


def learn(found: dict[str, Leaf], entries: Iterable[Entry]) -> None:
    """Add what arrivals tell of; of one that is told of twice the clock that was cut counts."""
    for entry in entries:
        for dot, leaf in marks_of(entry).items():
            found[dot] = earlier(leaf, found.get(dot))


def is_late(entry: Entry) -> bool:
    """Whether an arrival tells what came late through a former home."""
    return entry.op is EntryOp.ARRIVE and GOT in entry.body.ext


def has_past(entry: Entry) -> bool:
    """Whether an arrival says what its author had."""
    return is_late(entry) or isinstance(entry.body.ext.get(KNEW), dict)


def knew(arrival: Entry, dot: str) -> bool:
    """Whether the author of an arrival had an entry. As far as it knew, the record has never been in
    a stream that is not named.
    """
    name, _, stream = dot.partition("@")
    origin, _, oseq = name.partition(".")
    ext, late = arrival.body.ext, is_late(arrival)
    is_home = stream == arrival.stream.hex
    if is_home and not late and int(origin) == arrival.origin:
        return int(oseq) <= arrival.oseq
    left = ext.get(BUT)
    if isinstance(left, list) and dot in left:
        return False
    named = ext.get(HAD if late else KNEW)
    got = ext[GOT] if late and is_home else named.get(stream) if isinstance(named, dict) else None
    return int(oseq) <= int(str(got.get(origin, 0))) if isinstance(got, dict) else False


def vectors_of(entry: Entry) -> Iterator[tuple[UUID, dict[int, int]]]:
    """How far the author of an arrival had each stream that it names."""
    ext = entry.body.ext
    named: dict[str, Json] = {entry.stream.hex: ext.get(GOT)}
    for key in (KNEW, HAD):
        said = ext.get(key)
        named |= said if isinstance(said, dict) else {}
    for stream, got in named.items():
        try:
            yield UUID(stream), msgspec.convert(got, _Vector, strict=False)
        except (msgspec.ValidationError, ValueError):
            continue
