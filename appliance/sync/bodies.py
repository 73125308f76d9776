"""Bodies of entries, taken apart: shapes once, values by field, dots as the little they say.

A shape is all of a body that repeats: its field names, its registers with the number of dots in
each, its groups. Values of one field stand together, so that they compress as one column. A dot
is a lane (an origin, or one of another stream) and a number: how far back in the author's own
numbering, or the plain number for others. A dot of no known form is a lane of its own, as text.
Sets, counters and extensions are rare and go whole.

A list or mapping among the values goes as bytes that hold it, level by level: the cheapest way to exhaust a reader is millions of empty lists in a few kilobytes,
and so it counts them before they are made.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, cast

import msgspec
from msgspec import Meta

from appliance.kernel.change import Body, Entry
from appliance.kernel.kind import Json
from appliance.sync.packing import (
    ENTRIES_MAX,
    INT_MAX,
    Ints,
    malformed,
    number,
    pack_ints,
    unpack_ints,
)

DOTS_MAX = 500_000
PARTS_MAX = 500_000
DEPTH_MAX = 100
LongInts = int | Annotated[list[int], Meta(max_length=2 * DOTS_MAX + 1)]
_DOT = re.compile(r"([1-9][0-9]{0,9})\.([1-9][0-9]{0,17})(@[0-9a-f]{32})?")
_LANE = re.compile(r"|=.{0,200}|[1-9][0-9]{0,9}(@[0-9a-f]{32})?", re.DOTALL)
_AGAIN = 0  # the lane of a dot that is the one before it in the same body
_ANY = (-INT_MAX, INT_MAX)


class Held(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A list or a mapping, one level of it, as bytes."""

    level: bytes


Flat = None | bool | int | float | str | Held


class Shape(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What bodies have in common; `dots` are those of each register, `seen` how many it names."""

    fields: list[str]
    registers: list[str]
    dots: Ints
    groups: dict[str, list[str]] = {}
    seen: int = 0
    rest: bool = False


class Rest(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What bodies seldom hold."""

    sets: dict[str, tuple[list[str], list[str]]] = {}
    deltas: dict[str, str] = {}
    ext: dict[str, Flat] = {}


class Bodies(msgspec.Struct, frozen=True, array_like=True):
    """The bodies of all entries of a frame; `values` by shape and then by field."""

    shapes: Annotated[list[Shape], Meta(max_length=ENTRIES_MAX)]
    index: Ints
    values: Annotated[
        list[Annotated[list[Flat], Meta(max_length=ENTRIES_MAX)]], Meta(max_length=PARTS_MAX)
    ]
    lanes: Annotated[list[str], Meta(max_length=PARTS_MAX)]
    lane: LongInts
    place: LongInts
    rests: Annotated[list[Rest], Meta(max_length=ENTRIES_MAX)]


_pack = msgspec.msgpack.Encoder().encode


def pack_bodies(entries: Sequence[Entry]) -> Bodies:
    """The bodies of entries, in their order."""
    shapes, index = number(map(_shape_key, (e.body for e in entries)))
    rows: list[list[tuple[Flat, ...]]] = [[] for _ in shapes]
    lanes: dict[str, int] = {}
    lane, place = list[int](), list[int]()
    rests: list[Rest] = []
    for entry, which in zip(entries, index, strict=True):
        body = entry.body
        rows[which].append(tuple(map(_flatten, body.fields.values())))
        last = ""
        for dots in (*body.base.values(), body.seen):
            for dot in dots:
                if dot == last:
                    lane.append(_AGAIN)
                    continue
                last = dot
                name, at = _split(dot, entry)
                lane.append(lanes.setdefault(name, len(lanes) + 1))
                place.append(at)
        if body.sets or body.deltas or body.ext:
            ext = {name: _flatten(value) for name, value in body.ext.items()}
            rests.append(Rest(body.sets, body.deltas, ext))
    values = [list(column) for block in rows for column in zip(*block, strict=True)]
    return Bodies(
        [_shape(key) for key in shapes], pack_ints(index), values, list(lanes),
        pack_ints(lane), pack_ints(place), rests,
    )  # fmt: skip


Key = tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...], bytes, int, bool]


def _shape_key(body: Body) -> Key:
    return (
        tuple(body.fields), tuple(body.base), tuple(map(len, body.base.values())),
        _pack(body.groups) if body.groups else b"", len(body.seen),
        bool(body.sets or body.deltas or body.ext),
    )  # fmt: skip


_groups = msgspec.msgpack.Decoder(dict[str, list[str]]).decode


def _shape(key: Key) -> Shape:
    fields, registers, dots, groups, seen, rest = key
    return Shape(
        list(fields), list(registers), pack_ints(list(dots)), _groups(groups) if groups else {},
        seen, rest,
    )  # fmt: skip


def _split(dot: str, entry: Entry) -> tuple[str, int]:
    found = _DOT.fullmatch(dot)
    if found is None:
        return f"={dot}", 0
    origin, oseq, elsewhere = found.groups()
    if elsewhere:
        return origin + elsewhere, int(oseq)
    # Written from what this author wrote itself: nearly always, and often just before.
    return ("", entry.oseq - int(oseq)) if int(origin) == entry.origin else (origin, int(oseq))


