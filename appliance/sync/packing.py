"""Columns of a frame: integers as runs or steps, names by number, ids without what repeats.

Each form is the shortest of a few that one pass over the column can tell; what is left is made
smaller by the compressor. What comes back is checked before it is expanded, so that nothing a
peer sends costs more memory than its frame is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, groupby, repeat
from operator import ne, sub
from typing import Annotated, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta

from appliance.base import limits
from appliance.base.errors import Malformed
from appliance.base.ids import uuid_at

T = TypeVar("T")

# A frame holds whole transactions, and one of them may be all that one call may write, twice:
# what it says and what follows from it.
ENTRIES_MAX = 2 * limits.BATCH_COMMANDS_MAX
INT_MAX = 2**63 - 1
NAME_CHARS_MAX = 200

Ints = int | Annotated[list[int], Meta(max_length=2 * ENTRIES_MAX + 1)]
"""One number for all, or a form (PLAIN …) and then its numbers."""

PLAIN, STEPS, RUNS, STEP_RUNS = range(4)
_pack = msgspec.msgpack.Encoder().encode


def malformed(place: str, expected: str) -> Malformed:
    """The refusal of a frame: where it is wrong and what should have stood there."""
    return Malformed(
        f"A frame of a peer cannot be read: {place}, expected {expected}. "
        "Nothing of it was taken; it is asked for again.",
        code="sync.frame",
    )


def pack_ints(values: list[int]) -> Ints:
    """A column of whole numbers."""
    if not values:
        return 0
    first = values[0]
    if values.count(first) == len(values):
        return first
    steps = [first, *map(sub, values[1:], values)]
    if min(steps) < -INT_MAX or max(steps) > INT_MAX:
        return [PLAIN, *values]
    changes, step_changes = _changes(values), _changes(steps)
    fewest = 2 * min(changes, step_changes) + 2
    if fewest <= len(values) // 2 or fewest < 6:
        if changes <= step_changes:
            return [RUNS, *_runs(values)]
        return [STEP_RUNS, *_runs(steps)]
    if len(_pack(steps)) < len(_pack(values)):
        return [STEPS, *steps]
    return [PLAIN, *values]


def _changes(values: list[int]) -> int:
    return sum(map(ne, values, values[1:]))


def _runs(values: Iterable[int]) -> list[int]:
    flat: list[int] = []
    for value, group in groupby(values):
        flat += (value, len(list(group)))
    return flat


def unpack_ints(
    coded: Ints, count: int, place: str, bounds: tuple[int, int] = (0, INT_MAX)
) -> list[int]:
    """`count` numbers within `bounds`. Raises Malformed."""
    low, high = bounds
    if isinstance(coded, int):
        values = [coded] * count
    else:
        form, given = (coded[0], coded[1:]) if coded else (-1, [])
        if form in (RUNS, STEP_RUNS):
            times = given[1::2]
            if len(given) % 2 or sum(times) != count or min(times, default=1) < 1:
                raise malformed(place, f"runs of {count} numbers")
            given = list(chain.from_iterable(map(repeat, given[::2], times)))
        elif form not in (PLAIN, STEPS):
            raise malformed(place, "a known form of numbers")
        values = list(accumulate(given)) if form in (STEPS, STEP_RUNS) else given
    if len(values) != count:
        raise malformed(place, f"{count} numbers")
    if values and not (low <= min(values) and max(values) <= high):
        raise malformed(place, f"numbers from {low} to {high}")
    return values


class Names(msgspec.Struct, frozen=True, array_like=True):
    """A column of short texts: each different one once, and which of them it is."""

    names: Annotated[list[str], Meta(max_length=ENTRIES_MAX)]
    index: Ints


def number(values: Iterable[T]) -> tuple[list[T], list[int]]:
    """The different values in the order they come, and the place of each value among them."""
    places: dict[T, int] = {}
    index = [places.setdefault(value, len(places)) for value in values]
    return list(places), index


def pack_names(values: Iterable[str]) -> Names:
    """A column of short texts."""
    names, index = number(values)
    return Names(names, pack_ints(index))


def unpack_names(coded: Names, count: int, place: str) -> list[str]:
    """`count` texts. Raises Malformed."""
    for name in coded.names:
        if len(name) > NAME_CHARS_MAX or "\0" in name:
            raise malformed(place, f"names of at most {NAME_CHARS_MAX} characters")
    index = unpack_ints(coded.index, count, place, (0, len(coded.names) - 1))
    return [coded.names[i] for i in index]


class Ids(msgspec.Struct, frozen=True, array_like=True):
    """A column of UUIDs, each different one once.

    An id made near the moment of its entry (`near`: 0, or milliseconds before it, plus 1 when not
    negative) goes without its time. The eight leading bytes of the others go byte by byte, so
    that what they share stands together; the eight random ones go to the frame's noise.
    """

    count: int
    index: Ints
    near: Ints
    near_heads: bytes
    far_heads: bytes


_EACH = -1
_NEAR_MS = 1 << 15


def pack_ids(ids: Sequence[UUID], at_ms: Sequence[int], noise: list[bytes]) -> Ids:
    """A column of ids beside the milliseconds of their entries; random bytes go to `noise`."""
    values = [ident.int for ident in ids]
    different, index = number(values)
    count = len(different)
    moment = dict(zip(reversed(values), reversed(at_ms), strict=True))
    near, near_heads, far_heads = list[int](), list[bytes](), list[bytes]()
    for value in different:
        raw = value.to_bytes(16, "big")
        before = moment[value] - (value >> 80)
        if raw[6] >> 4 == 7 and -_NEAR_MS < before < _NEAR_MS:
            near.append(before + 1 if before >= 0 else before)
            near_heads.append(raw[6:8])
        else:
            near.append(0)
            far_heads.append(raw[:8])
        noise.append(raw[8:])
    return Ids(
        count,
        _EACH if count == len(ids) else pack_ints(index),
        pack_ints(near),
        _by_place(b"".join(near_heads), 2),
        _by_place(b"".join(far_heads), 8),
    )


def unpack_ids(coded: Ids, at_ms: Sequence[int], noise: Noise, place: str) -> list[UUID]:
    """An id for each entry. Raises Malformed."""
    total, count = len(at_ms), coded.count
    if not 0 <= count <= total:
        raise malformed(place, f"at most {total} ids")
    near = unpack_ints(coded.near, count, place, (1 - _NEAR_MS, _NEAR_MS))
    far = near.count(0)
    if len(coded.far_heads) != 8 * far or len(coded.near_heads) != 2 * (count - far):
        raise malformed(place, f"{count} ids")
    if coded.index == _EACH:
        index = list(range(count))
    else:
        index = unpack_ints(coded.index, total, place, (0, count - 1))
    if len(index) != total or len(set(index)) != count:
        raise malformed(place, f"{total} ids, none of them unused")
    moments = dict(zip(reversed(index), reversed(at_ms), strict=True))
    heads, far_heads = _rows(coded.near_heads, 2), _rows(coded.far_heads, 8)
    tails, found = noise.take(8, count), list[UUID]()
    for n, before in enumerate(near):
        if before:
            made = moments[n] - (before - 1 if before > 0 else before)
            if not 0 <= made < 1 << 48:
                raise malformed(place, "ids of a time that can be")
            head = made.to_bytes(6, "big") + next(heads)
        else:
            head = next(far_heads)
        found.append(uuid_at(int.from_bytes(head + tails[n], "big")))
    return [found[i] for i in index]


def _by_place(rows: bytes, width: int) -> bytes:
    return b"".join(rows[n::width] for n in range(width))


def _rows(columns: bytes, width: int) -> Iterator[bytes]:
    count = len(columns) // width
    rows = bytearray(len(columns))
    for n in range(width):
        rows[n::width] = columns[n * count : (n + 1) * count]
    return iter([bytes(rows[n : n + width]) for n in range(0, len(rows), width)])


class Noise:
    """The random bytes of a frame, taken from the front."""

    __slots__ = ("_at", "_bytes")

    def __init__(self, given: bytes) -> None:
        self._bytes = given
        self._at = 0

    def take(self, width: int, count: int = 1) -> list[bytes]:
        """`count` pieces. Raises Malformed when there are not as many."""
        start, self._at = self._at, self._at + width * count
        if self._at > len(self._bytes):
            raise malformed("its random bytes", f"{self._at} of them at least")
        return [self._bytes[n : n + width] for n in range(start, self._at, width)]

    def end(self) -> None:
        """Nothing may be left. Raises Malformed."""
        if self._at != len(self._bytes):
            raise malformed("its random bytes", f"{self._at} of them")
