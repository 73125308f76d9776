"""Rows as CSV that a spreadsheet opens without running anything that stands in it.

UTF-8 with its mark, CRLF, quotes where needed (RFC 4180). A text that would begin a formula gets
an apostrophe in front; numbers, days and moments are written as they are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import datetime

from appliance.fields.base import Cell
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field
from appliance.read.run import Batch
from appliance.read.shape.table import Column, cells_of, columns_of

_MARK = "\ufeff"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def write_csv(ctx: Ctx, batches: AsyncIterator[Batch]) -> AsyncIterator[bytes]:
    """Header and rows, a piece for each batch."""
    columns: list[Column] = []
    async for plan, rows in batches:
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer)
        if not columns:
            columns = columns_of(ctx, plan)
            buffer.write(_MARK)
            writer.writerow([defuse(c.header) for c in columns])
        for row in rows:
            cells = cells_of(ctx, columns, row)
            writer.writerow([write_cell(c.field, v) for c, v in zip(columns, cells, strict=True)])
        yield buffer.getvalue().encode()


def write_cell(field: Field, cell: Cell) -> str:
    """One cell as text."""
    match cell:
        case None:
            return ""
        case bool():
            return "true" if cell else "false"
        case str():
            return defuse(cell)
        case datetime() if field.type == "date":
            return cell.date().isoformat()
        case datetime():
            return cell.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
        case _:
            return str(cell)


def defuse(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
