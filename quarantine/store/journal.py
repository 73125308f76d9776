"""The file in which an upload in parts becomes durable, part by part, sealed as it lies there.

    opening  "NXUP" | version u16 | length u32 | crc32 u32, then `Opening` as JSON
    frame    offset u64 | length u32 | closes u8, then nonce 12, ciphertext, tag 16

A frame's nonce is random: after a crash other bytes may come for the same offset, and a counter
would then repeat. `closes` marks the last frame of what was acknowledged together; what follows
the last closing frame was never acknowledged and is cut away. All methods block, for threads.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quarantine.store.disk import NewFile, require_space, saying_no_space, write_all
from quarantine.store.faults import Busy, Damaged, Missing, TooManyParts
from quarantine.store.sealed import TAG, Data

FRAMES_MAX = 65_536
FRAME_BYTES_MAX = 1024 * 1024

_OPENING = struct.Struct(">4sHII")
_FRAME = struct.Struct(">QI?")
_MAGIC, _VERSION, _NONCE = b"NXUP", 1, 12
_AROUND = _FRAME.size + _NONCE + TAG


class Opening(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known when an upload begins. `sha256` is what the sender says, hex or empty.

    `journal_key` seals the frames; `content_key` will seal the finished blob. It is chosen here so
    that finishing twice, after a crash, gives the same bytes and the same wrapped key.
    """

    blob: UUID
    tenant: UUID
    size: int
    sha256: str
    journal_key: bytes
    content_key: bytes


class Frames:
    """Where the durable frames lie: plaintext offsets and file positions, 16 bytes a frame."""

    def __init__(self, position: int) -> None:
        self.offset, self.position = 0, position
        self.starts, self.positions = array("Q"), array("Q")

    def add(self, length: int) -> None:
        """One more frame of `length` plaintext bytes."""
        self.starts.append(self.offset)
        self.positions.append(self.position)
        self.offset += length
        self.position += _AROUND + length

    def back_to(self, count: int) -> None:
        """Forget all frames after the first `count`."""
        if count < len(self.starts):
            self.offset, self.position = self.starts[count], self.positions[count]
            del self.starts[count:], self.positions[count:]

    def around(self, offset: int) -> int:
        """The number of the frame that holds the byte at `offset`."""
        return bisect_right(self.starts, offset) - 1


def begin(path: Path, opening: Opening, keep_free: int) -> None:
    """Make an upload's file, durably. Raises NoSpace when the whole of it would not fit."""
    if path.exists():
        raise ValueError("that blob id has an upload already; each id is used once")
    require_space(path.parent, opening.size, keep_free, "an upload")
    said = msgspec.json.encode(opening)
    file = NewFile(path, keep_free=keep_free)
    try:
        head = _OPENING.pack(_MAGIC, _VERSION, len(said), zlib.crc32(said))
        file.write([head, said])
        file.publish()
    finally:
        file.discard()


def read_opening(path: Path, blob: UUID) -> Opening:
    """What was said at the beginning. Raises Missing."""
    try:
        with path.open("rb") as file:
            return _opening(file.read(_OPENING.size + 4096), blob)[0]
    except FileNotFoundError as error:
        raise Missing(f"Upload {blob}") from error


