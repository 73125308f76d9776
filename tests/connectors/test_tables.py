"""Tables of forms that are seldom met: dBase II, sheets styled far out, workbooks under a password."""

import struct
import zipfile
from decimal import Decimal

import olefile
import openpyxl
import pytest

from connectors.formats.open import open_book
from connectors.sdk.contract import Refused


def make_dbase2(fields, records, count=None):
    head = bytearray(521)
    length = 1 + sum(size for _, _, size in fields)
    head[0:8] = struct.pack(
        "<BHBBBH", 2, len(records) if count is None else count, 1, 1, 90, length
    )
    for n, (name, sort, size) in enumerate(fields):
        head[8 + 16 * n : 24 + 16 * n] = struct.pack(
            "<11sBBHB", name.encode(), ord(sort), size, 0, 2
        )
    head[8 + 16 * len(fields)] = 0x0D
    return bytes(head) + b"".join(records) + b"\x1a"


FIELDS = [("CODE", "C", 6), ("NAME", "C", 10), ("PRICE", "N", 8), ("LIVE", "L", 1)]


def test_dbase_2(tmp_path):
    path = tmp_path / "a.dbf"
    texts = [
        (" ", "A1", "Стул", "10.50", "T"),
        ("*", "A2", "gone", "1", "F"),
        (" ", "A3", "", ".", "?"),
    ]
    records = [
        mark.encode()
        + b"".join(v.encode("cp866").ljust(f[2]) for v, f in zip(rest, FIELDS, strict=True))
        for mark, *rest in texts
    ]
    path.write_bytes(make_dbase2(FIELDS, records))
    book = open_book(path)
    rows = [r.cells for r in book.sheets[0].rows()]
    assert rows[0] == ["CODE", "NAME", "PRICE", "LIVE"]
    assert rows[1] == ["A1", "Стул", Decimal("10.50"), True]
    assert (
        rows[2][:2] == ["A3", None] and rows[2][2].code == "number-malformed" and rows[2][3] is None
    )
    assert book.format == "dbf" and len(rows) == 3


def test_a_cut_dbase_2_is_no_table_of_its_own(tmp_path):
    path = tmp_path / "a.dbf"
    path.write_bytes(make_dbase2(FIELDS, [b" " * 26] * 3, count=9))
    with pytest.raises(Refused):
        list(open_book(path).sheets[0].rows())


def test_styled_empty_cells_make_no_sheet_wide_but_values_do(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["Code", "Price"])
    book.active.append(["A1", 10])
    book.active.append(["=1+1"])
    far = book.active.cell(1, 1_026)
    far.font = openpyxl.styles.Font(bold=True)
    book.save(tmp_path / "styled.xlsx")
    rows = [r.cells[:2] for r in open_book(tmp_path / "styled.xlsx").sheets[0].rows()]
    assert rows[:2] == [["Code", "Price"], ["A1", Decimal(10)]]
    far.value = "x"
    book.save(tmp_path / "wide.xlsx")
    with pytest.raises(Refused) as told:
        list(open_book(tmp_path / "wide.xlsx").sheets[0].rows())
    assert told.value.fault.code == "workbook-too-large"


def test_a_password_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "y")
    sealed = tmp_path / "a.xlsx"
    sealed.write_bytes(make_ole("EncryptedPackage", (tmp_path / "a.zip").read_bytes()))
    assert olefile.OleFileIO(str(sealed)).exists("EncryptedPackage")
    with pytest.raises(Refused) as told:
        open_book(sealed)
    assert told.value.fault.code == "password-protected"


def make_ole(name, content):
    """The smallest OLE container with one stream ([MS-CFB]): header, FAT, directory, the stream."""
    content = content.ljust(4_096, b"\0")
    end, free, fat = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD
    head = (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
        + bytes(16)
        + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6)
    )
    head += bytes(6) + struct.pack("<IIIIIIIII", 0, 1, 1, 0, 4_096, end, 0, end, 0)
    head += struct.pack("<109I", 0, *[free] * 108)
    chain = [fat, end, *range(3, 10), end]
    table = struct.pack("<128I", *chain, *[free] * (128 - len(chain)))
    entries = _entry("Root Entry", 5, child=1, start=end) + _entry(
        name, 2, start=2, size=len(content)
    )
    return head + table + entries.ljust(512, b"\0") + content


def _entry(name, sort, *, child=0xFFFFFFFF, start=0, size=0):
    raw = name.encode("utf-16-le") + b"\0\0"
    entry = raw.ljust(64, b"\0") + struct.pack(
        "<HBBIII", len(raw), sort, 1, 0xFFFFFFFF, 0xFFFFFFFF, child
    )
    return entry + bytes(36) + struct.pack("<IQ", start, size)
