"""Tables of dBase II: a header of 521 bytes with up to 32 fields, then records of text.

Source: the layout that dbf tools of the time describe; no kept library reads it. Only texts,
numbers and truths are in it; days are texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec

from connectors.formats.encoding import detect_encoding
from connectors.formats.grid import Bad, Book, Cell, Row, Sheet
from connectors.sdk.contract import Fault, Refused

HEADER = 521
_FIELDS_AT, _FIELD, _END = 8, 16, 0x0D
_DELETED = b"*"


class _Field(msgspec.Struct, frozen=True):
    name: str
    sort: str
    start: int
    length: int


def is_dbase2(head: bytes) -> bool:
    """Whether a file that begins so is one: its fields make up its records. `head`: its header."""
    if len(head) < HEADER or head[0] != 2:
        return False
    fields = _fields(head)
    return bool(fields) and 1 + sum(f.length for f in fields) == int.from_bytes(head[6:8], "little")


def open_dbase2(path: Path) -> Book:
    """A table. Raises Refused."""
    with path.open("rb") as file:
        head = file.read(HEADER)
        sample = file.read(65_536)
    records, record = int.from_bytes(head[1:3], "little"), int.from_bytes(head[6:8], "little")
    fields = _fields(head)
    encoding = "ascii" if sample.isascii() else detect_encoding(sample.replace(b"\0", b" "))

    def rows() -> Iterator[Row]:
        header: list[Cell] = [f.name for f in fields]
        yield Row(1, header)
        with path.open("rb") as file:
            file.seek(HEADER)
            for number in range(2, records + 2):
                data = file.read(record)
                if len(data) < record:
                    found = f"{number - 2} of {records} records"
                    raise Refused(Fault("truncated", "whole records", found))
                if data[:1] != _DELETED:
                    yield Row(number, [_cell(f, data, encoding) for f in fields])

    return Book("dbf", [Sheet("", rows, records + 1)], encoding)


def _fields(head: bytes) -> list[_Field]:
    found, start = [], 1
    for at in range(_FIELDS_AT, HEADER - _FIELD, _FIELD):
        if head[at] == _END:
            break
        name = head[at : at + 11].split(b"\0")[0].decode("latin-1").strip()
        sort, length = chr(head[at + 11]), head[at + 12]
        if not name or sort not in "CNL" or not length:
            return []
        found.append(_Field(name, sort, start, length))
        start += length
    return found


def _cell(field: _Field, data: bytes, encoding: str) -> Cell:
    raw = data[field.start : field.start + field.length].strip(b" \0")
    if not raw:
        return None
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        return Bad("value-malformed", raw.decode("latin-1")[:40])
    if field.sort == "N":
        try:
            return Decimal(text.replace(",", "."))
        except InvalidOperation:
            return Bad("number-malformed", text)
    if field.sort == "L":
        return text.upper() in ("T", "Y") if text.upper() in ("T", "Y", "F", "N") else None
    return text
