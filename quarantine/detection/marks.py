"""Formats that say at a fixed place what they are."""

from __future__ import annotations

import struct
from pathlib import Path

_MARKS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\3\4", "application/zip"),
    (0, b"PK\5\6", "application/zip"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"{\\rtf", "text/rtf"),
    (0, b"\x1f\x8b\x08", "application/gzip"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\0", "application/x-xz"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (0, b"MSCF\0\0\0\0", "application/vnd.ms-cab-compressed"),
    (0, b"ITSF", "application/vnd.ms-htmlhelp"),
    (0, b"\x7fELF", "application/x-elf"),
    (0, b"\0asm", "application/wasm"),
    (0, b"dex\n", "application/x-dex"),
    (0, b"\xca\xfe\xba\xbe\0\0\0", "application/java-vm"),
    (0, b"L\0\0\0\1\x14\2\0", "application/x-ms-shortcut"),
    (0, b"\0\5\x16\7", "application/applefile"),
    (0, b"\0\0\0\1Bud1", "application/x-apple-ds-store"),
    (0, b"xar!", "application/x-xar"),
    (0, b"!<arch>\n", "application/x-archive"),
    (0, b"SQLite format 3\0", "application/vnd.sqlite3"),
    (257, b"ustar", "application/x-tar"),
    (0x8001, b"CD001", "application/x-iso9660-image"),
)
_MACHO = (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe")
_DBF_VERSIONS = frozenset(
    b"\x02\x03\x04\x05\x30\x31\x32\x43\x63\x7b\x83\x87\x8b\x8c\x8e\xcb\xe5\xeb\xf5\xfb"
)
_DBF_FIELDS = frozenset(b"CNLDMFBGPYTIVXO@+0QW")


def by_mark(head: bytes, path: Path) -> str:
    """The type, or empty. `head` is the start of the file, at least 512 KB where it is as long."""
    for at, mark, type_ in _MARKS:
        if head.startswith(mark, at):
            return type_
    if _is_windows_program(head):
        return "application/x-dosexec"
    if head[:4] in _MACHO:
        return "application/x-mach-binary"
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"WAVE", b"AVI "):
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}[head[8:12]]
    if head[4:8] == b"ftyp":
        return _brand(head)
    if _is_bitmap(head):
        return "image/bmp"
    if _is_dbf(head):
        return "application/x-dbf"
    if _is_metafile(head):
        return "image/emf"
    if _is_lzma(head):
        return "application/x-lzma"
    return ""


def _is_windows_program(head: bytes) -> bool:
    """`MZ` is also a word: a program has its second header, or bytes that no text has."""
    if head[:2] not in (b"MZ", b"ZM"):
        return False
    at = struct.unpack_from("<I", head, 60)[0] if len(head) >= 64 else 0
    return head[at : at + 4] == b"PE\0\0" or b"\0" in head[:64]


def _brand(head: bytes) -> str:
    brand = head[8:12]
    if brand in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"hevc"):
        return "image/heic"
    if brand in (b"avif", b"avis"):
        return "image/avif"
    if brand == b"qt  ":
        return "video/quicktime"
    return "audio/mp4" if brand.startswith(b"M4A") else "video/mp4"


def _is_bitmap(head: bytes) -> bool:
    return (
        head[:2] == b"BM"
        and len(head) >= 26
        and head[6:10] == b"\0" * 4
        and struct.unpack_from("<I", head, 14)[0] in (12, 40, 52, 56, 64, 108, 124)
    )


def _is_dbf(head: bytes) -> bool:
    """No magic number in dBASE: version, a date, lengths that fit, fields of known kinds."""
    if len(head) < 33 or head[0] not in _DBF_VERSIONS:
        return False
    month, day, length = head[2], head[3], struct.unpack_from("<H", head, 8)[0]
    if month > 12 or day > 31 or length < 33 or length > len(head):
        return False
    if head[0] == 0x02:  # dBASE II: eight bytes, then sixteen for each field
        return False
    if head[0] == 0x04 and head[43:44] != b"\0" and head[43] not in _DBF_FIELDS:
        return False
    first = head[43] if head[32] != 0x0D else ord("C")
    seventh = head[0] in (0x04, 0x8C) and length >= 116 and head[100] in _DBF_FIELDS
    return first in _DBF_FIELDS or seventh


def _is_metafile(head: bytes) -> bool:
    enhanced = head[:4] == b"\1\0\0\0" and head[40:44] == b" EMF"
    return enhanced or head[:4] == b"\xd7\xcd\xc6\x9a"


def _is_lzma(head: bytes) -> bool:
    """The old .lzma: default properties, a dictionary of a usual size, a length or 'unknown'."""
    if len(head) < 14 or head[0] != 0x5D or head[1:3] != b"\0\0":
        return False
    length = head[5:13]
    return length == b"\xff" * 8 or length[5:] == b"\0\0\0"
