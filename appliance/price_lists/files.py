"""A price list as a file that people edit and bring back: CSV and XLSX."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import tempfile
from collections.abc import AsyncIterator
from decimal import Decimal

import xlsxwriter

from appliance.base.errors import NotAcceptable
from appliance.price_lists.rows import Cell, List, written
from appliance.read import MEDIA as FORMS

MEDIA = {form: FORMS[form] for form in ("xlsx", "csv")}
_PIECE_BYTES = 1 << 16
# A cell keeps fifteen digits; a number with more is written as text, because it must not change.
_DIGITS_MAX = 15
# What a spreadsheet takes for a formula; an apostrophe in front is taken off when it comes back.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_OPTIONS = {
    "constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False,
    "strings_to_numbers": False,
}  # fmt: skip


def write(found: List, form: str) -> AsyncIterator[bytes]:
    """The file in pieces. Raises NotAcceptable."""
    if form == "csv":
        return _write_csv(found)
    if form == "xlsx":
        return _write_xlsx(found)
    raise NotAcceptable(f"A price list leaves as one of {', '.join(MEDIA)}.")


async def _write_csv(found: List) -> AsyncIterator[bytes]:
    yield "\ufeff".encode()
    yield _lines([[_guarded(h) for h in found.header]])
    async for block in found.blocks:
        if block:
            yield _lines([[_field(c) for c in row] for row in block])


def _lines(rows: list[list[str]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=";").writerows(rows)
    return buffer.getvalue().encode()


def _field(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case Decimal():
            return written(cell)
        case _:
            return _guarded(cell)


def _guarded(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


async def _write_xlsx(found: List) -> AsyncIterator[bytes]:
    with tempfile.NamedTemporaryFile(suffix=".xlsx") as file:
        book = xlsxwriter.Workbook(file.name, _OPTIONS)
        sheet = book.add_worksheet()
        bold = book.add_format({"bold": True})
        sheet.freeze_panes(1, 0)
        for place, text in enumerate(found.header):
            sheet.write_string(0, place, text, bold)
        line = 1
        async for block in found.blocks:
            await asyncio.to_thread(_add, sheet, line, block)
            line += len(block)
        await asyncio.to_thread(book.close)
        file.seek(0)
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece


def _add(sheet: xlsxwriter.worksheet.Worksheet, line: int, block: list[list[Cell]]) -> None:
    for number, row in enumerate(block, line):
        for place, cell in enumerate(row):
            if isinstance(cell, Decimal) and len(cell.as_tuple().digits) <= _DIGITS_MAX:
                sheet.write_number(number, place, cell)
            elif cell is not None:
                sheet.write_string(number, place, cell if isinstance(cell, str) else written(cell))
