"""Uploads in parts for weak links: what was acknowledged is never asked for again.

The storage side of the tus protocol (1.0, with its checksum extension): `start` says the size,
`look` the durable offset (HEAD), `append` takes a part from an offset (PATCH), `finish` makes a
blob of it. A restart of the process loses nothing that was acknowledged. One rule is added: a part
that is sent again, because its acknowledgement was lost, is compared with what is held; the same
bytes are fine, other bytes mean that the file is being edited, and are refused.

The opening fields bind an upload to its tenant: another tenant's key opens none of it.
"""

from __future__ import annotations

import asyncio
import hmac
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import msgspec

from quarantine.store.faults import (
    Changed,
    Incomplete,
    Missing,
    Spoiled,
    StoreFault,
    TooLarge,
    WrongOffset,
)  # fmt: skip
from quarantine.store.incoming import BRIEF, CONTENT, LASTING, Incoming, Received
from quarantine.store.journal import FRAME_BYTES_MAX, Frames, Journal, Opening, begin, read_opening
from quarantine.store.keys import TenantKey
from quarantine.store.threads import to_the_end

PARTS = "upload"
_REMEMBERED = 64


class Progress(msgspec.Struct, frozen=True):
    """How much of an upload is durable, in bytes; `touched` is when the last of it came (epoch)."""

    blob: UUID
    offset: int
    size: int
    touched: float


class Uploads:
    """Open uploads in the folder of `incoming`; swept there when nothing comes for an hour, or for
    a month where they come from another node.
    """

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._known: OrderedDict[UUID, Frames] = OrderedDict()

    async def start(
        self, blob: UUID, tenant_key: TenantKey, *, size: int, sha256: str = "",
        lasting: bool = False,
    ) -> Progress:  # fmt: skip
        """Open an upload of `size` bytes. `sha256` (hex), when the sender knows it, is checked at
        the end. The limit of the place for files is the caller's to check. Raises NoSpace.
        """
        path = self._incoming.folder / f"{blob.hex}{LASTING if lasting else BRIEF}"
        opening = Opening(
            blob=blob, tenant=tenant_key.tenant, size=size, sha256=sha256.lower(),
            journal_key=tenant_key.make_key(PARTS, blob)[1],
            content_key=tenant_key.make_key(CONTENT, blob)[1],
        )  # fmt: skip
        await asyncio.to_thread(begin, path, opening, self._incoming.keep_free)
        return Progress(blob, 0, size, time.time())

    async def look(self, blob: UUID, tenant_key: TenantKey) -> Progress:
        """Where to go on. Raises Missing, Busy (a part is being written just now)."""
        journal = await self._open(blob, tenant_key)
        try:
            return _progress(journal)
        finally:
            self._close(journal)

    async def append(
        self, blob: UUID, tenant_key: TenantKey, offset: int, pieces: AsyncIterable[bytes], *,
        crc32: int | None = None,
    ) -> Progress:  # fmt: skip
        """Take a part that begins at `offset`; its bytes are on the disk when this returns.

        Raises WrongOffset (begins past what is held), Changed (comes again with other bytes),
        TooLarge, NoSpace, Busy, Missing. With `crc32` the part counts as a whole or not at all
        (Spoiled); without it a connection that ends leaves what came until then.
        """
        journal = await self._open(blob, tenant_key)
        try:
            part = _Part(journal, offset, crc32, self._incoming.keep_free)
            await _fill(part, pieces)
            return _progress(journal)
        finally:
            self._close(journal)

    async def finish(self, blob: UUID, tenant_key: TenantKey) -> Received:
        """Make a sealed blob of all parts; the parts stay until `discard`.

        May be repeated, after a crash too, and gives the same each time. Raises Incomplete, and
        Changed when the sender had said another SHA-256; that upload is then gone.
        """
        journal = await self._open(blob, tenant_key)
        try:
            opening = journal.opening
            if journal.frames.offset < opening.size:
                raise Incomplete(blob, journal.frames.offset, opening.size)
            received = await self._incoming.receive(
                blob, tenant_key, _read_again(journal), limit=opening.size,
                wrapped_key=opening.content_key,
            )  # fmt: skip
        finally:
            self._close(journal)
        if opening.sha256 and not hmac.compare_digest(received.sha256, opening.sha256):
            await self._incoming.discard(blob)
            await self.discard(blob)
            raise Changed(blob)
        return received

    async def discard(self, blob: UUID) -> None:
        """Forget an upload: it was finished and is in the ledger, or is not wanted any more."""
        self._known.pop(blob, None)
        await asyncio.to_thread(self._path(blob).unlink, missing_ok=True)

    def _path(self, blob: UUID) -> Path:
        lasting = self._incoming.folder / f"{blob.hex}{LASTING}"
        return lasting if lasting.exists() else lasting.with_suffix(BRIEF)

    async def _open(self, blob: UUID, tenant_key: TenantKey) -> Journal:
        """Open and hold an upload's file; let go of it when the asker is gone meanwhile."""
        return await to_the_end(partial(self._open_now, blob, tenant_key), Journal.close)

    def _open_now(self, blob: UUID, tenant_key: TenantKey) -> Journal:
        opening = read_opening(self._path(blob), blob)
        if opening.tenant != tenant_key.tenant:
            raise Missing(f"Upload {blob}")
        key = tenant_key.open_key(PARTS, blob, opening.journal_key)
        return Journal(self._path(blob), opening, key, self._known.pop(blob, None))

    def _close(self, journal: Journal) -> None:
        """Let the next one in, and remember where the frames lie."""
        self._known[journal.opening.blob] = journal.frames
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        journal.close()


