"""What people wrote beside one another in one record: its registers, opened, merged and closed.

Nearly every record is *closed*: each register has one live dot, so values and stamps say all
there is. An entry whose base is not what is live opens it: the registers are made from the state,
the entry is merged in, and what is shown is derived. They stay with the record (`RecordState.open`)
until everything has one value again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Protocol
from uuid import UUID

import msgspec

from appliance.kernel.change import Entry, EntryOp
from appliance.kernel.kind import Json, Kind, Policy
from appliance.kernel.registers import Cell, Has, Leaf, Registers, qualified
from appliance.kernel.shown import Shown, rank
from appliance.kernel.stamps import EXISTS, Stamps


class Known(Protocol):
    """What a node has of the log beyond the record at hand."""

    def has(self, dot: str) -> bool:
        """Whether the entry of a dot (with its stream) has been taken, or is just being taken."""

    def heard(self, dot: str) -> bool:
        """The same for what a node that tells of a record knows; of a stream that is not here,
        whether anything has said so.
        """

    def leaf(self, dot: str) -> Leaf:
        """Clock and author of a live entry, and what it replaced; its values do not matter."""


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """Registers as they are stored with a record and sent in a snapshot."""

    born: dict[str, Leaf]
    cells: dict[str, dict[str, Leaf]]
    pending: dict[str, list[str]]
    seen: dict[str, list[str]]
    sums: dict[str, str]


_encode = msgspec.msgpack.Encoder(order="sorted").encode
_decode = msgspec.msgpack.Decoder(Packed).decode


def pack(record: Registers, kind: Kind, has: Has) -> bytes:
    """The stored form: equal for equal registers, however they came to be. Of what a deleter had
    seen stays what is live, and what has not come yet.
    """
    live = record.live_dots()
    gone = {d for d, leaf in record.cell(EXISTS).items() if leaf.values.get(EXISTS) is False}
    return _encode(
        Packed(
            {dot: _unwritten(leaf, kind, record.cells) for dot, leaf in record.born.items()},
            record.cells,
            {register: sorted(dots) for register, dots in record.pending.items()},
            {
                dot: sorted(d for d in seen - gone if d in live or not has(d))
                for dot, seen in record.seen.items()
            },
            {fid: str(total) for fid, total in record.sums.items()},
        )
    )


def _unwritten(leaf: Leaf, kind: Kind, cells: Mapping[str, Cell]) -> Leaf:
    """A creation without the values of registers that have been written since."""
    kept: dict[str, Json] = {}
    for fid, value in leaf.values.items():
        field = kind.by_fid.get(fid)
        if field is not None and field.policy is Policy.SET:
            left: list[Json] = [m for m in _members(value) if f"{fid}/{m}" not in cells]
            if left:
                kept[fid] = left
        elif (field.register if field else fid) not in cells:
            kept[fid] = value
    return msgspec.structs.replace(leaf, values=kept)


def unpack(body: bytes) -> Registers:
    """The stored form back."""
    found = _decode(body)
    return Registers(
        born=found.born,
        cells=found.cells,
        pending={register: set(dots) for register, dots in found.pending.items()},
        seen={dot: frozenset(seen) for dot, seen in found.seen.items()},
        sums={fid: Decimal(total) for fid, total in found.sums.items()},
    )


def rename_dots(body: bytes, name: Callable[[str], str]) -> bytes:
    """The stored form with other names of entries; `name` says the one that counts."""
    found = _decode(body)
    return _encode(
        Packed(
            {name(dot): leaf for dot, leaf in found.born.items()},
            {r: {name(d): leaf for d, leaf in cell.items()} for r, cell in found.cells.items()},
            {r: sorted(map(name, dots)) for r, dots in found.pending.items()},
            {name(dot): sorted(map(name, dots)) for dot, dots in found.seen.items()},
            found.sums,
        )
    )


def fields_in(body: bytes) -> set[str]:
    """The fields of which a stored form says anything."""
    found = _decode(body)
    names = {*found.cells, *found.pending, *found.sums}
    for cell in (found.born, *found.cells.values()):
        for leaf in cell.values():
            names.update(leaf.values, leaf.was)
    return names | {name.partition("/")[0] for name in names}


def without_fields(body: bytes, fids: frozenset[str]) -> bytes:
    """The stored form without fields that are kept from its reader; the dots stay."""
    found = _decode(body)

    def strip(cell: Mapping[str, Leaf]) -> dict[str, Leaf]:
        return {dot: _without(leaf, fids) for dot, leaf in cell.items()}

    def is_kept(register: str) -> bool:
        fid, slash, _ = register.partition("/")
        return not (slash and fid in fids)

    return _encode(
        Packed(
            strip(found.born),
            {register: strip(cell) for register, cell in found.cells.items() if is_kept(register)},
            {register: dots for register, dots in found.pending.items() if is_kept(register)},
            found.seen,
            {fid: total for fid, total in found.sums.items() if fid not in fids},
        )
    )


def _without(leaf: Leaf, fids: frozenset[str]) -> Leaf:
    values = {fid: value for fid, value in leaf.values.items() if fid not in fids}
    was = {fid: value for fid, value in leaf.was.items() if fid not in fids}
    return msgspec.structs.replace(leaf, values=values, was=was)


def open_closed(
    kind: Kind, stream: UUID, stamps: Stamps, held: Mapping[str, Json], known: Known
) -> Registers:
    """The registers of a closed record. `held`: its data and what every record has; EXISTS too."""
    sets = {f.fid for f in kind.fields if f.policy is Policy.SET}
    values: dict[str, dict[str, Json]] = {register: {} for register in stamps.live}
    born: dict[str, Json] = {}
    for fid, value in held.items():
        if value is None:
            continue
        if fid in sets:
            born[fid] = [m for m in _members(value) if f"{fid}/{m}" not in stamps.live]
            continue
        field = kind.by_fid.get(fid)
        values.get(field.register if field else fid, born)[fid] = value
    for register in stamps.live:
        fid, slash, member = register.partition("/")
        if slash and member in _members(held.get(fid)):
            values[register] = {register: True}
    record = Registers()
    record.born = {
        dot: msgspec.structs.replace(known.leaf(dot), values=born)
        for dot in (qualified(d, stream) for d in stamps.born)
    }
    members = kind.registers()
    for register, dots in stamps.live.items():
        fids = {register, *(f.fid for f in members.get(register, ()))}
        record.cells[register] = {
            dot: _with(known.leaf(dot), values[register], fids)
            for dot in (qualified(d, stream) for d in dots)
        }
    if held.get(EXISTS) is False:
        # Whoever deleted a closed record had seen all of it.
        live = frozenset(record.live_dots())
        record.seen = dict.fromkeys(record.cell(EXISTS), live)
    return record


def _with(leaf: Leaf, values: dict[str, Json], fids: AbstractSet[str]) -> Leaf:
    """An entry's leaf in one of the registers that it wrote."""
    was = {fid: value for fid, value in leaf.was.items() if fid in fids}
    return msgspec.structs.replace(leaf, values=values, was=was)


