"""dBase and FoxPro tables by dbfread; the code page by content, because its byte lies."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import dbfread

from connectors.formats.encoding import detect_encoding
from connectors.formats.grid import Bad, Book, Cell, Row, Sheet, exact
from connectors.sdk.contract import Fault, Refused


class _Parser(dbfread.FieldParser):  # type: ignore[misc]
    """Values that cannot be read stay as what they are, and say so."""

    def parse(self, field: Any, data: bytes) -> Any:
        if field.type in "NF":
            text = data.decode("ascii", "replace").strip(" \0\t")
            if not text:
                return None
            try:
                return Decimal(text.replace(",", "."))
            except InvalidOperation:
                return Bad("number-malformed", text)
        try:
            return super().parse(field, data)
        except (ValueError, TypeError):
            return Bad("value-malformed", data.decode("latin-1").strip()[:40])


def open_dbf(path: Path) -> Book:
    """A table. Raises Refused."""
    try:
        table = dbfread.DBF(
            str(path), encoding=_encoding(path), parserclass=_Parser, char_decode_errors="strict",
            ignore_missing_memofile=True,
        )  # fmt: skip
        names = list(table.field_names)
    except (
        dbfread.DBFNotFound,
        struct.error,
        ValueError,
        KeyError,
        IndexError,
        OSError,
        TypeError,
    ) as error:
        raise Refused(Fault("unreadable-table", "a dBase table", repr(error)[:200])) from None

    def rows() -> Iterator[Row]:
        header: list[Cell] = list(names)
        yield Row(1, header)
        try:
            for number, record in enumerate(table, 2):
                yield Row(number, [_cell(v) for v in record.values()])
        except (ValueError, OSError, EOFError, struct.error) as error:
            raise Refused(Fault("truncated", "whole records", repr(error)[:200])) from None

    found = Book("dbf", [Sheet("", rows, table.header.numrecords + 1)], table.encoding)
    if len(set(names)) != len(names):
        found.warnings.append(
            ("duplicate-fields", "Two fields have one name; the last one counts.")
        )
    return found


def _encoding(path: Path) -> str:
    """The code page of the texts: that of the records, not of the header."""
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(int.from_bytes(head[8:10], "little"))
        records = file.read(65_536).replace(b"\0", b" ")
    if all(byte < 128 for byte in records):
        return "ascii"
    return detect_encoding(records)


def _cell(value: object) -> Cell:
    match value:
        case None | bool() | Decimal() | Bad() | datetime() | date():
            return value
        case int():
            return Decimal(value)
        case float():
            return exact(value)
        case bytes():
            return None
        case _:
            return str(value).strip() or None
