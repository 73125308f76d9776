"""The sealed format: AES-256-GCM in chunks, so that any range can be read and any change is seen.

    header  "NXSB" | version u16 | 0 u16 | chunk size u32          12 bytes, big-endian
    chunk i AES-256-GCM(key of the blob, nonce = i, plaintext of at most chunk size) + tag 16

The header, the blob's id, the index and whether it is the last chunk are authenticated with each
chunk: a chunk that is flipped, moved, cut off, repeated or put into another blob does not open.
All chunks but the last are full; an empty blob is one empty chunk. A key seals one blob once, so a
counter as nonce cannot repeat. It is the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár
2015) with the last flag in the associated data.

Pure: bytes in, bytes out. Reading from a place is `quarantine.store.reading`.
"""

from __future__ import annotations

import hashlib
import struct
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quarantine.store.faults import Damaged

CHUNK = 1024 * 1024
CHUNK_MAX = 16 * 1024 * 1024
TAG = 16

Data = bytes | bytearray | memoryview

_HEADER = struct.Struct(">4sHHI")
_BOUND = struct.Struct(">12s16sQ?")
_MAGIC, _VERSION = b"NXSB", 1
HEADER = _HEADER.size


class Layout(msgspec.Struct, frozen=True):
    """Where the chunks of a blob of `size` plaintext bytes lie."""

    size: int
    chunk: int = CHUNK

    @property
    def chunks(self) -> int:
        """How many chunks, at least one."""
        return max(1, -(-self.size // self.chunk))

    @property
    def sealed_size(self) -> int:
        """Bytes of the whole sealed object."""
        return HEADER + self.size + self.chunks * TAG

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Start and stop, in the sealed object, of the chunks `first` to `last` inclusive."""
        step = self.chunk + TAG
        return HEADER + first * step, min(HEADER + (last + 1) * step, self.sealed_size)


class Sealer:
    """Seals one blob while its bytes stream in, hashes and counts them.

    The last chunk is known only at the end, so up to one chunk is held back. How the bytes are
    split over calls of `feed` changes nothing in the output.
    """

    def __init__(self, blob: UUID, key: bytes, chunk: int = CHUNK) -> None:
        self.size = 0
        self._blob, self._chunk, self._cipher = blob, chunk, AESGCM(key)
        self._header = _HEADER.pack(_MAGIC, _VERSION, 0, chunk)
        self._held, self._index, self._hash = bytearray(), 0, hashlib.sha256()

    def feed(self, data: Data) -> list[bytes]:
        """Take plaintext; give the sealed bytes that are now ready, in order."""
        view = memoryview(data)
        self._hash.update(view)
        self.size += len(view)
        ready = []
        while view:
            if len(self._held) == self._chunk:
                ready += self._seal(self._held, last=False)
                self._held = bytearray()
            if not self._held and len(view) > self._chunk:
                ready += self._seal(view[: self._chunk], last=False)
                view = view[self._chunk :]
                continue
            room = self._chunk - len(self._held)
            self._held += view[:room]
            view = view[room:]
        return ready

    def close(self) -> list[bytes]:
        """The last sealed bytes; the blob is then whole."""
        return self._seal(self._held, last=True)

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the plaintext so far."""
        return self._hash.digest()

    def _seal(self, data: Data, *, last: bool) -> list[bytes]:
        index, self._index = self._index, self._index + 1
        bound = _BOUND.pack(self._header, self._blob.bytes, index, last)
        sealed = self._cipher.encrypt(index.to_bytes(12, "big"), data, bound)
        return [sealed] if index else [self._header, sealed]


class Opener:
    """Opens chunks of one sealed blob in any order. Raises Damaged, never gives wrong bytes.

    `size` is the plaintext size that was written down when the blob was sealed: with it a
    shortened object is found whichever chunk is read.
    """

    def __init__(self, blob: UUID, key: bytes, size: int, header: bytes) -> None:
        self._blob, self._cipher, self._header = blob, AESGCM(key), header
        if len(header) != HEADER:
            raise Damaged(blob, 0)
        magic, version, nothing, chunk = _HEADER.unpack(header)
        if (magic, version, nothing) != (_MAGIC, _VERSION, 0) or not 0 < chunk <= CHUNK_MAX:
            raise Damaged(blob, 0)
        self.layout = Layout(size, chunk)

    def open(self, index: int, sealed: Data) -> bytes:
        """The plaintext of chunk `index`. Raises Damaged."""
        last = index == self.layout.chunks - 1
        bound = _BOUND.pack(self._header, self._blob.bytes, index, last)
        try:
            return self._cipher.decrypt(index.to_bytes(12, "big"), sealed, bound)
        except InvalidTag as error:
            raise Damaged(self._blob, index) from error
