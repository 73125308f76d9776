"""Rows as an XLSX workbook: one sheet, typed cells, text that is never a formula or a link.

Rows are written to a temporary file as they come, in constant memory, and the file is sent when
it is whole. A text longer than a cell can hold is cut and ends in an ellipsis; a number with more
digits than a cell keeps is written as text, because it must not change.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import xlsxwriter

from appliance.fields.base import Cell
from appliance.kernel.context import Ctx
from appliance.read.run import Batch
from appliance.read.shape.table import Column, cells_of, columns_of

_CELL_CHARS_MAX = 32_767
_DIGITS_MAX = 15
_PIECE_BYTES = 256 * 1024
_OPTIONS = {
    "constant_memory": True,
    "strings_to_formulas": False,
    "strings_to_urls": False,
    "strings_to_numbers": False,
}


class Workbook:
    """One sheet under construction in a file."""

    def __init__(self, ctx: Ctx, path: str) -> None:
        self._ctx = ctx
        self._zone = ZoneInfo(ctx.tz)
        self._book = xlsxwriter.Workbook(path, _OPTIONS)
        self._sheet = self._book.add_worksheet()
        self._bold = self._book.add_format({"bold": True})
        self._day = self._book.add_format({"num_format": "yyyy-mm-dd"})
        self._moment = self._book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        self._columns: list[Column] = []
        self._next = 1

    def begin(self, columns: list[Column]) -> None:
        """The header, kept in sight."""
        self._columns = columns
        self._sheet.freeze_panes(1, 0)
        for place, column in enumerate(columns):
            self._sheet.write_string(0, place, column.header[:_CELL_CHARS_MAX], self._bold)

    def add(self, rows: Sequence[bytes]) -> None:
        """Rows below those before."""
        for row in rows:
            cells = cells_of(self._ctx, self._columns, row)
            for place, cell in enumerate(cells):
                self._write(place, cell)
            self._next += 1

    def close(self) -> None:
        """Write the file."""
        self._book.close()

    def _write(self, place: int, cell: Cell) -> None:
        row, sheet = self._next, self._sheet
        match cell:
            case None:
                return
            case bool():
                sheet.write_boolean(row, place, cell)
            case datetime() if self._columns[place].field.type == "date":
                sheet.write_datetime(row, place, cell.replace(tzinfo=None), self._day)
            case datetime():
                local = cell.astimezone(self._zone).replace(tzinfo=None)
                sheet.write_datetime(row, place, local, self._moment)
            case int() | Decimal() if len(Decimal(cell).as_tuple().digits) <= _DIGITS_MAX:
                sheet.write_number(row, place, cell)
            case _:
                text = str(cell)
                if len(text) > _CELL_CHARS_MAX:
                    text = text[: _CELL_CHARS_MAX - 1] + "…"
                sheet.write_string(row, place, text)


async def write_xlsx(ctx: Ctx, batches: AsyncIterator[Batch]) -> AsyncIterator[bytes]:
    """The workbook in pieces; the work of writing it is done in a thread."""
    with tempfile.NamedTemporaryFile(suffix=".xlsx") as file:
        book = Workbook(ctx, file.name)
        begun = False
        async for plan, rows in batches:
            if not begun:
                book.begin(columns_of(ctx, plan))
                begun = True
            await asyncio.to_thread(book.add, rows)
        await asyncio.to_thread(book.close)
        file.seek(0)
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece
