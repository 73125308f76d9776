"""Where bytes wait while their hash is not known: sealed files of this machine's disk.

A blob's address follows from the hash of all its bytes, so they are sealed into `incoming/<blob>`
first and taken to their place when they are whole. Also for a bucket: a finished file is uploaded
once under its final address, nothing half is ever in the bucket and nothing is copied within it.
Plaintext touches no disk here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Collection
from functools import partial
from pathlib import Path
from uuid import UUID

import msgspec

from quarantine.contract import LASTING_S, UPLOAD_S
from quarantine.store.disk import KEEP_FREE, NewFile, make_folders, sync_folder
from quarantine.store.faults import TooLarge
from quarantine.store.keys import TenantKey
from quarantine.store.sealed import CHUNK, Sealer
from quarantine.store.threads import to_the_end

ABANDONED_SECONDS = UPLOAD_S
CONTENT = "content"
# How the files of uploads in parts are called: of a person, and of another node.
BRIEF, LASTING = ".upload", ".lasting"


class Received(msgspec.Struct, frozen=True):
    """A blob that came in whole. `sha256` is hex, `size` the plaintext's bytes.

    `wrapped_key` is what the ledger keeps and forgets to erase it; `mark` finds duplicates.
    """

    blob: UUID
    tenant: UUID
    sha256: str
    size: int
    mark: str
    wrapped_key: bytes


class Incoming:
    """The folder of what is coming in. Each blob id is used once."""

    def __init__(self, folder: Path, *, keep_free: int = KEEP_FREE) -> None:
        make_folders(folder)
        self.folder, self.keep_free = folder, keep_free

    def path_of(self, blob: UUID) -> Path:
        """The sealed file of a blob that is whole and not yet taken to its place."""
        return self.folder / blob.hex

    async def receive(
        self, blob: UUID, tenant_key: TenantKey, pieces: AsyncIterable[bytes], *, limit: int,
        wrapped_key: bytes | None = None,
    ) -> Received:  # fmt: skip
        """Seal, hash and count bytes while they stream in; durable when it returns.

        Raises TooLarge past `limit` bytes, NoSpace, and whatever `pieces` raises (a connection
        that ends); nothing is kept then. With `wrapped_key` the bytes must be those that this key
        sealed before, if it sealed any.
        """
        if wrapped_key is None:
            if self.path_of(blob).exists():
                raise ValueError("that blob id came in already; each id is used once")
            key, wrapped_key = tenant_key.make_key(CONTENT, blob)
        else:
            key = tenant_key.open_key(CONTENT, blob, wrapped_key)
        sealer = Sealer(blob, key)
        make = partial(NewFile, self.path_of(blob), keep_free=self.keep_free)
        file = await to_the_end(make, NewFile.discard)
        try:
            await _pour(pieces, sealer, file, limit)
            remove = partial(self._remove, [self.path_of(blob)])
            await to_the_end(partial(_finish, sealer, file), lambda _: remove())
        finally:
            await to_the_end(file.discard)
        digest = sealer.sha256
        return Received(
            blob=blob, tenant=tenant_key.tenant, sha256=digest.hex(), size=sealer.size,
            mark=tenant_key.mark(digest), wrapped_key=wrapped_key,
        )  # fmt: skip

    async def discard(self, blob: UUID) -> None:
        """Remove a sealed file that is not wanted: a duplicate, or a refused one."""
        await asyncio.to_thread(self._remove, [self.path_of(blob)])

    async def sweep(
        self, keep: Collection[UUID], *, older_than: float = ABANDONED_SECONDS
    ) -> list[str]:
        """Remove what nothing was written to for `older_than` seconds; the names removed.

        `keep` are the blobs that the ledger knows as whole and that wait to be taken.
        """
        return await asyncio.to_thread(self._sweep, {b.hex for b in keep}, older_than)

    def _sweep(self, keep: set[str], older_than: float) -> list[str]:
        now, old = time.time(), []
        for path in self.folder.iterdir():
            before = now - (LASTING_S if path.suffix == LASTING else older_than)
            try:
                if path.is_file() and path.name not in keep and path.stat().st_mtime < before:
                    old.append(path)
            except FileNotFoundError:
                continue
        self._remove(old)
        return sorted(p.name for p in old)

    def _remove(self, paths: list[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            sync_folder(self.folder)


async def _pour(pieces: AsyncIterable[bytes], sealer: Sealer, file: NewFile, limit: int) -> None:
    """Gather about a chunk, and seal and write it in a thread while the next one is gathered."""
    gathered: list[bytes] = []
    held = total = 0
    writing: asyncio.Task[None] | None = None
    try:
        async for piece in pieces:
            total += len(piece)
            if total > limit:
                raise TooLarge(limit)
            gathered.append(piece)
            held += len(piece)
            if held >= CHUNK:
                if writing is not None:
                    await writing
                writing = asyncio.create_task(asyncio.to_thread(_seal, gathered, sealer, file))
                gathered, held = [], 0
        if writing is not None:
            await writing
        await asyncio.to_thread(_seal, gathered, sealer, file)
    finally:
        if writing is not None and not writing.done():
            await asyncio.wait({writing})
        if writing is not None and writing.done() and not writing.cancelled():
            writing.exception()  # seen here, raised above where it was awaited


def _seal(gathered: list[bytes], sealer: Sealer, file: NewFile) -> None:
    for piece in gathered:
        file.write(sealer.feed(piece))


def _finish(sealer: Sealer, file: NewFile) -> None:
    file.write(sealer.close())
    file.publish()