def _members(value: Json) -> list[str]:
    return [str(m) for m in value] if isinstance(value, list) else []


def stamps_of(record: Registers, home: UUID) -> Stamps:
    """The live dots as a record in the stream `home` writes them."""
    suffix = f"@{home.hex}"

    def plain(cell: Cell) -> tuple[str, ...]:
        return tuple(sorted(dot.removesuffix(suffix) for dot in cell))

    return Stamps(plain(record.born), {r: plain(cell) for r, cell in record.cells.items()})


def is_settled(record: Registers, shown: Shown, has: Has) -> bool:
    """Whether every register has one value again, so that the record can be closed."""
    return (
        not shown.conflicts
        and not record.pending
        and all(has(dot) for seen in record.seen.values() for dot in seen)
        and len(record.born) == 1
        and all(len(cell) == 1 for cell in record.cells.values())
    )


def deletion(record: Registers) -> Leaf | None:
    """Who deleted it last, if it is deleted."""
    gone = {d: leaf for d, leaf in record.cell(EXISTS).items() if leaf.values.get(EXISTS) is False}
    return gone[max(gone, key=lambda dot: rank(gone[dot], dot))] if gone else None


def is_straight(stamps: Stamps, home: UUID, entry: Entry, *, is_deleted: bool) -> bool:
    """Whether the author of an entry saw a closed record just as it stands here."""
    body, local = entry.body, entry.stream == home
    for register, base in body.base.items():
        live = stamps.of(register)
        # A plain dot is of the stream it stands in: through a former home it names another entry.
        if local and tuple(base) == live:
            continue
        if local or not _same(base, live, entry.stream, home):
            return False
    if entry.op is EntryOp.DEL:
        now = {qualified(dot, home) for dot in stamps.all_dots()}
        return now == {qualified(dot, entry.stream) for dot in body.seen}
    return not is_deleted or entry.op is EntryOp.UNDEL


def _same(base: list[str], live: tuple[str, ...], stream: UUID, home: UUID) -> bool:
    return {qualified(d, stream) for d in base} == {qualified(d, home) for d in live}
