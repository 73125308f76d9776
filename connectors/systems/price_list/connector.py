"""The connector: inspect a file, read its rows under a confirmed mapping."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from connectors.formats.grid import Book, Sheet
from connectors.formats.open import open_book
from connectors.sdk.contract import (
    Fault,
    Found,
    Inspection,
    Mapping,
    Place,
    Progress,
    Refused,
    Rows,
    StagedRow,
)
from connectors.systems.price_list.head import rate_head
from connectors.systems.price_list.items import Reader
from connectors.systems.price_list.layout import find_layout
from connectors.systems.price_list.propose import is_readable, mapping_of, propose

BLOCK = 1_000


class PriceList:
    """Price lists of any layout."""

    def open(self, path: Path) -> PriceListFile:
        """See sdk.contract.Connector."""
        return PriceListFile(path)

    def recognises(self, head: bytes, name: str) -> float:
        """See sdk.contract.Recogniser: a workbook may be a list of anything, so never sure."""
        return rate_head(head)


class PriceListFile:
    """One file. A mapping may name another encoding than was found: then it is opened anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._book = open_book(path)

    def inspect(self, learned: dict[str, str]) -> Found:
        """See sdk.contract.Source."""
        book = self._book
        tables = [
            propose(layout, learned, is_text=book.format == "csv")
            for s in book.sheets
            if (layout := find_layout(s)) is not None
        ]
        warnings = [Fault(code, "an ordinary table", text) for code, text in book.warnings]
        warnings += [
            Fault("hidden-sheet", "a visible sheet", t.sheet, Place(t.sheet))
            for t in tables
            if t.is_hidden
        ]
        if not any(map(is_readable, tables)):
            warnings.append(Fault("no-price-list", "a table with a name or code and a price", ""))
        found = Inspection(book.format, book.encoding, tuple(tables), tuple(warnings))
        return Found(found, mapping_of(tables))

    def read(self, mapping: Mapping) -> Iterator[Rows | Progress]:
        """See sdk.contract.Source."""
        if mapping.encoding and mapping.encoding != self._book.encoding:
            self._book = open_book(self._path, mapping.encoding)
        book = self._book
        total = sum(s.count for s in book.sheets)
        seen = 0
        block: list[StagedRow] = []
        for table in mapping.tables:
            sheet = _sheet(book, table.sheet)
            reader = Reader(table, mapping)
            for row in sheet.rows():
                seen += 1
                if seen % BLOCK == 0:
                    yield Progress(seen, max(total, seen))
                staged = reader.read(row)
                if staged is not None:
                    block.append(staged)
                if len(block) >= BLOCK:
                    yield Rows(tuple(block))
                    block.clear()
        if block:
            yield Rows(tuple(block))
        yield Progress(seen, seen)


def _sheet(book: Book, name: str) -> Sheet:
    found = next((s for s in book.sheets if s.name == name), None)
    if found is None:
        known = ", ".join(s.name for s in book.sheets) or "none"
        raise Refused(Fault("sheet-missing", f"the sheet {name}", known))
    return found
