"""What a library does not tell of an XLSX sheet: errors, uncomputed formulas, formats, hiding.

One pass of expat over the sheet part, keeping only what is out of the ordinary, by row and
column. Matching is by local name, because a writer may choose any prefix.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from xml.parsers import expat

from connectors.formats.grid import index_of
from connectors.formats.guard import read_part
from connectors.sdk.contract import Fault, Refused

ROWS_MAX, COLUMNS_MAX = 1_048_576, 512
_ODD = re.compile(
    rb"""\bt=["']e["']|\bhidden=["'](?:1|true)|\boutlineLevel=|<(?:\w+:)?f[ />]|<!DOCTYPE|<!ENTITY"""
)
# A text without any of these has none of the above; looking for them costs next to nothing.
_HINTS = (b't="e"', b"t='e'", b"hidden=", b"outlineLevel=", b"<f", b":f", b"<!")
_MERGED = re.compile(rb"""mergeCell\s+[^>]*?\bref=["']([A-Z0-9:]{3,30})["']""")
_CUT = 200
_ADDRESS = re.compile(r"([A-Z]{1,3})([0-9]{1,7})\Z")
_CODE = re.compile(r"0{2,}\Z")
_CURRENCY = re.compile(r"\[\$([^\]\-]+)")
_WORDS = ("₽", "₴", "€", "$", "£", "руб", "р.", "грн", "тг")


@dataclass(slots=True)
class Notes:
    """Out of the ordinary in one sheet: rows are 1-based, columns 0-based."""

    errors: dict[tuple[int, int], str] = field(default_factory=dict)
    uncached: set[tuple[int, int]] = field(default_factory=set)
    shown: dict[tuple[int, int], str] = field(default_factory=dict)
    hidden_rows: set[int] = field(default_factory=set)
    levels: dict[int, int] = field(default_factory=dict)
    hidden_columns: set[int] = field(default_factory=set)
    merged: list[tuple[int, int, int, int]] = field(default_factory=list)
    values: int = 0


def read_notes(archive: zipfile.ZipFile, part: str, formats: list[str]) -> Notes:
    """The notes of one sheet part. `formats`: what each cell style shows, see `interesting`.
    Raises Refused.
    """
    if not any(formats) and (plain := _look(archive, part)) is not None:
        return plain
    notes, parser = Notes(), expat.ParserCreate()
    state = _State(notes, formats)
    parser.StartElementHandler = state.start
    parser.EndElementHandler = state.end
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        for chunk in read_part(archive, part):
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        found = f"{part}, line {error.lineno}: {expat.errors.messages[error.code]}"
        raise Refused(Fault("truncated", "a well-formed sheet", found)) from None
    return notes


def _look(archive: zipfile.ZipFile, part: str) -> Notes | None:
    """The notes of a sheet with nothing out of the ordinary but merged cells; None for others.

    A search through the bytes is some twenty times faster than parsing them.
    """
    notes, rest = Notes(), b""
    for chunk in read_part(archive, part):
        text = rest + chunk
        if any(hint in text for hint in _HINTS) and _ODD.search(text):
            return None
        for ref in _MERGED.findall(text) if b"mergeCell" in text else ():
            first, _, last = ref.decode().partition(":")
            a, b = _ADDRESS.match(first), _ADDRESS.match(last)
            if a and b:
                place = (
                    int(a.group(2)),
                    index_of(a.group(1)),
                    int(b.group(2)),
                    index_of(b.group(1)),
                )
                if place not in notes.merged:
                    notes.merged.append(place)
        # What is cut in two at the end of a chunk is whole in the next text.
        rest = text[-_CUT:]
    return notes


class _State:
    def __init__(self, notes: Notes, formats: list[str]) -> None:
        self.notes, self.formats = notes, formats
        self.place = (0, 0)
        self.row = 0
        self.column = 0
        self.has_formula = self.has_value = False

    def start(self, name: str, given: dict[str, str]) -> None:
        tag = name.rpartition(":")[2]
        if tag == "c":
            self._cell(given)
        elif tag in ("v", "is"):
            self._check_width()
            self.has_value = True
            self.notes.values += 1
        elif tag == "f":
            self.has_formula = True
        elif tag == "row":
            self._row(given)
        elif tag == "mergeCell":
            self._merge(given.get("ref", ""))
        elif tag == "col" and given.get("hidden") in ("1", "true"):
            low, high = int(given.get("min", "1")), int(given.get("max", "1"))
            self.notes.hidden_columns.update(range(low - 1, min(high, COLUMNS_MAX)))

    def end(self, name: str) -> None:
        if name.rpartition(":")[2] == "c" and self.has_formula and not self.has_value:
            self.notes.uncached.add(self.place)

    def _row(self, given: dict[str, str]) -> None:
        self.row = int(given.get("r", self.row + 1))
        self.column = 0
        if self.row > ROWS_MAX:
            raise Refused(Fault("workbook-too-large", f"at most {ROWS_MAX} rows", str(self.row)))
        if given.get("hidden") in ("1", "true"):
            self.notes.hidden_rows.add(self.row)
        if level := int(given.get("outlineLevel", "0")):
            self.notes.levels[self.row] = level

    def _cell(self, given: dict[str, str]) -> None:
        found = _ADDRESS.match(given.get("r", ""))
        self.column = index_of(found.group(1)) if found else self.column
        self.place = (self.row, self.column)
        self.has_formula = self.has_value = False
        kind = given.get("t", "n")
        if kind == "e":
            self.notes.errors[self.place] = "#ERROR"
        elif kind == "n" and (style := given.get("s")) is not None:
            shown = self.formats[int(style)] if int(style) < len(self.formats) else ""
            if shown:
                self.notes.shown[self.place] = shown
        self.column += 1

    def _check_width(self) -> None:
        """Only a cell that holds something makes a sheet wide: programs style empty ones far out."""
        if self.place[1] >= COLUMNS_MAX:
            found = f"a value in column {self.place[1] + 1} of row {self.place[0]}"
            raise Refused(Fault("workbook-too-large", f"at most {COLUMNS_MAX} columns", found))

    def _merge(self, ref: str) -> None:
        first, _, last = ref.partition(":")
        a, b = _ADDRESS.match(first), _ADDRESS.match(last)
        if a and b:
            self.notes.merged.append(
                (int(a.group(2)), index_of(a.group(1)), int(b.group(2)), index_of(b.group(1)))
            )


def interesting(code: str) -> str:
    """What a number format shows beside the number: zeros of a code, % or a currency word."""
    main = code.split(";", maxsplit=1)[0].replace('"', "").replace("\\", "")
    if _CODE.match(main):
        return main
    if "%" in main:
        return "%"
    if found := _CURRENCY.search(main):
        return found.group(1).strip()
    return next((word for word in _WORDS if word in main), "")


def _refuse_doctype(*_: object) -> None:
    raise Refused(Fault("external-entity", "a sheet without a document type", "DOCTYPE"))
