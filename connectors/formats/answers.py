"""What an API answered, item by item: each one once, as it was told last.

Pages shift while they are asked for, and looks overlap: an item may come more than once. Equal
ones are one; of different ones the last told counts, and that is said. An item that does not fit
is one faulty row; a page that does not is the whole input refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from connectors.formats.amounts import is_plain, plain_decimal
from connectors.formats.captured import Head, Page, is_capture, read_head, read_pages
from connectors.formats.staging import Staging
from connectors.sdk.contract import (
    Fault,
    Found,
    Inspection,
    Place,
    Progress,
    Refused,
    Rows,
    Summary,
    Value,
)
from connectors.sdk.contract import Mapping as Reading
from connectors.sdk.manifest import read_manifest

BLOCK = 1_000
MOSCOW = timezone(timedelta(hours=3))
_DIGITS_MAX = 24
_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Taking(Staging):
    """The state of one reading: settings, and what the first pass has noted for the second."""

    def __init__(self, settings: Mapping[str, str], about: Mapping[str, str]) -> None:
        super().__init__()
        self.settings, self.about = settings, about
        self.notes: dict[str, Any] = {}


class Item:
    """One item on its way to rows: where it stands, and what is wrong in it."""

    def __init__(self, taking: Taking, place: Place) -> None:
        self.taking, self.place = taking, place
        self.faults: list[Fault] = []

    def amount(self, value: Decimal | None, path: str) -> str | None:
        """A plain decimal; a number beyond reason is a fault."""
        if value is None:
            return None
        if value.is_finite() and -12 <= value.adjusted() < _DIGITS_MAX:
            text = f"{value:f}"
            if is_plain(text):
                return text
        elif value.is_finite() and not value:
            return "0"
        self.fault("number-malformed", "a number of at most 24 digits", str(value)[:60], path)
        return None

    def written(self, raw: msgspec.Raw, path: str) -> str | None:
        """A plain decimal of what is a number, or one as people write it (`1 200,50 грн`)."""
        found = msgspec.json.decode(raw, type=str | float | None)
        if not isinstance(found, str):
            return self.amount(msgspec.json.decode(raw, type=Decimal | None), path)
        if not found.strip():
            return None
        try:
            return plain_decimal(found)
        except ValueError as error:
            self.fault(str(error), "a decimal number", found[:60], path)
            return None

    def moment(self, text: str | None, path: str, zone: tzinfo | None = None) -> str | None:
        """An ISO moment; one without a zone is of `zone`."""
        if not text:
            return None
        try:
            found = datetime.fromisoformat(text.strip())
        except ValueError:
            self.fault("malformed-date", "a moment as ISO 8601 writes it", text[:40], path)
            return None
        if found.tzinfo is None and zone is not None:
            found = found.replace(tzinfo=zone)
        return found.isoformat()

    def text(self, value: str | None, path: str) -> str | None:
        """A text without control characters, None for an empty one."""
        if value is None or not (found := value.strip()):
            return None
        if any(c < " " and c not in "\t\n\r" for c in found):
            self.fault("control-character", "text without control characters", path, path)
            return None
        return found

    def fault(self, code: str, expected: str, found: str, path: str) -> None:
        """Note what is wrong."""
        where = Place(row=self.place.row, column=f"{self.place.column}.{path}")
        self.faults.append(Fault(code, expected, found, where))

    def stage(self, entity: str, key: str, values: Mapping[str, Value]) -> None:
        """One row of it, with its faults; what is None was not told."""
        told: dict[str, Value] = {n: v for n, v in values.items() if v is not None}
        self.taking.stage(self.place, entity, key, told, list(self.faults))


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """How the answers to one sort of question are read.

    `items`: the items of a page, raises what msgspec raises; `id_of`: what an item is known by;
    `stage`: its rows (`argument` is what stands behind the name of the call); `entity`: what a row
    is of that cannot be read. `survey` is shown each page before anything is staged.
    """

    items: Callable[[msgspec.Raw], Sequence[msgspec.Raw]]
    id_of: Callable[[msgspec.Raw], str]
    stage: Callable[[Item, msgspec.Raw, str], None]
    entity: str = "order"
    survey: Callable[[Taking, msgspec.Raw, str], None] | None = None


def items_at(shape: type, *path: str) -> Callable[[msgspec.Raw], Sequence[msgspec.Raw]]:
    """Items of a page by the fields that lead there; a list that is null has none."""

    def items(body: msgspec.Raw) -> Sequence[msgspec.Raw]:
        found: Any = msgspec.json.decode(body, type=shape)
        for name in path:
            found = getattr(found, name) if found is not None else None
        return found or ()

    return items


def id_by(*names: str) -> Callable[[msgspec.Raw], str]:
    """The id of an item by its fields, joined by `|`; empty where it has none."""

    def id_of(raw: msgspec.Raw) -> str:
        try:
            found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
            parts = [msgspec.json.decode(found[n], type=int | str) for n in names if n in found]
        except _BAD:
            return ""
        return "|".join(str(part) for part in parts)

    return id_of


class Answers:
    """See sdk.contract.Source: the capture of one system."""

    def __init__(self, path: Path, system: str, calls: Mapping[str, Call]) -> None:
        self._path, self._system, self._calls = path, system, calls
        self._head: Head = read_head(path, system)

    def inspect(self, learned: dict[str, str]) -> Found:
        """See sdk.contract.Source. No column is mapped: the constants are the settings."""
        facts = {f"about {name}": value for name, value in sorted(self._head.about.items())}
        inspection = Inspection(self._system, "utf-8", facts=facts)
        return Found(inspection, Reading(constants=read_manifest(self._system).settings))

    def read(self, mapping: Reading) -> Iterator[Rows | Progress | Summary]:
        """See sdk.contract.Source: once through to the end, which proves it whole, then its rows."""
        taking = Taking(mapping.constants, self._head.about)
        yield Progress(0)
        last, total = self._survey(taking)
        seen = 0
        told: dict[int, int] = {}
        for no, page in read_pages(self._path):
            name, _, argument = page.call.partition(" ")
            call = self._calls[name]
            for index, raw in enumerate(self._items(call, page, no)):
                key = _key(call, page, raw, (no, index))
                content = hash(bytes(raw))
                place = Place(row=no, column=f"{name}[{index}]")
                if last[key] != (no, index):
                    told[key] = content
                    continue
                if told.get(key, content) != content:
                    taking.warn("told-again", "an item that stays as it is while its pages are "
                                "asked for (as it was told last it counts)", name, place)  # fmt: skip
                seen += 1
                taking.records[name] += 1
                _stage(taking, call, raw, place, argument)
                if len(taking.rows) >= BLOCK:
                    yield taking.take()
                    yield Progress(seen, total)
        if taking.rows:
            yield taking.take()
        yield Progress(seen, max(seen, total))
        yield self._summary(taking)

    def _survey(self, taking: Taking) -> tuple[dict[int, tuple[int, int]], int]:
        """Where each item is told last, and how many there are."""
        last: dict[int, tuple[int, int]] = {}
        for no, page in read_pages(self._path):
            name, _, argument = page.call.partition(" ")
            if (call := self._calls.get(name)) is None:
                expected = f"answers to {', '.join(sorted(self._calls))}"
                raise Refused(Fault("not-this-format", expected, name[:40], Place(row=no)))
            if call.survey is not None:
                try:
                    call.survey(taking, page.body, argument)
                except _BAD as error:
                    raise _unknown(name, error, no) from None
            for index, raw in enumerate(self._items(call, page, no)):
                last[_key(call, page, raw, (no, index))] = (no, index)
        return last, len(last)

    def _items(self, call: Call, page: Page, no: int) -> Sequence[msgspec.Raw]:
        try:
            return call.items(page.body)
        except _BAD as error:
            raise _unknown(page.call, error, no) from None

    def _summary(self, taking: Taking) -> Summary:
        facts = {f"about {name}": value for name, value in sorted(self._head.about.items())}
        facts |= {f"{name}_count": str(n) for name, n in sorted(taking.records.items())}
        return Summary(dict(taking.entities), warnings=tuple(taking.warnings()), facts=facts)


def _key(call: Call, page: Page, raw: msgspec.Raw, where: tuple[int, int]) -> int:
    """What an item is told by here; one without an id by where it stands."""
    return hash((page.call, call.id_of(raw) or where))


def _stage(taking: Taking, call: Call, raw: msgspec.Raw, place: Place, argument: str) -> None:
    item = Item(taking, place)
    try:
        call.stage(item, raw, argument)
    except _BAD as error:
        fault = Fault("answer-unknown", "an item as the contract has it", str(error)[:200], place)
        taking.stage(place, call.entity, call.id_of(raw), {}, [fault])


def _unknown(call: str, error: Exception, no: int) -> Refused:
    expected = f"an answer to `{call[:40]}` as the contract has it"
    return Refused(Fault("answer-unknown", expected, str(error)[:200], Place(row=no)))


class Captures:
    """The connector of a system whose answers are captured; see sdk.contract.Connector."""

    def __init__(self, system: str, calls: Mapping[str, Call]) -> None:
        self._system, self._calls = system, calls

    def open(self, path: Path) -> Answers:
        """See sdk.contract.Connector."""
        return Answers(path, self._system, self._calls)

    def recognises(self, head: bytes, name: str) -> float:
        """See sdk.contract.Recogniser: by the first line of a capture."""
        return float(is_capture(head, self._system))
