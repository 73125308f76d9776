"""The rule packs that this plane is to scan with, as their folder has them now.

A folder is read again only when it changed. What the packs say goes into the sandbox by the same
folder and the same keys: `variables` is its environment, `folder` what it has to see of the disk.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from quarantine.rules.pack import (
    FOLDER_VARIABLE,
    KEYS_VARIABLE,
    PackError,
    ids_of,
    load_configured,
)


class Delivered:
    """`folder` empty: the program's own pack alone; `keys` in hexadecimal, split by commas."""

    def __init__(self, folder: str, keys: str) -> None:
        self.folder = Path(folder).absolute() if folder.strip() else None
        given = {FOLDER_VARIABLE: str(self.folder or ""), KEYS_VARIABLE: keys}
        self.variables = {name: text for name, text in given.items() if text}
        self._seen: tuple[tuple[str, int, int, int], ...] | None = None
        self._ids = ""

    async def ids(self) -> str:
        """Which packs count now. Raises PackError when one cannot be used: then none is."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> str:
        seen = self._signs()
        if seen is None or seen != self._seen:
            self._ids = ids_of(load_configured(self.variables))
            self._seen = seen
        return self._ids

    def _signs(self) -> tuple[tuple[str, int, int, int], ...] | None:
        """What changes with the folder's content; None when there is no folder where one should be."""
        if self.folder is None:
            return ()
        if not self.folder.is_dir():
            return None
        try:
            found = [(path.name, path.stat()) for path in sorted(self.folder.glob("*.pack"))]
        except OSError as fault:
            raise PackError(f"{self.folder} cannot be read: {fault.strerror}.") from fault
        return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in found)
