"""The node's own copy of a file that is imported: counted, hashed, kept under its hash.

What comes from outside is taken from the content plane, when it is released; the list that comes
with the program and the commands of tests bring theirs themselves.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import msgspec

from appliance.base.errors import Refused, StorageFull, TooLarge, Unavailable
from appliance.base.ids import uuid7

FOLDER = "intake"
BYTES_MAX = 512 << 20


class Received(msgspec.Struct, frozen=True):
    """A file by the hash of its bytes."""

    file: str
    size: int


async def receive(folder: Path, tenant: UUID, chunks: AsyncIterator[bytes]) -> Received:
    """Store a stream. Raises TooLarge, StorageFull; nothing is left of what did not arrive."""
    place = folder / FOLDER / tenant.hex
    draft = place / f".{uuid7().hex}"
    digest, size = hashlib.sha256(), 0
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _own_like(folder / FOLDER, place)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > BYTES_MAX:
                    raise TooLarge(f"A file for import has at most {BYTES_MAX} bytes.")
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        _own_like(place, draft)
        draft.rename(place / digest.hexdigest())
    except OSError as error:
        raise StorageFull(
            "The file could not be stored on this node; free space and repeat.", dependency="disk",
        ) from error  # fmt: skip
    finally:
        draft.unlink(missing_ok=True)
    return Received(digest.hexdigest(), size)


def _own_like(parent: Path, path: Path) -> None:
    """A command of root leaves nothing behind that the node's own account cannot read."""
    owner = parent.stat()
    if os.geteuid() == 0 and owner.st_uid != path.stat().st_uid:
        os.chown(path, owner.st_uid, owner.st_gid)


def locate(folder: Path, tenant: UUID, file: str) -> Path:
    """The path of a received file. Raises Refused."""
    path = folder / FOLDER / tenant.hex / file
    if len(file) != 64 or not file.isalnum() or not path.is_file():
        raise Refused("There is no such file for you.", code="intake.file_unknown")
    return path


def has(folder: Path, tenant: UUID, file: str) -> bool:
    """Whether the node has a copy of it."""
    return (folder / FOLDER / tenant.hex / file).is_file()


def forget_tenant(folder: Path, tenant: UUID) -> None:
    """Remove the node's copies of all files of a tenant that is erased; may be repeated."""
    place = folder / FOLDER / tenant.hex
    try:
        shutil.rmtree(place)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unavailable(
            f"The node's copies of imported files cannot be removed ({error.strerror}); run this as "
            "the user who starts the node.", dependency="disk",
        ) from error  # fmt: skip
