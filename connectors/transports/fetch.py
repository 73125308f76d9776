"""One file of the other side onto this disk: bounded, hashed, and whole or not at all."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import msgspec

from connectors.sdk.retry import Trouble
from connectors.transports.contract import Entry, Transport

BYTES_MAX = 512 << 20


class Fetched(msgspec.Struct, frozen=True):
    """A file that arrived."""

    path: Path
    size: int
    sha256: str


def fetch(
    transport: Transport, entry: Entry, folder: Path, *,
    bytes_max: int = BYTES_MAX, deadline_s: float = 600.0,
) -> Fetched:  # fmt: skip
    """Copy it. What grew, shrank or went away meanwhile is a transient Trouble and leaves nothing.

    `deadline_s` bounds the whole transfer, however slowly its bytes trickle.
    """
    if entry.size > bytes_max:
        raise _too_large(entry, bytes_max)
    end = time.monotonic() + deadline_s
    draft = folder / f".{os.getpid()}.{hashlib.sha256(entry.name.encode()).hexdigest()[:16]}.part"
    digest, size = hashlib.sha256(), 0
    try:
        with transport.open(entry) as chunks, draft.open("wb") as file:
            for chunk in chunks:
                size += len(chunk)
                if size > bytes_max:
                    raise _too_large(entry, bytes_max)
                if time.monotonic() > end:
                    raise Trouble("timeout", f"{entry.name} took more than {deadline_s:.0f} s")
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        _check_whole(transport, entry, size)
        target = folder / digest.hexdigest()
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return Fetched(target, size, digest.hexdigest())


def _check_whole(transport: Transport, entry: Entry, size: int) -> None:
    if entry.size >= 0 and size != entry.size:
        raise Trouble("truncated", f"{entry.name}: {entry.size} bytes were told, {size} came")
    now = transport.look(entry)
    if now is None:
        raise Trouble("file-vanished", f"{entry.name} went away while it was read")
    if now.stamp != entry.stamp:
        raise Trouble("file-grows", f"{entry.name} changed while it was read")


def _too_large(entry: Entry, bytes_max: int) -> Trouble:
    text = f"{entry.name} has more than {bytes_max} bytes"
    return Trouble("file-too-large", text, is_permanent=True)
