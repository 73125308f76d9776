"""Tables that are really HTML or SpreadsheetML 2003, whatever their name says."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from lxml import etree, html

from connectors.formats.encoding import detect_encoding
from connectors.formats.grid import Bad, Book, Cell, Row, Sheet
from connectors.sdk.contract import Fault, Refused

BYTES_MAX = 64 << 20
_SS = "{urn:schemas-microsoft-com:office:spreadsheet}"


def open_html(path: Path) -> Book:
    """A page with tables, as 1C and old reports save for Excel. Raises Refused."""
    data = _read(path)
    encoding = detect_encoding(data)
    tree = html.document_fromstring(
        data, parser=html.HTMLParser(encoding=encoding, no_network=True)
    )
    tables = tree.xpath("//table[not(ancestor::table)]")
    if not tables:
        raise Refused(Fault("not-a-table", "a table", "a page without tables"))
    sheets = []
    for place, table in enumerate(tables, 1):
        grid = _html_rows(table)
        name = f"Table {place}" if len(tables) > 1 else ""
        sheets.append(Sheet(name, lambda grid=grid: iter(grid), len(grid)))  # type: ignore[misc]
    return Book("html", sheets, encoding)


def _html_rows(table: Any) -> list[Row]:
    found: list[Row] = []
    for number, line in enumerate(table.xpath(".//tr"), 1):
        cells: list[Cell] = []
        for cell in line.xpath("./td|./th"):
            text = " ".join(cell.text_content().split())
            cells.append(text or None)
            span = str(cell.get("colspan", "1"))
            cells += [None] * (min(int(span), 100) - 1 if span.isdigit() else 0)
        found.append(Row(number, cells))
    return found


def open_spreadsheetml(path: Path) -> Book:
    """SpreadsheetML 2003. Raises Refused."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        tree = etree.fromstring(_read(path), parser)
    except etree.XMLSyntaxError as error:
        raise Refused(Fault("truncated", "well-formed XML", str(error)[:200])) from None
    sheets = []
    for sheet in tree.iter(f"{_SS}Worksheet"):
        grid = list(_xml_rows(sheet))
        name = str(sheet.get(f"{_SS}Name") or "")
        sheets.append(Sheet(name, lambda grid=grid: iter(grid), len(grid)))  # type: ignore[misc]
    if not sheets:
        raise Refused(Fault("not-a-table", "a worksheet", "XML without one"))
    return Book("spreadsheetml", sheets, "utf-8")


def _xml_rows(sheet: Any) -> Iterator[Row]:
    number = 0
    for line in sheet.iter(f"{_SS}Row"):
        number = int(line.get(f"{_SS}Index") or number + 1)
        cells: list[Cell] = []
        for cell in line.iter(f"{_SS}Cell"):
            place = int(cell.get(f"{_SS}Index") or len(cells) + 1)
            cells += [None] * (min(place, 512) - 1 - len(cells))
            cells.append(_xml_cell(cell.find(f"{_SS}Data")))
            cells += [None] * min(int(cell.get(f"{_SS}MergeAcross") or 0), 100)
        yield Row(number, cells, line.get(f"{_SS}Hidden") == "1")


def _xml_cell(data: Any) -> Cell:
    if data is None:
        return None
    text = "".join(data.itertext()).strip()
    match data.get(f"{_SS}Type"):
        case "Number":
            try:
                return Decimal(text)
            except InvalidOperation:
                return Bad("number-malformed", text)
        case "Boolean":
            return text == "1"
        case "Error":
            return Bad("error-value", text)
        case _:
            return text or None


def _read(path: Path) -> bytes:
    if path.stat().st_size > BYTES_MAX:
        raise Refused(
            Fault("too-large-node", f"at most {BYTES_MAX} bytes", str(path.stat().st_size))
        )
    return path.read_bytes()
