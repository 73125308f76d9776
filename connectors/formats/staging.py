"""Rows of one reading on their way: staged, counted, an id that comes again told apart.

Of every record only two numbers are kept (sixteen bytes, and half as much air), so that memory
stays flat while a repeated id is still seen.
"""

from __future__ import annotations

from array import array
from collections import Counter

from connectors.formats.amounts import plain_decimal
from connectors.formats.xml import SHOWN_CONTROL, XmlFile
from connectors.sdk.contract import Fault, Place, StagedRow, Value

_WORD = 0xFFFFFFFFFFFFFFFF


class Seen:
    """Hashes by hash, sixteen bytes each and half as much air: 400 000 ids take 16 MB."""

    def __init__(self) -> None:
        self._start(1 << 12)
        self._count = 0

    def put(self, key: int, value: int) -> int | None:
        """What was put under that key before, if anything; else remember this."""
        keys, mask = self._keys, self._mask
        key = key & _WORD or 1
        value &= _WORD
        place = key & mask
        while found := keys[place]:
            if found == key:
                return self._values[place]
            place = (place + 1) & mask
        keys[place] = key
        self._values[place] = value
        self._count += 1
        if self._count * 2 > mask:
            self._grow()
        return None

    def __contains__(self, key: int) -> bool:
        key = key & _WORD or 1
        place = key & self._mask
        while found := self._keys[place]:
            if found == key:
                return True
            place = (place + 1) & self._mask
        return False

    def _start(self, size: int) -> None:
        self._mask = size - 1
        self._keys = array("Q", bytes(8 * size))
        self._values = array("Q", bytes(8 * size))

    def _grow(self) -> None:
        old_keys, old_values = self._keys, self._values
        self._start(2 * len(old_keys))
        keys, values, mask = self._keys, self._values, self._mask
        for key, value in zip(old_keys, old_values, strict=True):
            if key:
                place = key & mask
                while keys[place]:
                    place = (place + 1) & mask
                keys[place] = key
                values[place] = value


class Staging:
    """The state of one reading. `rows`: staged and not yet sent; `records`: what was read, by
    sort, whatever became of it.
    """

    def __init__(self) -> None:
        self.rows: list[StagedRow] = []
        self.seen = Seen()
        self.entities: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        self._warned: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], tuple[str, Place]] = {}

    def stage(
        self,
        place: Place,
        entity: str,
        key: str,
        values: dict[str, Value],
        faults: list[Fault] | None = None,
    ) -> None:
        """One row. A row without a key gets the fault of that."""
        if not key:
            fault = Fault("missing-id", "an id", "", place)
            faults = [*faults, fault] if faults else [fault]
        self.entities[entity] += 1
        self.rows.append(
            StagedRow(place, entity, key, values, (), tuple(faults))
            if faults
            else StagedRow(place, entity, key, values)
        )

    def is_new(
        self, place: Place, entity: str, key: str, content: object, faults: list[Fault]
    ) -> bool:
        """Whether a record is to be staged: an identical one is not, and told of; one that differs
        from what stood under its id before is at fault.
        """
        told = hash(content) & _WORD
        before = self.seen.put(hash((entity, key)), told)
        if before is None:
            return True
        if before == told:
            self.warn("duplicate-collapsed", f"one {entity} for an id", key, place)
            return False
        expected = f"one {entity} for an id, or the same twice"
        faults.append(Fault("duplicate-id", expected, key, place))
        self.warn("duplicate-id", expected, key, place)
        return True

    def warn(self, code: str, expected: str, found: str, place: Place) -> None:
        """Something tolerated: told once for each code and expectation, with a count."""
        key = (code, expected)
        self._warned[key] += 1
        self._first.setdefault(key, (found, place))

    def warnings(self) -> list[Fault]:
        """What was tolerated: the first of each with its place, and how many there are."""
        found = []
        for (code, expected), count in self._warned.items():
            first, place = self._first[code, expected]
            found.append(Fault(code, expected, f"{first} ({count})" if count > 1 else first, place))
        return found


def number(text: str, place: Place, path: str, faults: list[Fault]) -> str | None:
    """A plain decimal, or None with a fault that names the element."""
    try:
        return plain_decimal(text)
    except ValueError as error:
        where = Place(place.sheet, place.row, path)
        faults.append(Fault(str(error), "a decimal number", text[:60], where))
        return None


def controls_in(file: XmlFile, values: dict[str, Value], place: Place) -> list[Fault]:
    """A fault for each value that held control characters in the input."""
    if not file.has_controls:
        return []
    return [
        Fault("control-character", "text without control characters", name, place)
        for name, value in values.items()
        if isinstance(value, str) and SHOWN_CONTROL in value
    ]
