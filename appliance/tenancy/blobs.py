"""The bytes of files on their way through an archive: the parts of them, and what they add up to.

The content plane has the bytes under the file's id. A file whose bytes could not be had is in the
archive by name, so that nobody takes its absence for an empty file.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from uuid import UUID

import msgspec


class Fault(StrEnum):
    """Why the bytes of a file are not in an archive: the plane has not all of them, or an engine
    rejected them, and then nobody gets them.
    """

    MISSING = "missing"
    REJECTED = "rejected"


class BlobStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bytes of this file follow; name, extensions and bytes_max are what it was checked by."""

    id: UUID
    name: str = ""
    extensions: tuple[str, ...] = ()
    bytes_max: int = 0


class BlobEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was sent of a file: `sha256` is hexadecimal. With a fault the bytes are not whole."""

    id: UUID
    size: int = 0
    sha256: str = ""
    fault: Fault | None = None


class FileSums(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files with all their bytes, and those without. `sha256` is over a line for each of the first,
    `id size sha256`, in their order.
    """

    count: int
    bytes: int
    sha256: str
    missing: tuple[UUID, ...] = ()
    rejected: tuple[UUID, ...] = ()


class Tally:
    """Adds up what passes by; what came whole at last is not missing."""

    def __init__(self) -> None:
        self._count = self._bytes = 0
        self._lines = hashlib.sha256()
        self._faults: dict[UUID, Fault] = {}
        self.is_any = False

    def take(self, end: BlobEnd) -> None:
        """One file more."""
        self.is_any = True
        if end.fault is not None:
            self._faults[end.id] = end.fault
            return
        self._faults.pop(end.id, None)
        self._count += 1
        self._bytes += end.size
        self._lines.update(f"{end.id} {end.size} {end.sha256}\n".encode())

    def sums(self) -> FileSums:
        """What it came to."""
        faults = self._faults.items()
        return FileSums(
            self._count, self._bytes, self._lines.hexdigest(),
            tuple(i for i, f in faults if f is Fault.MISSING),
            tuple(i for i, f in faults if f is Fault.REJECTED),
        )  # fmt: skip
