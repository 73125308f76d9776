"""XLS of Excel 2–2003 by xlrd: calamine takes 1C's price formats for dates (research 0.4)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime, time
from pathlib import Path
from typing import Any

import olefile
import xlrd

from connectors.formats.grid import Bad, Book, Cell, Row, Sheet, Shown, exact
from connectors.formats.notes import interesting
from connectors.formats.workbook import open_workbook
from connectors.sdk.contract import Fault, Refused


def _is_sealed(path: Path) -> bool:
    """Whether it is a newer workbook under a password: an OLE container of its sealed bytes."""
    try:
        with olefile.OleFileIO(str(path)) as container:
            return bool(container.exists("EncryptedPackage"))
    except (OSError, ValueError):
        return False


def open_xls(path: Path) -> Book:
    """An old workbook. Raises Refused."""
    try:
        book = xlrd.open_workbook(
            str(path), logfile=io.StringIO(), formatting_info=True, ragged_rows=True,
            ignore_workbook_corruption=True,
        )  # fmt: skip
    except NotImplementedError:
        book = xlrd.open_workbook(str(path), logfile=io.StringIO(), ragged_rows=True)
    except xlrd.XLRDError as error:
        is_locked = "encrypted" in str(error).lower() or _is_sealed(path)
        code = "password-protected" if is_locked else "unreadable-workbook"
        raise Refused(Fault(code, "a workbook without password", str(error)[:200])) from None
    except Exception:  # noqa: BLE001 - the library asserts on damaged files
        rescued = open_workbook(path, "xls")
        rescued.warnings.append(("damaged-workbook", "Read by the second reader; check its dates."))
        return rescued
    found = Book("xls", [])
    for sheet in book.sheets():
        merged = [(r0 + 1, c0, r1, c1 - 1) for r0, r1, c0, c1 in sheet.merged_cells]
        found.sheets.append(
            Sheet(sheet.name, _rows_of(book, sheet), sheet.nrows, bool(sheet.visibility), merged)
        )
    return found


def _rows_of(book: Any, sheet: Any) -> Any:
    def rows() -> Iterator[Row]:
        for number in range(sheet.nrows):
            cells = [_cell(book, sheet, number, c) for c in range(sheet.row_len(number))]
            info = sheet.rowinfo_map.get(number)
            hidden = bool(info and info.hidden)
            yield Row(number + 1, cells, hidden, info.outline_level if info else 0)

    return rows


def _cell(book: Any, sheet: Any, row: int, column: int) -> Cell:
    kind, value = sheet.cell_type(row, column), sheet.cell_value(row, column)
    match kind:
        case xlrd.XL_CELL_TEXT:
            return str(value).strip() or None
        case xlrd.XL_CELL_NUMBER:
            return _number(book, sheet, row, column, value)
        case xlrd.XL_CELL_DATE:
            try:
                moment = xlrd.xldate.xldate_as_datetime(value, book.datemode)
            except (xlrd.xldate.XLDateError, OverflowError, ValueError):
                return Bad("date-malformed", str(value))
            return _date_or_number(book, sheet, (row, column), value, moment)
        case xlrd.XL_CELL_BOOLEAN:
            return bool(value)
        case xlrd.XL_CELL_ERROR:
            return Bad("error-value", xlrd.error_text_from_code.get(value, "#ERROR"))
        case _:
            return None


def _date_or_number(
    book: Any, sheet: Any, place: tuple[int, int], value: float, moment: datetime
) -> Cell:
    code = _format(book, sheet, *place)
    if code and not any(c in code.lower().replace("general", "") for c in "dmyhs"):
        return exact(value)
    return moment.date() if moment.time() == time() else moment


def _number(book: Any, sheet: Any, row: int, column: int, value: float) -> Cell:
    number = exact(value)
    shown = interesting(_format(book, sheet, row, column))
    if not shown:
        return number
    if not shown.strip("0") and number == int(number):
        return Shown(number, f"{int(number):0{len(shown)}d}")
    return Shown(number, "", shown)


def _format(book: Any, sheet: Any, row: int, column: int) -> str:
    if not book.formatting_info:
        return ""
    style = book.xf_list[sheet.cell_xf_index(row, column)]
    found = book.format_map.get(style.format_key)
    return found.format_str if found else ""