def unpack_bodies(coded: Bodies, places: Sequence[tuple[int, int]]) -> list[Body]:
    """A body for each (origin, oseq). Raises Malformed."""
    count = len(places)
    index = unpack_ints(coded.index, count, "the shapes of bodies", (0, len(coded.shapes) - 1))
    times = Counter(index)
    opener = _Opener()
    plans = [_Plan(shape, times[n], opener) for n, shape in enumerate(coded.shapes)]
    columns = iter(coded.values)
    for plan in plans:
        plan.fill([next(columns, None) for _ in plan.fields])
    if next(columns, None) is not None:
        raise malformed("the values", "none without a field")
    total = sum(plan.total * plan.count for plan in plans)
    if total > DOTS_MAX:
        raise malformed("the dots", f"at most {DOTS_MAX}")
    lane = unpack_ints(coded.lane, total, "the lanes of dots", (0, len(coded.lanes)))
    place = unpack_ints(coded.place, total - lane.count(_AGAIN), "the dots", _ANY)
    if len(coded.rests) != sum(plan.count for plan in plans if plan.shape.rest):
        raise malformed("sets and extensions", "as many as bodies that have some")
    reader = _Dots(coded.lanes, iter(lane), iter(place))
    rests = iter(coded.rests)
    return [
        plans[which].body(reader, place_, rests)
        for which, place_ in zip(index, places, strict=True)
    ]


class _Dots:
    """Dots in the order they were taken apart. Raises Malformed."""

    def __init__(self, lanes: list[str], lane: Iterator[int], place: Iterator[int]) -> None:
        if not all(map(_LANE.fullmatch, lanes)):
            raise malformed("the lanes of dots", "origins, also of another stream, or texts")
        self._lanes = ["", *lanes]
        self._lane, self._place = lane, place
        self.last = ""

    def take(self, count: int, own: tuple[int, int]) -> list[str]:
        """The next dots of the body of the entry `own`."""
        return [self._next(own) for _ in range(count)]

    def _next(self, own: tuple[int, int]) -> str:
        lane = next(self._lane)
        if lane != _AGAIN:
            name, at = self._lanes[lane], next(self._place)
            if not name:
                at = own[1] - at
                name = str(own[0])
            if name[0] == "=":
                self.last = name[1:]
            else:
                if not 0 < at <= INT_MAX:
                    raise malformed("a dot", "the number of an entry")
                origin, mark, stream = name.partition("@")
                self.last = f"{origin}.{at}{mark}{stream}"
        return self.last


class _Plan:
    """How the bodies of one shape are put together."""

    def __init__(self, shape: Shape, count: int, opener: _Opener) -> None:
        self.shape, self.count, self.fields = shape, count, shape.fields
        self._opener = opener
        width = len(shape.registers)
        if len({*shape.fields}) != len(shape.fields) or len({*shape.registers}) != width:
            raise malformed("a shape", "each field and register once")
        self.dots = unpack_ints(shape.dots, width, "a shape", (0, DOTS_MAX))
        self.total = sum(self.dots) + shape.seen
        if not 0 <= shape.seen <= DOTS_MAX:
            raise malformed("a shape", "a number of dots")
        self.rows: Iterator[tuple[Json, ...]] = iter(())

    def fill(self, columns: list[list[Flat] | None]) -> None:
        """Take the values of its fields."""
        given = [column for column in columns if column is not None and len(column) == self.count]
        if len(given) != len(self.fields):
            raise malformed("the values", f"{self.count} of each field")
        opened = [self._opener.column(column) for column in given]
        self.rows = zip(*opened, strict=True) if opened else iter([()] * self.count)

    def body(self, dots: _Dots, own: tuple[int, int], rests: Iterator[Rest]) -> Body:
        """The next body."""
        shape = self.shape
        dots.last = ""
        base = {
            register: dots.take(many, own)
            for register, many in zip(shape.registers, self.dots, strict=True)
        }
        seen = dots.take(shape.seen, own)
        rest = next(rests) if shape.rest else _NONE
        return Body(
            fields=dict(zip(self.fields, next(self.rows), strict=True)), base=base,
            groups=shape.groups, seen=seen,
            sets=rest.sets, deltas=rest.deltas,
            ext={name: self._opener.value(flat) for name, flat in rest.ext.items()},
        )  # fmt: skip


_NONE = Rest()
_level = msgspec.msgpack.Decoder(list[Flat] | dict[str, Flat]).decode


def _flatten(value: Json) -> Flat:
    match value:
        case list():
            return Held(_pack([_flatten(inner) for inner in value]))
        case dict():
            return Held(_pack({name: _flatten(inner) for name, inner in value.items()}))
        case _:
            return cast("Flat", value)


class _Opener:
    """Makes lists and mappings of the bytes that hold them. Raises Malformed."""

    def __init__(self) -> None:
        self._left = PARTS_MAX

    def column(self, values: list[Flat]) -> list[Json]:
        """The values of one field."""
        if Held not in set(map(type, values)):
            return cast("list[Json]", values)
        return [self.value(flat) for flat in values]

    def value(self, flat: Flat, depth: int = 0) -> Json:
        """One value, however deep up to DEPTH_MAX."""
        if not isinstance(flat, Held):
            return flat
        try:
            level = _level(flat.level)
        except (msgspec.MsgspecError, ValueError) as error:
            raise malformed("a value", "what JSON can hold") from error
        self._left -= 1 + len(level)
        if self._left < 0 or depth >= DEPTH_MAX:
            raise malformed("a value", f"{PARTS_MAX} parts in a frame, {DEPTH_MAX} deep")
        if isinstance(level, list):
            return [self.value(inner, depth + 1) for inner in level]
        return {name: self.value(inner, depth + 1) for name, inner in level.items()}