class _Part:
    """One part on its way into the journal. Its methods run in threads, one after another.

    A thread that runs goes on when the request that began it is cancelled; the lock lets
    `break_off` wait for it.
    """

    def __init__(self, journal: Journal, offset: int, crc32: int | None, keep_free: int) -> None:
        if offset < 0 or offset > journal.frames.offset:
            raise WrongOffset(journal.opening.blob, journal.frames.offset)
        self._journal, self._at, self._expected = journal, offset, crc32
        self._held, self._keep_free, self._crc = journal.frames.offset, keep_free, 0
        self._lock, self._over = threading.Lock(), False

    def take(self, pieces: list[bytes]) -> None:
        with self._lock:
            if not self._over:
                self._take(b"".join(pieces), closes=self._expected is None)

    def end(self, pieces: list[bytes]) -> None:
        """The rest of the part; then its checksum decides."""
        with self._lock:
            if self._over:
                return
            data = b"".join(pieces)
            if self._expected not in (None, zlib.crc32(data, self._crc)):
                raise Spoiled(self._journal.opening.blob, self._held)
            self._take(data, closes=True)
            self._journal.close_frames()
            self._journal.sync()
            self._over = True

    def break_off(self, pieces: list[bytes]) -> None:
        """The part ends early: keep what came of an unchecked one, nothing of a checked one."""
        with self._lock:
            if self._over:
                return
            self._over = True
            try:
                if self._expected is None:
                    self._take(b"".join(pieces), closes=True)
            except StoreFault:
                pass  # the reason why the part ended is being raised already
            finally:
                self._journal.give_up_open_frames()

    def _take(self, data: bytes, *, closes: bool) -> None:
        journal, view = self._journal, memoryview(data)
        if self._at + len(view) > journal.opening.size:
            raise TooLarge(journal.opening.size)
        if self._expected is not None:
            self._crc = zlib.crc32(view, self._crc)
        repeated = max(0, min(len(view), self._held - self._at))
        at = 0
        for held in journal.plain(self._at, self._at + repeated):
            if held != view[at : at + len(held)]:
                raise Changed(journal.opening.blob)
            at += len(held)
        if at < len(view):
            journal.require_space(len(view) - at, self._keep_free)
        for start in range(at, len(view), FRAME_BYTES_MAX):
            journal.add(view[start : start + FRAME_BYTES_MAX], closes=closes)
        self._at += len(view)


async def _fill(part: _Part, pieces: AsyncIterable[bytes]) -> None:
    """Gather and hand over; when it ends early, settle what may stay before anything else."""
    gathered: list[bytes] = []
    held = 0
    try:
        async for piece in pieces:
            gathered.append(piece)
            held += len(piece)
            if held >= FRAME_BYTES_MAX:
                now, gathered, held = gathered, [], 0
                await asyncio.to_thread(part.take, now)
        now, gathered = gathered, []
        await asyncio.to_thread(part.end, now)
    except BaseException:
        await to_the_end(partial(part.break_off, gathered))
        raise


def _progress(journal: Journal) -> Progress:
    opening = journal.opening
    return Progress(opening.blob, journal.frames.offset, opening.size, journal.touched)


async def _read_again(journal: Journal) -> AsyncIterator[bytes]:
    """All bytes of an upload, about a mebibyte at a time."""
    held = journal.plain(0, journal.opening.size)
    while piece := await asyncio.to_thread(_gather, held):
        yield piece


def _gather(held: Iterator[memoryview]) -> bytes:
    got, length = [], 0
    for piece in held:
        got.append(piece)
        length += len(piece)
        if length >= FRAME_BYTES_MAX:
            break
    return b"".join(got)
