"""A bank's table as rows of texts: delimited text by any delimiter, or a workbook."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path

from connectors.formats.encoding import detect_encoding
from connectors.formats.grid import Cell, Shown
from connectors.formats.lines import Text, open_lines
from connectors.formats.open import open_book
from connectors.formats.text_table import COLUMNS_MAX, DELIMITERS, FIELD_CHARS_MAX, find_delimiter
from connectors.sdk.contract import Fault, Place, Refused
from connectors.systems.bank_csv.profile import Profile, find_layout

_HEAD_LINES = 300
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x09\x04", b"\x09\x08")

TableRow = tuple[int, list[str]]


def is_known(head: bytes, profiles: tuple[Profile, ...]) -> bool:
    """Whether the first bytes of a text hold the header of a profile."""
    if head.startswith((*_WORKBOOKS, b"<")):
        return False
    try:
        text = head.decode(detect_encoding(head), "ignore")
    except Refused:
        return False
    # The last line may be cut.
    lines = [line.replace("\0", "") for line in text.splitlines()[: _HEAD_LINES // 3]]
    for delimiter in DELIMITERS:
        with contextlib.suppress(csv.Error):
            if any(find_layout(c, profiles) for c in csv.reader(lines, delimiter=delimiter) if c):
                return True
    return False


class Table:
    """One file. `delimiters`: what to try, the likeliest first (none for a workbook)."""

    def __init__(self, path: Path, encoding: str = "") -> None:
        with path.open("rb") as file:
            head = file.read(4_096)
        self._text: Text | None = None
        self.warnings: tuple[Fault, ...] = ()
        self.holds: tuple[Fault, ...] = ()
        self.has_controls = False
        self.delimiters: tuple[str, ...] = ("",)
        if head.startswith(_WORKBOOKS):
            self._book = open_book(path)
            self.format, self.encoding = self._book.format, ""
            return
        text = self._text = open_lines(path, encoding)
        self.format, self.encoding = "csv", text.encoding
        self.warnings, self.holds, self.has_controls = text.warnings, text.holds, text.has_controls
        lines = list(islice(text.lines(), _HEAD_LINES))
        if not any(line.strip() for line in lines):
            raise Refused(Fault("not-this-format", "a bank table", "an empty file"))
        if all(line.lstrip().startswith("<") for line in lines[:3] if line.strip()):
            raise Refused(Fault("not-this-format", "a bank table", "markup (XML or HTML)"))
        said = lines[0][4:5] if lines[0].lower().startswith("sep=") else ""
        best = said or find_delimiter("\n".join(lines))
        self.delimiters = (best, *(d for d in DELIMITERS if d != best))

    def rows(self, delimiter: str) -> Iterator[TableRow]:
        """Number and cells of each row. Raises Refused: an open quote, too many columns."""
        if self._text is not None:
            yield from _read_csv(self._text, delimiter)
            return
        for sheet in self._book.sheets:
            for row in sheet.rows():
                yield row.number, [_show(c) for c in row.cells]


def _read_csv(text: Text, delimiter: str) -> Iterator[TableRow]:
    csv.field_size_limit(FIELD_CHARS_MAX)
    quotes = 0

    def lines() -> Iterator[str]:
        nonlocal quotes
        for line in text.lines():
            quotes += line.count('"')
            yield line.replace("\0", "\x01") + "\n"

    # Some banks put a blank between the mark of byte order, or a delimiter, and the quote.
    reader = csv.reader(lines(), delimiter=delimiter, skipinitialspace=True)
    number, cells = 1, [""]
    try:
        start = reader.line_num + 1
        for cells in reader:
            number, start = start, reader.line_num + 1
            if len(cells) > COLUMNS_MAX:
                expected = f"at most {COLUMNS_MAX} columns"
                raise Refused(Fault("too-wide", expected, str(len(cells)), Place(row=number)))
            if number == 1 and len(cells) and cells[0].lower().startswith("sep="):
                continue
            is_open = quotes % 2 and cells and cells[-1].endswith("\n")
            quotes = 0
            if is_open:
                place = Place(row=number)
                raise Refused(Fault("truncated", "a closing quote", "the end of the file", place))
            yield number, [clean_cell(c) for c in cells]
    except csv.Error as error:
        place = Place(row=number + 1)
        raise Refused(Fault("too-large-node", "fields of a table", str(error), place)) from None


def clean_cell(text: str) -> str:
    """A cell without blanks around, without Excel's guards: ="00123" and a leading apostrophe."""
    text = text.strip()
    if text.startswith('="') and text.endswith('"'):
        return text[2:-1].strip()
    if text[:1] == "'" and text[1:2] and (text[1].isalnum() or text[1] in "+-=@"):
        return text[1:]
    return text


def _show(cell: Cell) -> str:
    if isinstance(cell, Shown):
        cell = cell.number
    if isinstance(cell, Decimal):
        return format(cell, "f")
    if isinstance(cell, datetime | date):
        return cell.isoformat()
    return cell.strip() if isinstance(cell, str) else ""
