"""A zipped document: its parts within the budget, and a reduced copy for the slow readers.

The readers of oletools go through every element of every part in Python, several times: a price
list of 100 000 lines would take minutes. What they look for has names; a part that does not contain
one of these names (XML cannot spell an element's name in another way) cannot hold it. So each part
is streamed once, searched for the names at the speed of memory, and only the parts that have one
go into the reduced copy, along with relationships, content types and every embedded OLE file.
"""

from __future__ import annotations

import codecs
import io
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quarantine.contract import Policy
from quarantine.engines.base import Unscannable

OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
CHUNK_BYTES = 1 << 20
KEPT_BYTES_MAX = 96 << 20
SMALL_BINARY_BYTES = 1 << 16

MARKERS = (
    b"ddeLink", b"oleLink", b"dde-link", b"dde-source", b"dde-connection", b"instrText", b"fldSimple",
    b"customUI", b"macrosheet", b"OLEObject", b"oleObject", b"oleObj", b"hlinkClick", b"hlinkHover",
    b"hlinkMouseOver", b"event-listener", b"<!DOCTYPE", b"plugin", b"applet", b"floating-frame",
    b"section-source", b"object-ole", b"encryption-data", b"Relationship", b"binData", b"binaryData",
    b"vnd.sun.star.script", b"macro:", b"ContentType", b"table-source", b"draw:object",
)  # fmt: skip
_OVERLAP = max(map(len, MARKERS))
_LINKED = re.compile(r"xl/externallinks?/|/externallinks?/", re.IGNORECASE)


class Part(msgspec.Struct, frozen=True):
    """A part with something to look at. `xml` parts are UTF-8 or UTF-16 as they stand."""

    name: str
    data: bytes
    xml: bool


class Package(msgspec.Struct, frozen=True):
    """The parts that matter, all names, and whether an entry is encrypted."""

    parts: tuple[Part, ...]
    names: tuple[str, ...]
    encrypted: bool

    def reduced(self) -> bytes:
        """A zip of the parts that matter, for readers that want a file."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as copy:
            for part in self.parts:
                copy.writestr(part.name, part.data)
        return buffer.getvalue()


def peek_names(path: Path) -> list[str]:
    """The names in a zip's directory; none when it is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def read_package(path: Path, policy: Policy, deadline: float) -> Package:
    """Stream every part once. Raises zipfile.BadZipFile when broken, Unscannable over a budget."""
    parts: list[Part] = []
    encrypted = False
    spent = kept = 0
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > policy.entries_max:
            raise Unscannable("The document has more parts than the policy allows.")
        for entry in entries:
            if entry.flag_bits & 0x1:
                encrypted = True
                continue
            if entry.is_dir():
                continue
            budget = min(policy.entry_bytes_max, policy.unpacked_bytes_max - spent)
            data, size = _read_part(archive, entry, budget, deadline)
            spent += size
            if data is not None:
                kept += len(data)
                if kept > KEPT_BYTES_MAX:
                    raise Unscannable("The document has more active parts than can be looked at.")
                parts.append(Part(entry.filename, data, _is_xml(data)))
        names = tuple(entry.filename for entry in entries)
    return Package(tuple(parts), names, encrypted)


def _read_part(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, budget: int, deadline: float
) -> tuple[bytes | None, int]:
    """The part's bytes when it matters (else None), and its real size."""
    chunks: list[bytes] = []
    size, wanted = 0, _always_wanted(entry.filename)
    decode = None
    last = b""
    with archive.open(entry) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            if time.monotonic() > deadline:
                raise Unscannable("The document took longer than the policy allows.")
            size += len(chunk)
            if size > budget:
                raise Unscannable("A part of the document is larger than the policy allows.")
            if not chunks:
                wanted = wanted or chunk.startswith(OLE_MAGIC)
                decode = _wide_decoder(chunk)
                if not wanted and not _is_xml(chunk):
                    return _small_binary(chunk, stream, entry, size, budget)
            chunks.append(chunk)
            if not wanted:
                text = decode(chunk) if decode else chunk
                wanted = any(marker in last + text for marker in MARKERS)
                last = text[-_OVERLAP:]
    return (b"".join(chunks) if wanted else None), size


def _small_binary(
    first: bytes, stream: object, entry: zipfile.ZipInfo, size: int, budget: int
) -> tuple[bytes | None, int]:
    """Pictures and tables in binary: kept when small or linked, only counted otherwise."""
    linked = bool(_LINKED.search(entry.filename))
    chunks = [first]
    for chunk in _rest(stream):
        size += len(chunk)
        if size > budget:
            raise Unscannable("A part of the document is larger than the policy allows.")
        if linked:
            chunks.append(chunk)
    small = size <= SMALL_BINARY_BYTES and entry.filename.lower().endswith(".bin")
    return (b"".join(chunks) if linked or small else None), size


def _rest(stream: object) -> Iterator[bytes]:
    read = stream.read  # type: ignore[attr-defined]
    while chunk := read(CHUNK_BYTES):
        yield chunk


def _always_wanted(name: str) -> bool:
    low = name.lower()
    return low.endswith((".rels", "[content_types].xml", "meta-inf/manifest.xml"))


def _is_xml(head: bytes) -> bool:
    start = head[:400]
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in start[:4]:
        start = start.replace(b"\x00", b"").lstrip(b"\xff\xfe")
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def _wide_decoder(head: bytes) -> _Narrow | None:
    """For UTF-16, so that the names are found as they are written in UTF-8."""
    if head.startswith(b"\xff\xfe") or head[1:2] == b"\x00":
        return _Narrow("utf-16-le")
    if head.startswith(b"\xfe\xff") or head[:1] == b"\x00":
        return _Narrow("utf-16-be")
    return None


class _Narrow:
    def __init__(self, encoding: str) -> None:
        self.decoder = codecs.getincrementaldecoder(encoding)("replace")

    def __call__(self, chunk: bytes) -> bytes:
        return self.decoder.decode(chunk).encode("utf-8", "replace")
