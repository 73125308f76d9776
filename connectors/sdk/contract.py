"""The contract between a connector and whoever runs it: shapes only, no behaviour.

Values travel as text: decimals as plain decimal strings, dates as ISO 8601. A fault always names
its place and what was expected there; a refusal is a fault of the whole input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

Value = None | str | bool


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where something stands.

    `sheet`: the sheet, or the member of an archive (empty for flat files). `row`: row or line from
    1. `column`: column letters, a tag, a key or the path of an element. `offset`: byte from 0 in
    the input, where the format has no lines or one line is the whole file.
    """

    sheet: str = ""
    row: int = 0
    column: str = ""
    offset: int = 0


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong at a place: `code` for programs, `expected` and `found` for people."""

    code: str
    expected: str
    found: str = ""
    place: Place = Place()


class Refused(Exception):
    """The whole input cannot be read; nothing of it is staged."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.code}: expected {fault.expected}, found {fault.found}")
        self.fault = fault


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column of a table as people see it, and what it is proposed for."""

    letters: str
    header: str
    samples: tuple[str, ...] = ()
    target: str = ""
    options: dict[str, str] = {}
    confidence: float = 0.0
    reason: str = ""


class Table(msgspec.Struct, frozen=True, omit_defaults=True):
    """One table of the input: its header rows, its first data row, its columns."""

    sheet: str
    header_rows: tuple[int, ...]
    first_row: int
    columns: tuple[Column, ...]
    is_hidden: bool = False
    width: int = 0


class Inspection(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an input holds: its format, encoding, tables, and what a person should know.

    `version` of the format as the input declares it. `facts`: what the head of the input says of
    it (made at, catalogue id, whether it is a full package), as text.
    """

    format: str
    encoding: str = ""
    tables: tuple[Table, ...] = ()
    warnings: tuple[Fault, ...] = ()
    version: str = ""
    facts: dict[str, str] = {}


class MappedColumn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A column and its target; options such as price_type, currency, tax."""

    letters: str
    header: str
    target: str
    options: dict[str, str] = {}


class MappedTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one table is read. A table that is not mapped is not read.

    `width`: how many fields a row of delimited text has; one with more has lost a quote.
    """

    sheet: str
    header_rows: tuple[int, ...]
    first_row: int
    columns: tuple[MappedColumn, ...]
    width: int = 0


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A confirmed reading of a layout; `fingerprint` recognises the layout when it comes again."""

    version: int = 1
    tables: tuple[MappedTable, ...] = ()
    constants: dict[str, str] = {}
    fingerprint: str = ""
    encoding: str = ""
    skip_hidden_rows: bool = False


class StagedRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row of the input in the vocabulary of its entity; faulty rows travel with their faults."""

    place: Place
    entity: str
    key: str
    values: dict[str, Value] = {}
    group: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


class Summary(msgspec.Struct, frozen=True, tag="summary", omit_defaults=True):
    """What only the whole input shows, said once by a source at its end.

    `entities`: rows by entity. `totals`: sums that people check (decimal text, by a name such as
    `net UAH`). `holds`: why nothing of it may be applied before a person has looked
    (balance-mismatch, mass-removal). `warnings`: what is only told. `facts` as in Inspection.
    """

    entities: dict[str, int] = {}
    totals: dict[str, str] = {}
    holds: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()
    facts: dict[str, str] = {}


class Rows(msgspec.Struct, frozen=True, tag="rows"):
    """A block of staged rows, in file order."""

    rows: tuple[StagedRow, ...]


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """How far the reading is: rows seen, and of how many when that is known."""

    rows: int
    total: int = 0


class Found(msgspec.Struct, frozen=True, tag="found"):
    """The answer to an inspection, with the mapping proposed for it."""

    inspection: Inspection
    proposal: Mapping


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The input is refused as a whole."""

    fault: Fault


class Used(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a reading has cost: processor time, most memory, time from the question to the end."""

    cpu_ms: int = 0
    memory_mb: int = 0
    ms: int = 0


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The end of a reading: faults by code, and the hash of what was read, with what only the
    whole of it shows (see Summary), and what it has used of its budget.
    """

    rows: int
    faulty: int
    sha256: str
    counts: dict[str, int] = {}
    summary: Summary = Summary()
    used: Used | msgspec.UnsetType = msgspec.UNSET


class Inspect(msgspec.Struct, frozen=True, tag="inspect"):
    """Asks what the input holds. `learned`: header text to target, of mappings once confirmed."""

    learned: dict[str, str]


class Read(msgspec.Struct, frozen=True, tag="read"):
    """Asks for the rows under a mapping."""

    mapping: Mapping


class Fetch(msgspec.Struct, frozen=True, tag="fetch"):
    """Asks for the bytes of a file that the input brings beside its rows, by the name in a row."""

    name: str


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    """Some bytes of it; none of them at its end."""

    data: bytes


Request = Inspect | Read | Fetch
Frame = Rows | Progress | Found | Failed | Done


class Source(Protocol):
    """One opened input: it is parsed once, looked at and read from there."""

    def inspect(self, learned: dict[str, str]) -> Found:
        """What the input holds and how it might be read. `learned`: header text to target.
        Raises Refused.
        """
        ...

    def read(self, mapping: Mapping) -> Iterator[Rows | Progress | Summary]:
        """The staged rows of the input under a mapping, at most one Summary last. Raises Refused."""
        ...


class Connector(Protocol):
    """One folder under connectors/systems."""

    def open(self, path: Path) -> Source:
        """An input, opened. Raises Refused."""
        ...


@runtime_checkable
class Carrier(Protocol):
    """What a connector also is when its inputs bring files beside their rows: pictures."""

    def attached(self, path: Path) -> Callable[[str], Iterator[bytes]]:
        """Gives the bytes of one by its name; that raises Refused, as this does."""
        ...


@runtime_checkable
class Recogniser(Protocol):
    """What a connector also is when it can tell its inputs by their first bytes."""

    def recognises(self, head: bytes, name: str) -> float:
        """How sure it is, 0 to 1, that an input with this head is its own. Never raises."""
        ...
