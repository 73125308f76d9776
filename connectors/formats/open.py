"""Any table file by what is in it; its name is never asked."""

from __future__ import annotations

import zipfile
from pathlib import Path

from connectors.formats.dbase2 import is_dbase2, open_dbase2
from connectors.formats.dbf import open_dbf
from connectors.formats.grid import Book
from connectors.formats.markup import open_html, open_spreadsheetml
from connectors.formats.text_table import open_text
from connectors.formats.workbook import open_workbook
from connectors.formats.xls import open_xls
from connectors.sdk.contract import Fault, Refused

_DBF = frozenset({0x02, 0x03, 0x30, 0x31, 0x32, 0x43, 0x63, 0x83, 0x8B, 0x8C, 0xCB, 0xF5, 0xFB})


def open_book(path: Path, encoding: str = "") -> Book:
    """The tables of a file. Raises Refused naming what it looks like."""
    with path.open("rb") as file:
        head = file.read(4_096)
    if not head.strip():
        raise Refused(Fault("empty", "a table", "an empty file"))
    if head.startswith(b"PK\x03\x04"):
        return _open_zip(path)
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        return open_xls(path)
    if head.startswith(b"%PDF"):
        raise Refused(Fault("not-a-table", "a table", "a PDF document"))
    if head[:2] in (b"\x09\x04", b"\x09\x02", b"\x09\x00", b"\x09\x08") and b"\0" in head[:16]:
        return open_xls(path)
    if is_dbase2(head):
        return open_dbase2(path)
    if _is_dbf(head, path.stat().st_size):
        return open_dbf(path)
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith(b"<?xml") and b"spreadsheet" in start:
        return open_spreadsheetml(path)
    if start.startswith((b"<html", b"<!doctype html", b"<table", b"<meta", b"<head")):
        return open_html(path)
    if start.startswith(b"<"):
        raise Refused(Fault("not-a-table", "a table", "an XML document"))
    return open_text(path, encoding)


def _open_zip(path: Path) -> Book:
    try:
        names = set(zipfile.ZipFile(path).namelist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise Refused(Fault("truncated", "a whole workbook", str(error))) from None
    if "[Content_Types].xml" in names:
        if any(n.endswith("workbook.bin") for n in names):
            return open_workbook(path, "xlsb")
        macros = any(n.endswith("vbaProject.bin") for n in names)
        return open_workbook(path, "xlsm" if macros else "xlsx")
    if "content.xml" in names:
        return open_workbook(path, "ods")
    raise Refused(Fault("not-a-table", "a table", "an archive of files"))


def _is_dbf(head: bytes, size: int) -> bool:
    if len(head) < 33 or head[0] not in _DBF:
        return False
    header, record = int.from_bytes(head[8:10], "little"), int.from_bytes(head[10:12], "little")
    records = int.from_bytes(head[4:8], "little")
    plausible = 1 <= head[2] <= 12 and 1 <= head[3] <= 31
    return (
        (plausible or head[1:4] == b"\0\0\0")
        and 32 < header <= size
        and 0 < record < 65_000
        and (header + records * record <= size + record)
    )
