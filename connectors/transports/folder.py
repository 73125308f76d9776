"""A folder of this machine, or of a share that is mounted here."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from connectors.sdk.retry import Trouble
from connectors.transports.contract import CHUNK, LIST_MAX, Entry, Listing, make_listing


class Folder:
    """See contract.Transport. Links are not followed: a drop box is written by others."""

    def __init__(self, folder: Path, *, may_move: bool = False) -> None:
        self._folder, self._may_move = folder, may_move

    def entries(self) -> Listing:
        """See contract.Transport."""
        try:
            found = [e for e in os.scandir(self._folder) if e.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            text = f"there is no folder {self._folder}; is the share mounted?"
            raise Trouble("folder-missing", text) from None
        if len(found) > LIST_MAX:
            raise Trouble("too-many-files", f"{len(found)} files in one folder", is_permanent=True)
        return make_listing([_entry(e.name, e.stat(follow_symlinks=False)) for e in found])

    def look(self, entry: Entry) -> Entry | None:
        """See contract.Transport."""
        try:
            return _entry(entry.name, (self._folder / entry.name).lstat())
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def open(self, entry: Entry) -> Iterator[Iterator[bytes]]:
        """See contract.Transport."""
        try:
            descriptor = os.open(self._folder / entry.name, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise Trouble("file-vanished", f"{entry.name} is not there any more") from None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Trouble("no-file", f"{entry.name} is no plain file", is_permanent=True)
            yield iter(lambda: file.read(CHUNK), b"")

    def put(self, name: str, content: bytes) -> None:
        """See contract.Transport."""
        draft, target = self._folder / f".{name}.part", self._folder / name
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link refuses a name that is taken, a rename would not.
            os.link(draft, target)
        except FileExistsError:
            if target.read_bytes() != content:
                raise Trouble(
                    "name-taken", f"another file {name} is there already", is_permanent=True
                ) from None
        finally:
            draft.unlink(missing_ok=True)

    def finish(self, entry: Entry, *, is_failed: bool) -> None:
        """See contract.Transport."""
        if not self._may_move:
            return
        target = self._folder / ("failed" if is_failed else "done")
        target.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (self._folder / entry.name).rename(_free(target, entry.name))

    def close(self) -> None:
        """See contract.Transport."""


def _entry(name: str, seen: os.stat_result) -> Entry:
    return Entry(name, seen.st_size, f"{seen.st_size}.{seen.st_mtime_ns}")


def _free(folder: Path, name: str) -> Path:
    """A name that nothing there has yet."""
    place = folder / name
    for n in range(1, 10_000):
        if not place.exists():
            return place
        place = folder / f"{n}-{name}"
    raise Trouble("name-taken", f"{name} is in {folder.name} ten thousand times", is_permanent=True)
