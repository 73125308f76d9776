"""A tenant in a file: written whole or not at all, and read only as far as it proves itself.

Format 2: the magic `NXTENANT`, a big-endian u16 version, a u64 count of the bytes that follow,
then one zstd frame (with checksum) of length-framed parts: `H` heading, per table `T` start,
`D` rows as COPY text, `E` count and hash; per file `B` start, `D` bytes, `F` size and hash; last
`M`, the manifest. Every part but `D` is JSON. Format 1 is the same without files; it is read too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TypeVar
from uuid import UUID

import msgspec
import zstandard

from appliance.base.errors import Invalid, StorageFull
from appliance.tenancy.blobs import BlobEnd, BlobStart, FileSums, Tally
from appliance.tenancy.copy import CHUNK_BYTES, Part, TableEnd, TableStart, compare

MAGIC = b"NXTENANT"
FORMAT = 2
FORMATS = (1, FORMAT)
_LEAD = struct.Struct(">8sHQ")
_FRAME = struct.Struct(">cI")
# A row is one COPY line and travels in one frame, so a frame may be as long as a row of ours.
_FRAME_BYTES_MAX = 64 * 1024 * 1024
_WINDOW_BYTES_MAX = 1 << 27
_LEVEL = 3
T = TypeVar("T")
Piece = Part | BlobStart | BlobEnd
"""Whatever passes through an archive between heading and manifest."""


class Heading(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an archive says of itself before its tables."""

    format: int = FORMAT
    schema_revision: str
    tenant: UUID
    slug: str
    name: str
    node: str = ""
    created_at: datetime


class TableSum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of a table and the SHA-256 of their COPY text."""

    rows: int
    sha256: str


class Manifest(Heading, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The heading and what every table holds. `files` is None in an archive without their bytes."""

    tables: dict[str, TableSum]
    files: FileSums | None = None

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(t.rows for t in self.tables.values())


def manifest_of(
    heading: Heading, ends: dict[str, TableEnd], files: FileSums | None = None
) -> Manifest:
    """The heading completed with what was read or loaded."""
    given = {f: getattr(heading, f) for f in Heading.__struct_fields__}
    tables = {name: TableSum(end.rows, end.sha256) for name, end in ends.items()}
    return Manifest(**given, tables=tables, files=files)


async def write_archive(
    path: Path, heading: Heading, parts: AsyncIterator[Piece], *, with_files: bool = False
) -> Manifest:
    """Write beside `path` and rename at the end; a file that cannot be finished is removed.

    `with_files`: the parts have all the files that there are, which may be none.
    """
    part_path = path.with_name(path.name + ".part")
    try:
        descriptor = os.open(part_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_LEAD.pack(MAGIC, FORMAT, 0))
            packer = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
            with packer.stream_writer(file, closefd=False) as out:
                _put(out, b"H", msgspec.json.encode(heading))
                ends, tally = await _put_all(out, parts)
                manifest = manifest_of(heading, ends, tally.sums() if with_files else None)
                _put(out, b"M", msgspec.json.encode(manifest))
            length = file.tell() - _LEAD.size
            file.seek(0)
            file.write(_LEAD.pack(MAGIC, FORMAT, length))
            file.flush()
            os.fsync(file.fileno())
        part_path.rename(path)
    except OSError as error:
        part_path.unlink(missing_ok=True)
        raise StorageFull(
            f"{path.name} cannot be written: {error.strerror}. Nothing was kept.", dependency="disk"
        ) from None
    except BaseException:
        part_path.unlink(missing_ok=True)
        raise
    return manifest


async def _put_all(
    out: zstandard.ZstdCompressionWriter, parts: AsyncIterator[Piece]
) -> tuple[dict[str, TableEnd], Tally]:
    ends: dict[str, TableEnd] = {}
    tally = Tally()
    async for part in parts:
        if isinstance(part, bytes):
            _put(out, b"D", part)
            continue
        if isinstance(part, TableEnd):
            ends[part.name] = part
        elif isinstance(part, BlobEnd):
            tally.take(part)
        _put(out, _KINDS[type(part)], msgspec.json.encode(part))
    return ends, tally


_KINDS = {TableStart: b"T", TableEnd: b"E", BlobStart: b"B", BlobEnd: b"F"}


