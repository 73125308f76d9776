"""The drop box of one credential: what a client sends in parts, kept until it is taken over.

1C's protocol has no part numbers: it appends under a name, and sends a part again when the answer
was lost (research/connectors 3). A part is kept with its size and hash, so the very same part at
the end is recognised instead of being appended twice. Names are opaque: none is ever a path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from uuid import UUID

import msgspec

from appliance.base.errors import Invalid, StorageFull, TooLarge
from appliance.base.ids import uuid7
from appliance.channels import feeds as channels
from appliance.intake.files import forget_tenant

FOLDER = "exchange"
NAMES_MAX = 2_000
NAME_CHARS_MAX = 400
_PIECE = 1 << 20
_NAME = "name"


class Part(msgspec.Struct, frozen=True):
    """One part of a file as it stands in the box."""

    path: Path
    size: int


class Drop(msgspec.Struct, frozen=True):
    """One file of the box: its name as the client gave it, its parts in order."""

    name: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(p.size for p in self.parts)

    @property
    def is_archive(self) -> bool:
        """Whether it came as the archive that holds the files which are named later."""
        return self.name.lower().endswith(".zip")


class Box:
    """The files of one session and sort of exchange (`catalog`, `sale`) on this node's disk."""

    def __init__(self, data_dir: Path, tenant: UUID, session: UUID, sort: str) -> None:
        self._place = data_dir / FOLDER / tenant.hex / f"{session.hex}.{sort}"

    async def append(self, name: str, pieces: AsyncIterable[bytes], *, most: int) -> None:
        """Keep one part on disk. Raises TooLarge when the box would pass `most` bytes, Invalid,
        StorageFull; nothing is left of a part that did not arrive whole.
        """
        if not 0 < len(name) <= NAME_CHARS_MAX:
            raise Invalid(f"A file's name has 1 to {NAME_CHARS_MAX} characters.")
        folder = self._folder(name)
        before = sum(d.size for d in self.drops())
        try:
            self._open(folder, name)
            draft = folder / f".{uuid7().hex}"
            try:
                size, digest = await _write(draft, pieces, room=most - before)
                parts = _parts(folder)
                again = parts and parts[-1].path.name.split("-")[1:] == [str(size), digest]
                if size and not again:
                    draft.rename(folder / f"{len(parts):06d}-{size}-{digest}")
                    _sync(folder)
            finally:
                draft.unlink(missing_ok=True)
        except ConnectionError:
            # Of whoever sends; the disk has no part in it.
            raise
        except OSError as error:
            raise StorageFull(
                "The part could not be stored on this node; free space and repeat.",
                dependency="disk",
            ) from error

    def drops(self) -> list[Drop]:
        """Everything in the box, in the order of the names' first parts."""
        if not self._place.is_dir():
            return []
        folders = [f for f in self._place.iterdir() if (f / _NAME).is_file()]
        folders.sort(key=lambda f: (f / _NAME).stat().st_mtime_ns)
        return [d for f in folders if (d := Drop((f / _NAME).read_text(), _parts(f))).parts]

    def find(self, name: str) -> Drop | None:
        """The file of this name, or else the archive that must hold it."""
        drops = self.drops()
        exact = next((d for d in drops if d.name == name), None)
        return exact or next((d for d in reversed(drops) if d.is_archive), None)

    def remove(self, drop: Drop) -> None:
        """Forget a file that was taken over."""
        shutil.rmtree(self._folder(drop.name), ignore_errors=True)

    def clear(self) -> None:
        """Forget everything: the client begins anew."""
        shutil.rmtree(self._place, ignore_errors=True)

    def _folder(self, name: str) -> Path:
        return self._place / hashlib.sha256(name.encode()).hexdigest()[:32]

    def _open(self, folder: Path, name: str) -> None:
        if not folder.is_dir():
            if self._place.is_dir() and sum(1 for _ in self._place.iterdir()) >= NAMES_MAX:
                raise TooLarge(f"An exchange has at most {NAMES_MAX} files; begin it anew.")
            folder.mkdir(mode=0o700, parents=True)
            (folder / _NAME).write_text(name)


async def read_drop(drop: Drop) -> AsyncIterator[bytes]:
    """The bytes of a file, its parts joined."""
    for part in drop.parts:
        with part.path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece


def forget_here(data_dir: Path, tenant: UUID) -> None:
    """Remove what this node's disk holds of a tenant's imports and feeds; may be repeated. Raises
    Unavailable.
    """
    channels.forget_tenant(data_dir, tenant)
    shutil.rmtree(data_dir / FOLDER / tenant.hex, ignore_errors=True)
    forget_tenant(data_dir, tenant)


def forget_left(data_dir: Path, *, days: int) -> int:
    """Remove boxes that nobody has put anything into for so long; how many."""
    since, gone = time.time() - days * 86_400, 0
    for place in (data_dir / FOLDER).glob("*/*"):
        newest = max((p.stat().st_mtime for p in (place, *place.rglob("*"))), default=0.0)
        if newest < since:
            shutil.rmtree(place, ignore_errors=True)
            gone += 1
    return gone


async def _write(draft: Path, pieces: AsyncIterable[bytes], *, room: int) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        async for piece in pieces:
            size += len(piece)
            if size > room:
                raise TooLarge("The exchange is larger than this node takes; send less at once.")
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def _parts(folder: Path) -> tuple[Part, ...]:
    found = sorted(p for p in folder.iterdir() if p.name[:1].isdigit())
    return tuple(Part(p, int(p.name.split("-")[1])) for p in found)


def _sync(folder: Path) -> None:
    """A part that was acknowledged is in its folder after a power cut too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
