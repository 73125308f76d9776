"""Rows as CSV that a spreadsheet opens without running anything that stands in it.

UTF-8 with its mark, CRLF, quotes where needed (RFC 4180). A text that would begin a formula gets
an apostrophe in front; numbers, days and moments are written as they are.

Rows come as texts of cells where PostgreSQL makes them (read/cells), else as JSON. A batch in which
nothing asks for quotes and nothing could begin a formula leaves by exchanging its separators.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator
from datetime import datetime

from appliance.base.errors import ApplianceError
from appliance.fields.base import Cell
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field
from appliance.read.cells import END, SEPARATOR
from appliance.read.run import Batch
from appliance.read.shape.table import Column, cells_of, columns_of

_MARK = "\ufeff"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SEPARATOR, _END = SEPARATOR.encode(), END.encode()
# Their cells are never quoted and never guarded.
_TYPED = frozenset({"number", "money", "quantity", "integer", "yes_no", "date", "moment", "rollup"})
_COMMAS = bytes.maketrans(_SEPARATOR, b",")
_QUOTED = (b'"', b",", b"\n", b"\r")
_SIGNS = tuple(sign.encode() for sign in _FORMULA)
_SUSPECT = re.compile(rb'[",\r\n]|(?:\A|\x1f)[=+\-@\t]')


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
        if plan.projection.cells:
            yield buffer.getvalue().encode() + _lines(columns, rows)
            continue
        for row in rows:
            cells = cells_of(ctx, columns, row)
            writer.writerow([write_cell(c.field, v) for c, v in zip(columns, cells, strict=True)])
        yield buffer.getvalue().encode()


def _lines(columns: list[Column], rows: list[bytes]) -> bytes:
    """Rows of cell texts as lines. Raises ApplianceError for a text that holds a separator."""
    if not rows:
        return b""
    batch = b"".join((_END, _END.join(rows), _END))
    marks = batch.count(_SEPARATOR), batch.count(_END)
    if marks != (len(rows) * (len(columns) - 1), len(rows) + 1):
        raise ApplianceError("A text holds a mark that stands between cells.", code="node.fault")
    if not _is_suspect(batch):
        return batch[1:].translate(_COMMAS).replace(_END, b"\r\n")
    typed = [c.field.type in _TYPED for c in columns]
    found: list[bytes] = []
    for row in rows:
        if _SUSPECT.search(row) is None:
            found.append(row.replace(_SEPARATOR, b","))
        else:
            found.append(_line(typed, row))
    found.append(b"")
    return b"\r\n".join(found)


def _is_suspect(batch: bytes) -> bool:
    """Whether a batch has to be looked at row by row."""
    if any(sign in batch for sign in _QUOTED):
        return True
    # One byte is found a hundred times faster than two.
    present = [sign for sign in _SIGNS if sign in batch]
    return any(mark + sign in batch for sign in present for mark in (_SEPARATOR, _END))


def _line(typed: list[bool], row: bytes) -> bytes:
    """One row, each cell looked at; its end not with it."""
    cells = row.decode().split(SEPARATOR)
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(
        [c if t else defuse(c) for c, t in zip(cells, typed, strict=True)]
    )
    return buffer.getvalue()[:-2].encode()


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
