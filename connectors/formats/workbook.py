"""XLSX, XLSM, XLSB and ODS: values by calamine behind the guard, notes by our own pass."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import python_calamine
from lxml import etree

from connectors.formats.grid import Bad, Book, Cell, Row, Sheet, Shown, exact
from connectors.formats.guard import open_zip, read_part
from connectors.formats.notes import Notes, interesting, read_notes
from connectors.sdk.contract import Fault, Refused

_BUILT_IN = {9: "0%", 10: "0.00%"}


def open_workbook(path: Path, format_: str) -> Book:
    """A zipped workbook. Raises Refused."""
    notes: dict[str, Notes] = {}
    book = Book(format_, [])
    if format_ != "xls":
        archive = open_zip(path)
    if format_ in ("xlsx", "xlsm"):
        notes = _notes_of(archive)
        if any(n.endswith("vbaProject.bin") for n in archive.namelist()):
            book.warnings.append(("macros-ignored", "The workbook holds macros; they never run."))
        if any("macrosheets/" in n for n in archive.namelist()):
            raise Refused(
                Fault("macro-sheet", "a workbook without Excel 4 macro sheets", path.name)
            )
    try:
        opened = python_calamine.CalamineWorkbook.from_path(str(path))
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        is_locked = "password" in str(error).lower()
        code = "password-protected" if is_locked else "unreadable-workbook"
        raise Refused(Fault(code, "a workbook without password", str(error)[:200])) from None
    for meta in opened.sheets_metadata:
        if meta.typ is not python_calamine.SheetTypeEnum.WorkSheet:
            continue
        name, known = meta.name, notes.get(meta.name, Notes())
        hidden = meta.visible is not python_calamine.SheetVisibleEnum.Visible
        try:
            sheet = opened.get_sheet_by_name(name)
        except (python_calamine.CalamineError, ValueError) as error:
            raise Refused(Fault("unreadable-workbook", f"sheet {name}", str(error)[:200])) from None
        merged = known.merged or [
            (a[0] + 1, a[1], b[0] + 1, b[1]) for a, b in (sheet.merged_cell_ranges or [])
        ]
        book.sheets.append(Sheet(name, _rows_of(sheet, known), sheet.total_height, hidden, merged))
    return book


def _rows_of(sheet: Any, notes: Notes) -> Any:
    def rows() -> Iterator[Row]:
        first_row, first_column = sheet.start or (0, 0)
        lead: list[Cell] = [None] * first_column
        odd = bool(notes.errors or notes.uncached or notes.shown)
        # The library gives rows from the first used one on.
        for number, values in enumerate(sheet.iter_rows(), first_row + 1):
            cells = lead + [_cell(v) for v in values[first_column:]]
            if odd:
                _mark(number, cells, notes)
            yield Row(number, cells, number in notes.hidden_rows, notes.levels.get(number, 0))

    return rows


def _cell(value: object) -> Cell:
    match value:
        case bool():
            return value
        case str():
            text = value.replace("_x000D_", "").replace("\r\n", "\n").strip()
            return text or None
        case int() | float():
            return exact(float(value))
        case datetime():
            return value.date() if value.time() == time() else value
        case date():
            return value
        case time() | timedelta():
            return str(value)
        case _:
            return None


def _mark(number: int, cells: list[Cell], notes: Notes) -> None:
    """Put what the notes say into the cells of a row."""
    for column, cell in enumerate(cells):
        place = (number, column)
        if place in notes.errors:
            cells[column] = Bad("error-value", "#ERROR")
        elif place in notes.uncached and cell is None:
            cells[column] = Bad("formula-uncomputed", "formula without a value")
        elif isinstance(cell, Decimal) and (shown := notes.shown.get(place)):
            cells[column] = (
                Shown(cell, f"{int(cell):0{len(shown)}d}") if shown.strip("0") == "" and cell == int(cell)
                else Shown(cell, "", shown)
            )  # fmt: skip


def _notes_of(archive: zipfile.ZipFile) -> dict[str, Notes]:
    """Notes by sheet name, from the parts that the workbook names."""
    names = set(archive.namelist())
    root = "xl/"
    workbook = next((n for n in names if n.endswith("workbook.xml") and n.startswith(root)), None)
    rels = next((n for n in names if n.endswith("_rels/workbook.xml.rels")), None)
    if workbook is None or rels is None:
        return {}
    targets = {e.get("Id"): str(e.get("Target")) for e in _parse(archive, rels) if e.get("Target")}
    formats = _formats(archive, names)
    found: dict[str, Notes] = {}
    for element in _parse(archive, workbook).iter("{*}sheet"):
        ident = next((v for k, v in element.attrib.items() if str(k).endswith("}id")), None)
        target = targets.get(ident, "")
        part = target.lstrip("/") if target.startswith("/") else root + target
        if part in names:
            found[str(element.get("name"))] = read_notes(archive, part, formats)
    return found


def _formats(archive: zipfile.ZipFile, names: set[str]) -> list[str]:
    """What each cell style shows beside its number."""
    if "xl/styles.xml" not in names:
        return []
    tree = _parse(archive, "xl/styles.xml")
    codes = dict(_BUILT_IN)
    for element in tree.iter("{*}numFmt"):
        codes[int(str(element.get("numFmtId")))] = str(element.get("formatCode"))
    styles = next(tree.iter("{*}cellXfs"), None)
    if styles is None:
        return []
    return [interesting(codes.get(int(str(x.get("numFmtId") or 0)), "")) for x in styles]


def _parse(archive: zipfile.ZipFile, name: str) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        return etree.fromstring(b"".join(read_part(archive, name)), parser)
    except etree.XMLSyntaxError as error:
        raise Refused(Fault("truncated", "a well-formed workbook", f"{name}: {error}")) from None
