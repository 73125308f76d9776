"""Rows of one reading on their way: staged, counted, an id that comes again told apart.

Of every record one number is kept, so that memory stays flat while a repeated id is still seen.
"""

from __future__ import annotations

from array import array
from collections import Counter

from connectors.formats.amounts import is_plain, plain_decimal
from connectors.formats.xml import SHOWN_CONTROL, XmlFile
from connectors.sdk.contract import Fault, Place, Rows, StagedRow, Value

_TAG = (1 << 40) - 1


class Seen:
    """Hashes by hash, eight bytes each and half as much air: 400 000 ids take 8 MB.

    Forty bits tell keys apart and twenty-four contents: among a million records the chance that
    two different ids are taken for one is one in a million, and then the record is at fault.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 << 12))
        self._mask = (1 << 12) - 1
        self._count = 0

    def put(self, key: int, value: int) -> int | None:
        """What was put under that key before (as `told_of` makes it), if anything; else remember."""
        slots, mask = self._slots, self._mask
        tag = key & _TAG or 1
        place = tag & mask
        while found := slots[place]:
            if found >> 24 == tag:
                return found & 0xFFFFFF
            place = (place + 1) & mask
        slots[place] = tag << 24 | value & 0xFFFFFF
        self._count += 1
        if self._count * 2 > mask:
            self._grow()
        return None

    def _grow(self) -> None:
        old = self._slots
        self._slots = slots = array("Q", bytes(16 * len(old)))
        self._mask = mask = 2 * len(old) - 1
        for slot in old:
            if slot:
                place = slot >> 24 & mask
                while slots[place]:
                    place = (place + 1) & mask
                slots[place] = slot


def told_of(content: object) -> int:
    """What is kept of a content, to compare it with another."""
    return hash(content) & 0xFFFFFF


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

    def take(self) -> Rows:
        """The rows that wait, counted and given away."""
        found = tuple(self.rows)
        self.rows.clear()
        self.entities.update([row.entity for row in found])
        return Rows(found)

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
        told = hash(content) & 0xFFFFFF
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
    if is_plain(text):
        return text
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
