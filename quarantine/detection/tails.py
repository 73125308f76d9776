"""Two files in one: bytes where a format has ended or not begun.

A reader of the one format never looks there, a reader of the other looks nowhere else. Padding by
zeros and what cameras are known to append (further pictures, a Samsung trailer) is not held.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from pathlib import Path

from quarantine.containers.zips import CENTRAL, END

_PADDING_MAX = 64 * 1024
_ZIP_TAIL = 22 + 0xFFFF
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_SAMSUNG_MAX = 1024 * 1024
_PDF_LOOKED_AT = 1024
_PDF_HEADER = re.compile(rb"%PDF-\d")
_HTML = re.compile(rb"<(?:script|html|iframe|svg|!doctype)[\s>/]", re.IGNORECASE)


def second_file(path: Path, type_: str) -> str:
    """What is wrong, as the end of a sentence; empty when the file is one file of this type."""
    with path.open("rb") as file:
        if not file.read(1):
            return ""
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            try:
                end = _ENDS[type_](data) if type_ in _ENDS else len(data)
            except (struct.error, IndexError, ValueError):
                return "is damaged, so nobody can say where it ends"
            if _is_more(data, end, type_):
                return "goes on behind its end"
            if type_ == "image/gif" and data[6:8].strip(b"/*=; \t") == b"" and data[7] > 32:
                return "begins like a script"
            if type_ == "application/pdf" and _is_before_pdf(data):
                return "has a second beginning"
            return "is a ZIP archive too" if _is_zip_too(data, type_) else ""


def hides_pdf(head: bytes, type_: str) -> bool:
    """Whether a PDF begins later in what is no text and no PDF: readers take the first kilobyte."""
    return type_ != "application/pdf" and bool(_PDF_HEADER.search(head[:_PDF_LOOKED_AT]))


def _is_more(data: mmap, end: int, type_: str) -> bool:
    if end > len(data):
        raise ValueError
    rest = len(data) - end
    if not rest:
        return False
    if rest <= _PADDING_MAX and not data[end:].strip(b"\0\r\n\t "):
        return False
    return not (type_ == "image/jpeg" and _is_camera(data, end))


def _is_before_pdf(data: mmap) -> bool:
    """`%PDF` again at the start, or a page of the web in the comment behind it."""
    start = data[:_PDF_LOOKED_AT]
    return len(_PDF_HEADER.findall(start)) > 1 or bool(_HTML.search(start.split(b" obj")[0]))


def _is_zip_too(data: mmap, type_: str) -> bool:
    """Whether a reader of ZIP, who begins at the end, finds an archive."""
    if not type_.startswith(("image/", "audio/", "video/", "text/")) and type_ not in _ALSO:
        return False
    least = max(0, len(data) - _ZIP_TAIL)
    at = data.rfind(END, least)
    if at < 0 or at + 22 > len(data):
        return False
    size = struct.unpack_from("<I", data, at + 12)[0]
    return at - size >= 0 and data[at - size : at - size + 4] == CENTRAL


_ALSO = frozenset(("application/pdf", "application/xml", "application/json", "application/x-dbf"))


def _end_of_png(data: mmap) -> int:
    at = 8
    while True:
        length: int
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind == b"IEND":
            return at


def _end_of_jpeg(data: mmap, at: int = 0) -> int:
    if data[at : at + 2] != b"\xff\xd8":
        raise ValueError
    at += 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1
        if data[at] != 0xFF:
            raise ValueError
        kind = data[at + 1]
        at += 2
        if kind == 0xD9:
            return at
        if kind in _STANDALONE:
            continue
        at += struct.unpack_from(">H", data, at)[0]
        if kind == 0xDA:
            found = _MARKER.search(data, at)
            if found is None:
                raise ValueError
            at = found.start()


def _is_camera(data: mmap, end: int) -> bool:
    """Further whole JPEG pictures one behind the other, or a Samsung trailer."""
    at = end
    try:
        while data[at : at + 3] == b"\xff\xd8\xff":
            at = _end_of_jpeg(data, at)
    except (struct.error, IndexError, ValueError):
        return False
    rest = data[at : at + _SAMSUNG_MAX + 1]
    if not rest.strip(b"\0"):
        return True
    return len(rest) <= _SAMSUNG_MAX and rest.endswith(b"SEFT") and b"SEFH" in rest


def _end_of_gif(data: mmap) -> int:
    flags = data[10]
    at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    # Old writers leave the last byte out: the end of the file then ends the picture.
    while at != len(data):
        kind = data[at]
        if kind == 0x3B:
            return at + 1
        if kind == 0x2C:
            flags = data[at + 9]
            at += 11 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
        elif kind == 0x21:
            at += 2
        else:
            raise ValueError
        while size := data[at]:
            at += 1 + size
        at += 1
    return at


def _end_of_riff(data: mmap) -> int:
    size = int.from_bytes(data[4:8], "little")
    return min(8 + size + (size & 1 if 8 + size < len(data) else 0), len(data))


def _end_of_bmp(data: mmap) -> int:
    """The size in the header; writers that give none or a wrong one are known, so at least that."""
    size, start = int.from_bytes(data[2:6], "little"), int.from_bytes(data[10:14], "little")
    width, height, bits = (int(x) for x in struct.unpack_from("<ii2xH", data, 18))
    pixels = start + ((abs(width) * bits + 31) // 32) * 4 * abs(height)
    return max(min(size, len(data)), min(pixels, len(data)))


def _end_of_pdf(data: mmap) -> int:
    """Behind the last `%%EOF`; a file without one is damaged."""
    at = data.rfind(b"%%EOF")
    if at < 0:
        return len(data)
    return at + 5


_ENDS: dict[str, Callable[[mmap], int]] = {
    "image/png": _end_of_png,
    "image/jpeg": _end_of_jpeg,
    "image/gif": _end_of_gif,
    "image/webp": _end_of_riff,
    "image/bmp": _end_of_bmp,
    "application/pdf": _end_of_pdf,
}
