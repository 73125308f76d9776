"""The file that is carried between nodes which have no line: messages in order, and a signature.

    magic | (length u32 | message)... | 0 u32 | Ed25519 over the SHA-256 of all before

Promises: nothing of a file is believed before all of it was read and its signature fits a key that
this node knows; what is read later is what was proved; no length in it makes room on its word.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import BinaryIO
from uuid import UUID

from appliance.base.errors import Malformed, TooLarge, Unauthenticated
from appliance.sync import messages as say
from appliance.sync.keys import NodeKey, is_signed

MAGIC = b"NEXUS-CARRIER-1\n"
PART_BYTES_MAX = 16 << 20
FILE_BYTES_MAX = 1 << 30
_LENGTH = Struct(">I")
_SIGNATURE = 64


class Head(say.Message, frozen=True):
    """Who made the file for whom, about which tenant."""

    node: UUID
    name: str
    peer: UUID
    tenant: UUID
    from_hub: bool
    made_ms: int


class Sealed:
    """A file whose bytes are whole. `prove` before anything else is read."""

    def __init__(self, file: BinaryIO) -> None:
        """Read it through once. Raises Malformed, TooLarge."""
        self._file = file
        self._parts: list[tuple[int, int, bytes]] = []
        whole = sha256()
        if file.read(len(MAGIC)) != MAGIC:
            raise _broken("it does not begin like one")
        whole.update(MAGIC)
        at = len(MAGIC)
        while True:
            head = file.read(_LENGTH.size)
            if len(head) != _LENGTH.size:
                raise _broken("it ends too early")
            whole.update(head)
            at += len(head)
            (length,) = _LENGTH.unpack(head)
            if not length:
                break
            if length > PART_BYTES_MAX or at + length > FILE_BYTES_MAX:
                raise TooLarge("This file is larger than any node makes.", code="carrier.size")
            body = file.read(length)
            if len(body) != length:
                raise _broken("it ends too early")
            whole.update(body)
            self._parts.append((at, length, sha256(body).digest()))
            at += length
        self.digest = whole.digest()
        self.signature = file.read(_SIGNATURE + 1)
        if len(self.signature) != _SIGNATURE or not self._parts:
            raise _broken("it ends wrongly")
        self.head = say.decode(self._read(0), Head)

    def prove(self, public: bytes) -> None:
        """Raises Unauthenticated unless this key has signed the file."""
        if not is_signed(public, self.signature, self.digest):
            raise Unauthenticated(
                f"The file is not signed by node {self.head.name}: it was changed on its way, or "
                "made by another.",
                code="carrier.forged",
            )

    @property
    def count(self) -> int:
        """How many messages there are behind the head."""
        return len(self._parts) - 1

    def messages(self) -> Iterator[bytes]:
        """The messages behind the head, each as it was proved."""
        for n in range(1, len(self._parts)):
            yield self._read(n)

    def _read(self, number: int) -> bytes:
        at, length, digest = self._parts[number]
        self._file.seek(at)
        body = self._file.read(length)
        if sha256(body).digest() != digest:
            raise _broken("it changed while it was read")
        return body


async def write_sealed(
    path: Path, head: Head, messages: AsyncIterator[say.Message], key: NodeKey
) -> int:
    """Write a file, whole or not at all, readable by its owner only; how many messages it holds."""
    whole, count = sha256(), 0
    partial = path.with_name(f".{path.name}.part")
    try:
        with os.fdopen(
            os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb"
        ) as file:

            def put(data: bytes) -> None:
                whole.update(data)
                file.write(data)

            put(MAGIC)
            begin = say.encode(head)
            put(_LENGTH.pack(len(begin)) + begin)
            async for message in messages:
                body = say.encode(message)
                put(_LENGTH.pack(len(body)) + body)
                count += 1
            put(_LENGTH.pack(0))
            file.write(key.sign(whole.digest()))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _broken(why: str) -> Malformed:
    return Malformed(f"This is no file of a node: {why}.", code="carrier.broken")
