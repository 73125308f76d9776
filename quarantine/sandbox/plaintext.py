"""The plaintext of a file while it is looked at; gone afterwards, whatever happens.

Where the scratch folder is memory it lies in memory of no name, which the kernel seals when it is
whole: from then on nobody can change a byte of it, the child that examines it included, so that its
hash may be taken at any time. Else it is a file in the scratch folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import AsyncIterable, AsyncIterator
from io import FileIO
from pathlib import Path

from quarantine.store.disk import write_all

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MEMORY = frozenset(("tmpfs", "ramfs"))
_MOUNTS = Path("/proc/self/mounts")
Piece = bytes | bytearray | memoryview


@contextlib.asynccontextmanager
async def lay_out(
    scratch: Path, name: str, pieces: AsyncIterable[Piece], *, size: int
) -> AsyncIterator[Path]:
    """Where the bytes can be opened for reading. Raises OSError when `size` finds no room."""
    if await asyncio.to_thread(_is_memory, scratch):
        space = os.statvfs(scratch)
        if space.f_bavail * space.f_frsize < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        descriptor = os.memfd_create("plaintext", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            await _pour(pieces, file)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            yield Path(f"/proc/self/fd/{descriptor}")
        return
    path = scratch / name
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            await _pour(pieces, file)
        yield path
    finally:
        path.unlink(missing_ok=True)


async def _pour(pieces: AsyncIterable[Piece], file: FileIO) -> None:
    """Write each piece in a thread while the next one is made ready."""
    writing: asyncio.Task[None] | None = None
    try:
        async for piece in pieces:
            if writing is not None:
                await writing
            writing = asyncio.create_task(asyncio.to_thread(write_all, file.fileno(), piece))
        if writing is not None:
            await writing
    finally:
        if writing is not None and not writing.done():
            # A thread cannot be stopped, and must not write where another file is by then.
            await asyncio.wait({writing})


def is_sealed(path: Path) -> bool:
    """Whether nobody can change these bytes any more."""
    with path.open("rb") as file, contextlib.suppress(OSError):
        return fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    return False


def _is_memory(folder: Path) -> bool:
    """Whether what is written there stays in memory, by the mount that it lies on."""
    where = folder.resolve()
    best, kind = -1, ""
    for line in _MOUNTS.read_text().splitlines():
        _, point, sort, *_ = line.split(" ")
        mount = Path(point.replace("\\040", " "))
        if len(mount.parts) >= best and where.is_relative_to(mount):
            best, kind = len(mount.parts), sort
    return kind in _MEMORY
