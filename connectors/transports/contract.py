"""What every way to files is: its entries, open, put, and say that a file is done with.

Transports block; whoever calls them does so in a thread. Every wait on the other side has a
timeout, so that none of them hangs for ever. What goes wrong is a sdk.retry.Trouble.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterator
from typing import Protocol

import msgspec

CHUNK = 1 << 18
WAIT_S = 30.0
NAME_MAX = 200
LIST_MAX = 100_000


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file of the other side.

    `stamp` changes when its content does. `is_settled`: it cannot be still growing. `size` is -1
    where it is not told. `facts`: what else is known of it (a mail's sender), as text.
    """

    name: str
    size: int = -1
    stamp: str = ""
    is_settled: bool = False
    facts: dict[str, str] = {}


class Listing(msgspec.Struct, frozen=True):
    """Files in the order of their names; `skipped`: names that no file here may have."""

    entries: tuple[Entry, ...]
    skipped: tuple[str, ...] = ()


class Transport(Protocol):
    """One open way. All raise sdk.retry.Trouble or OSError."""

    def entries(self) -> Listing:
        """What is there."""
        ...

    def open(self, entry: Entry) -> contextlib.AbstractContextManager[Iterator[bytes]]:
        """Its bytes, in pieces."""
        ...

    def look(self, entry: Entry) -> Entry | None:
        """How the file stands now; None when it is gone."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Leave a file whole or not at all; the same one twice is one, another one is refused."""
        ...

    def finish(self, entry: Entry, *, is_failed: bool) -> None:
        """Move it to `done` or `failed` beside, where the source says so."""
        ...

    def close(self) -> None:
        """End it; never raises."""
        ...


def is_safe_name(name: str) -> bool:
    """Whether a name of the other side is a plain file's: no path, no control or hidden mark."""
    return (
        0 < len(name) <= NAME_MAX
        and name[0] not in ".~"
        and not any(c in "/\\:" or unicodedata.category(c).startswith("C") for c in name)
    )


def make_listing(entries: list[Entry]) -> Listing:
    """The listing of what was found; what is still being written by its name is left out."""
    seen = [e for e in entries if not e.name.endswith((".part", ".tmp", ".filepart"))]
    good = [e for e in seen if is_safe_name(e.name)]
    bad = sorted(e.name for e in seen if not is_safe_name(e.name))
    return Listing(tuple(sorted(good, key=lambda e: e.name)), tuple(bad[:100]))
