"""CSV and its relatives: delimiter and quoting by content, rows streamed, memory flat."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from connectors.formats.encoding import decode_error, detect_encoding
from connectors.formats.grid import Book, Cell, Row, Sheet
from connectors.sdk.contract import Fault, Place, Refused

DELIMITERS = (";", ",", "\t", "|")
COLUMNS_MAX = 4_096
FIELD_CHARS_MAX = 1_000_000
_SAMPLE = 262_144
_GUARDED = re.compile(r"''*[=+\-@]")


def open_text(path: Path, encoding: str = "") -> Book:
    """A delimited text file. Raises Refused."""
    with path.open("rb") as file:
        head = file.read(_SAMPLE)
    encoding = encoding or detect_encoding(head)
    text = head.decode(encoding, "ignore")
    said = text.lstrip("\ufeff")[:6].lower()
    first = 1 if said.startswith("sep=") else 0
    delimiter = text.lstrip("\ufeff")[4] if first else find_delimiter(text)
    size = path.stat().st_size
    per_row = max(1, len(head) // max(1, head.count(b"\n") or head.count(b"\r")))

    def rows() -> Iterator[Row]:
        return _rows(path, encoding, delimiter, first)

    return Book("csv", [Sheet("", rows, size // per_row)], encoding)


def find_delimiter(text: str) -> str:
    """The candidate that gives the same number of fields on most of the first 200 lines."""
    lines = text.splitlines()[:200]
    if len(lines) > 1 and len(text) >= _SAMPLE:
        lines = lines[:-1]
    best, score = ",", 0.0
    for delimiter in DELIMITERS:
        try:
            counts = [len(r) for r in csv.reader(lines, delimiter=delimiter) if any(r)]
        except csv.Error:
            continue
        width, times = Counter(counts).most_common(1)[0] if counts else (1, 0)
        if width > 1:
            found = times / len(counts) + min(width, 20) / 1_000
            if found > score:
                best, score = delimiter, found
    return best


def _rows(path: Path, encoding: str, delimiter: str, first: int) -> Iterator[Row]:
    csv.field_size_limit(FIELD_CHARS_MAX)
    number = 0
    with path.open("r", encoding=encoding, newline="", errors="strict") as file:
        reader = csv.reader(_without_marks(file), delimiter=delimiter)
        try:
            for number, fields in enumerate(reader, 1):
                if number <= first:
                    continue
                if len(fields) > COLUMNS_MAX:
                    place = Place(row=number)
                    raise Refused(
                        Fault("too-wide", f"at most {COLUMNS_MAX} columns", str(len(fields)), place)
                    )
                cells: list[Cell] = [_cell(f) for f in fields]
                yield Row(number, cells)
        except UnicodeDecodeError as error:
            read = os.lseek(file.fileno(), 0, os.SEEK_CUR)
            raise decode_error(error, max(0, read - len(error.object))) from None
        except csv.Error as error:
            place = Place(row=number + 1)
            raise Refused(Fault("malformed-row", "a row of fields", str(error), place)) from None


def _without_marks(file: io.TextIOBase) -> Iterator[str]:
    """Lines without byte order marks (files are concatenated) and without NUL."""
    for line in file:
        yield line.replace("\ufeff", "") if "\ufeff" in line else line


def _cell(field: str) -> Cell:
    """A field as text; Excel's guard of codes (="00123") and an apostrophe in front of what would
    begin a formula are taken off.
    """
    text = field.strip()
    if text.startswith('="') and text.endswith('"'):
        text = text[2:-1]
    elif _GUARDED.match(text):
        text = text[1:]
    return text or None
