"""A stretch of a file on its way, proved piece by piece: what came before a cut is kept.

A request (or an answer) that carries bytes of a file says in one header where in its chunk they
begin, how many there are, and the digest of every 8 KiB of them. The node's signature is made over
that header in the place of the body, so each piece is proved by itself when it is there, and a
link that dies in the middle costs at most the piece it died in. Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from hashlib import blake2b

import msgspec

from appliance.base.errors import Malformed, Spoiled

HEADER = "nexus-pieces"
CHUNK = 256 * 1024
PIECE = 8 * 1024
_DIGEST = 16
_FORM = re.compile(r"(\d{1,6})\.(\d{1,6})\.([A-Za-z0-9+/=]{0,1024})\Z")


class Stretch(msgspec.Struct, frozen=True):
    """`length` bytes from `start` of a chunk on, and the digests of their pieces."""

    start: int
    length: int
    digests: tuple[bytes, ...]


def describe(start: int, data: bytes) -> str:
    """The header of bytes that begin at `start` of their chunk."""
    found = b"".join(_digest(data[at : at + PIECE]) for at in range(0, len(data), PIECE))
    return f"{start}.{len(data)}.{base64.b64encode(found).decode()}"


def read_stretch(text: str) -> Stretch:
    """What a header says. Raises Malformed when it leaves the chunk or does not fit itself."""
    found = _FORM.match(text)
    if found is None:
        raise _malformed()
    start, length = int(found[1]), int(found[2])
    try:
        joined = base64.b64decode(found[3], validate=True)
    except binascii.Error:
        raise _malformed() from None
    count = -(-length // PIECE)
    if not length or start + length > CHUNK or len(joined) != count * _DIGEST:
        raise _malformed()
    digests = tuple(joined[at : at + _DIGEST] for at in range(0, len(joined), _DIGEST))
    return Stretch(start, length, digests)


class Proving:
    """Takes the bytes of a stretch as they come and gives out those that are proved."""

    def __init__(self, stretch: Stretch) -> None:
        self._stretch = stretch
        self._held = bytearray()
        self._pieces = self._came = 0

    @property
    def is_whole(self) -> bool:
        """All of it came and is right."""
        return self._pieces == len(self._stretch.digests)

    def feed(self, data: bytes) -> bytes:
        """The bytes that are proved by now and were not given out before. Raises Spoiled."""
        self._held += data
        self._came += len(data)
        if self._came > self._stretch.length:
            raise _spoiled()
        ready = bytearray()
        while self._held and not self.is_whole:
            is_last = self._pieces == len(self._stretch.digests) - 1
            wanted = self._stretch.length - self._pieces * PIECE if is_last else PIECE
            if len(self._held) < wanted:
                break
            piece = bytes(self._held[:wanted])
            if _digest(piece) != self._stretch.digests[self._pieces]:
                if ready:
                    # What is right before it is kept; the next call comes to this piece again.
                    break
                raise _spoiled()
            del self._held[:wanted]
            ready += piece
            self._pieces += 1
        return bytes(ready)


def _digest(piece: bytes) -> bytes:
    return blake2b(piece, digest_size=_DIGEST).digest()


def _malformed() -> Malformed:
    return Malformed(
        f"{HEADER} says where in the chunk the bytes begin, how many they are and their digests.",
        code="blob.pieces",
    )


def _spoiled() -> Spoiled:
    return Spoiled(
        "Bytes of this file did not arrive as they were sent. Ask where to go on and send them again.",
        code="blob.spoiled",
    )