class Journal:
    """An upload's file, held by one writer at a time (Busy for a second one).

    `known` is what an earlier look found; it is used when the file has the length it had then,
    otherwise every frame is read and proved again.
    """

    def __init__(self, path: Path, opening: Opening, key: bytes, known: Frames | None) -> None:
        self.opening = opening
        self._blob, self._cipher, self._folder = opening.blob, AESGCM(key), path.parent
        try:
            self._file = path.open("r+b", buffering=0)
        except FileNotFoundError as error:
            raise Missing(f"Upload {opening.blob}") from error
        try:
            self._hold()
            length = os.fstat(self._fd).st_size
            fits = known is not None and known.position == length
            self.frames = known if known is not None and fits else self._find()
            self._closed = len(self.frames.starts)
            if self.frames.position < length:
                self._cut()
        except BaseException:
            self._file.close()
            raise

    @property
    def _fd(self) -> int:
        return self._file.fileno()

    @property
    def touched(self) -> float:
        """When it was last written to, as seconds of the epoch."""
        return os.fstat(self._fd).st_mtime

    def add(self, data: Data, *, closes: bool) -> None:
        """Write one frame at the end; durable after `sync`."""
        if len(self.frames.starts) >= FRAMES_MAX:
            raise TooManyParts(self._blob, FRAMES_MAX)
        head = _FRAME.pack(self.frames.offset, len(data), closes)
        nonce = secrets.token_bytes(_NONCE)
        sealed = self._cipher.encrypt(nonce, data, self._blob.bytes + head)
        with saying_no_space("an upload"):
            os.lseek(self._fd, self.frames.position, os.SEEK_SET)
            write_all(self._fd, head + nonce + sealed)
        self.frames.add(len(data))
        if closes:
            self._closed = len(self.frames.starts)

    def close_frames(self) -> None:
        """See that what was added is followed by a frame that closes it, an empty one if need be."""
        if self._closed < len(self.frames.starts):
            self.add(b"", closes=True)

    def sync(self) -> None:
        """All closed frames are on the disk when this returns."""
        with saying_no_space("an upload"):
            os.fsync(self._fd)

    def give_up_open_frames(self) -> None:
        """Cut what no closing frame follows, and half-written bytes."""
        self.frames.back_to(self._closed)
        self._cut()

    def require_space(self, coming: int, keep_free: int) -> None:
        """Raise NoSpace when the disk would be left with less than `keep_free`."""
        require_space(self._folder, coming, keep_free, "an upload")

    def plain(self, start: int, stop: int) -> Iterator[memoryview]:
        """Held bytes `[start:stop]`, piece by piece. Raises Damaged."""
        while start < stop:
            number = self.frames.around(start)
            base = self.frames.starts[number]
            opened = self._read(self.frames.positions[number], base)
            if opened is None:
                raise Damaged(self._blob, number)
            piece = memoryview(opened[0])[start - base : stop - base]
            yield piece
            start += len(piece)

    def close(self) -> None:
        """Let the next writer in."""
        self._file.close()

    def _hold(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(self._blob) from error

    def _cut(self) -> None:
        os.ftruncate(self._fd, self.frames.position)
        os.fsync(self._fd)

    def _find(self) -> Frames:
        """Read and prove every frame up to the first that is torn; keep those that are closed."""
        length = _opening(os.pread(self._fd, _OPENING.size + 4096, 0), self._blob)[1]
        found, closed = Frames(length), 0
        while (opened := self._read(found.position, found.offset)) is not None:
            found.add(len(opened[0]))
            if opened[1]:
                closed = len(found.starts)
        found.back_to(closed)
        return found

    def _read(self, position: int, offset: int) -> tuple[bytes, bool] | None:
        """The frame that begins there with that offset: its bytes, whether it closes."""
        head = os.pread(self._fd, _FRAME.size, position)
        if len(head) < _FRAME.size:
            return None
        at, length, closes = _FRAME.unpack(head)
        if at != offset or length > FRAME_BYTES_MAX:
            return None
        rest = os.pread(self._fd, length + _NONCE + TAG, position + _FRAME.size)
        try:
            bound = self._blob.bytes + head
            return self._cipher.decrypt(rest[:_NONCE], rest[_NONCE:], bound), closes
        except (InvalidTag, ValueError):
            return None


def _opening(head: bytes, blob: UUID) -> tuple[Opening, int]:
    """The opening and the bytes it takes. It was whole before anything was answered."""
    try:
        magic, version, length, crc = _OPENING.unpack_from(head)
        said = head[_OPENING.size : _OPENING.size + length]
        if (magic, version, crc) == (_MAGIC, _VERSION, zlib.crc32(said)):
            return msgspec.json.decode(said, type=Opening), _OPENING.size + length
    except (struct.error, msgspec.DecodeError) as error:
        raise Damaged(blob, 0) from error
    raise Damaged(blob, 0)