class Archive:
    """An open archive: the heading is known, `parts` gives the tables once, `read` all there is."""

    def __init__(self, path: Path, body: BinaryIO | zstandard.ZstdDecompressionReader) -> None:
        self._name = path.name
        self._body = body
        self._place = "its heading"
        kind, payload = self._next()
        if kind != b"H":
            raise self._broken("expected the heading")
        self.heading = self._decode(payload, Heading)
        self.manifest: Manifest | None = None

    async def parts(
        self, on_file: Callable[[BlobEnd], None] | None = None
    ) -> AsyncGenerator[Part, None]:
        """The same stream that a placement gives; at its end `manifest` is set and proven. Files
        are passed over, each told to `on_file`.
        """
        in_file = False
        for part in self.read():
            if isinstance(part, BlobStart):
                in_file = True
            elif isinstance(part, BlobEnd):
                if on_file:
                    on_file(part)
            elif not in_file:
                yield part

    def read(self) -> Iterator[Piece]:
        """Every part in order. Raises Invalid naming the table or file and what was expected."""
        ends: dict[str, TableEnd] = {}
        tally = Tally()
        start: TableStart | BlobStart | None = None
        while True:
            kind, payload = self._next()
            if kind == b"D" and start:
                yield payload
            elif kind == b"T" and start is None and not tally.is_any:
                start = self._decode(payload, TableStart)
                self._place = f"table {start.name}"
                yield start
            elif kind == b"E" and isinstance(start, TableStart):
                end = self._decode(payload, TableEnd)
                if end.name != start.name or end.name in ends:
                    raise self._broken("expected its own end mark")
                ends[end.name], start = end, None
                self._place = f"what follows table {end.name}"
                yield end
            elif kind == b"B" and start is None:
                start = self._decode(payload, BlobStart)
                self._place = f"file {start.id}"
                yield start
            elif kind == b"F" and isinstance(start, BlobStart):
                yield self._end_file(payload, start, tally)
                start = None
            elif kind == b"M" and start is None:
                self._finish(payload, ends, tally)
                return
            else:
                raise self._broken(f"a part of sort {kind!r} stands where it cannot")

    def _end_file(self, payload: bytes, start: BlobStart, tally: Tally) -> BlobEnd:
        end = self._decode(payload, BlobEnd)
        if end.id != start.id:
            raise self._broken("expected its own end mark")
        tally.take(end)
        self._place = f"what follows file {end.id}"
        return end

    def _finish(self, payload: bytes, ends: dict[str, TableEnd], tally: Tally) -> None:
        self._place = "its manifest"
        found = self._decode(payload, Manifest)
        has_files = found.files is not None or tally.is_any
        if found != manifest_of(self.heading, ends, tally.sums() if has_files else None):
            raise self._broken("expected the counts and hashes of its tables and files")
        # Reading on to the end makes zstd compare its checksum.
        if self._take(1):
            raise self._broken("expected nothing after it")
        self.manifest = found

    def _next(self) -> tuple[bytes, bytes]:
        head = self._take(_FRAME.size)
        if len(head) < _FRAME.size:
            raise self._truncated()
        kind, length = _FRAME.unpack(head)
        if length > _FRAME_BYTES_MAX:
            raise self._broken(f"a part claims {length} bytes, at most {_FRAME_BYTES_MAX} expected")
        payload = self._take(length)
        if len(payload) < length:
            raise self._truncated()
        return kind, payload

    def _take(self, count: int) -> bytes:
        found = bytearray()
        try:
            while len(found) < count and (
                more := self._body.read(min(count - len(found), CHUNK_BYTES))
            ):
                found += more
        except zstandard.ZstdError:
            raise self._broken("its bytes do not fit the checksum or the compression") from None
        return bytes(found)

    def _decode(self, payload: bytes, sort: type[T]) -> T:
        try:
            return msgspec.json.decode(payload, type=sort)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._broken(f"expected a {sort.__name__}") from None

    def _truncated(self) -> Invalid:
        return Invalid(
            f"{self._name} ends in {self._place}; expected its end mark and the tables after it. "
            "The file is truncated. Nothing was written.",
            code="archive.truncated",
        )

    def _broken(self, why: str) -> Invalid:
        return Invalid(
            f"{self._name} is damaged in {self._place}: {why}. Nothing was written.",
            code="archive.broken",
        )


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a file and check what it claims to be. Raises Invalid."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise Invalid(
            f"{path.name} cannot be read: {error.strerror}.", code="archive.unreadable"
        ) from None
    with file:
        lead = file.read(_LEAD.size)
        if len(lead) < _LEAD.size or not lead.startswith(MAGIC):
            raise Invalid(
                f"{path.name} is not a tenant archive: expected it to begin with {MAGIC.decode()}.",
                code="archive.format",
            )
        _, version, length = _LEAD.unpack(lead)
        if version not in FORMATS:
            raise Invalid(
                f"{path.name} has archive format {version}; this program reads formats 1 and "
                f"{FORMAT}. Use the program version that wrote it. Nothing was written.",
                code="archive.format",
            )
        unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
        with unpacker.stream_reader(file, closefd=False) as body:
            yield Archive(path, body)
        found = path.stat().st_size - _LEAD.size
        if found != length:
            raise Invalid(
                f"{path.name} has {found} bytes of content; expected {length}. Nothing was written.",
                code="archive.truncated",
            )


def read_manifest(path: Path) -> Manifest:
    """Read the whole file and prove it: counts, hashes, checksum, length. Raises Invalid."""
    with open_archive(path) as archive:
        digest, rows, size = hashlib.sha256(), 0, 0
        for part in archive.read():
            if isinstance(part, bytes):
                digest.update(part)
                rows += part.count(b"\n")
                size += len(part)
                continue
            if isinstance(part, TableEnd):
                compare(part, TableEnd(part.name, rows, digest.hexdigest()), "were read")
            elif isinstance(part, BlobEnd):
                _compare_file(part, size, digest.hexdigest())
            digest, rows, size = hashlib.sha256(), 0, 0
        manifest = archive.manifest
    assert manifest is not None
    return manifest


def _compare_file(said: BlobEnd, size: int, sha256: str) -> None:
    if said.fault is None and (said.size, said.sha256) != (size, sha256):
        raise Invalid(
            f"File {said.id}: expected {said.size} bytes with SHA-256 {said.sha256}; {size} bytes "
            f"with {sha256} were read. Nothing was written.",
            code="archive.mismatch",
        )


def _put(out: BinaryIO | zstandard.ZstdCompressionWriter, kind: bytes, payload: bytes) -> None:
    out.write(_FRAME.pack(kind, len(payload)))
    out.write(payload)
