"""Files that are there whole or not at all, and still there after the power went.

A file is written beside its name, flushed to the disk, renamed, and the folder is flushed too:
only then is anything acknowledged. obstore's local store renames but never calls fsync (seen in
its system calls), so durable writing is ours while reading and listing stay with obstore.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from quarantine.store.faults import NoSpace

KEEP_FREE = 64 * 1024 * 1024
"""Bytes of the disk that uploads leave to the ledger and to those who clean up."""

LOOK_EVERY = 16 * 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextlib.contextmanager
def saying_no_space(what: str) -> Iterator[None]:
    """Turn the system's "disk full" into `NoSpace`; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(what) from error
        raise


def require_space(folder: Path, coming: int, keep_free: int, what: str) -> None:
    """Raise `NoSpace` when `coming` bytes would leave less than `keep_free` in the folder."""
    found = os.statvfs(folder)
    if found.f_bavail * found.f_frsize - coming < keep_free:
        raise NoSpace(what)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte, as often as the system takes only some."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_folder(folder: Path) -> None:
    """Make names in the folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, closed to others, durably."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            each.mkdir(mode=0o700)
        sync_folder(each.parent)


def move(source: Path, target: Path) -> None:
    """Rename within one file system, durably on both sides; the source was flushed before."""
    make_folders(target.parent)
    source.rename(target)
    sync_folder(target.parent)
    sync_folder(source.parent)


class NewFile:
    """A file that appears under its name when `publish` returns, and leaves nothing otherwise.

    Its methods block and are meant for threads. A thread cannot be cancelled, so a lock keeps
    `discard` from closing the file under a write that is still running.
    """

    def __init__(self, path: Path, *, keep_free: int = KEEP_FREE) -> None:
        self._path, self._beside = path, path.with_name(path.name + ".part")
        self._keep_free, self._look_at, self._written = keep_free, 0, 0
        self._lock, self._open = threading.Lock(), True
        with saying_no_space(path.name):
            make_folders(path.parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._beside, flags, 0o600)

    def write(self, pieces: Iterable[bytes]) -> None:
        """Append pieces. Raises NoSpace, after which only `discard` makes sense."""
        with self._lock, saying_no_space(self._path.name):
            if not self._open:
                raise ValueError("the file was given up while a write was waiting")
            for piece in pieces:
                if self._written >= self._look_at:
                    require_space(self._path.parent, len(piece), self._keep_free, self._path.name)
                    self._look_at = self._written + LOOK_EVERY
                write_all(self._fd, piece)
                self._written += len(piece)

    def publish(self) -> None:
        """Flush the bytes, give the file its name, flush the name."""
        with self._lock, saying_no_space(self._path.name):
            os.fsync(self._fd)
            self._beside.rename(self._path)
            self._close()
            sync_folder(self._path.parent)

    def discard(self) -> None:
        """Leave nothing behind; harmless after `publish`."""
        with self._lock:
            if self._open:
                self._close()
                self._beside.unlink(missing_ok=True)

    def _close(self) -> None:
        self._open = False
        os.close(self._fd)
