"""An API as a source of files: all pages of one look are one file, fetched like any other.

What another system answers is read nowhere but in the child, after quarantine; here only cursors
are looked at. Where the next look begins is noted when the file was handed over, never before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

from connectors.formats.captured import Head, Page, write_capture
from connectors.sdk.retry import Trouble
from connectors.transports.contract import Entry, Listing


class Pages(Protocol):
    """What one look asks for."""

    @property
    def head(self) -> Head:
        """Which system, and what is asked for."""
        ...

    def ask(self) -> Iterator[Page]:
        """The pages, each asked when it is wanted. Raises Trouble; then nothing of it is kept.

        A page that repeats, or a cursor that leads back, ends it with a Trouble.
        """
        ...

    def marks(self) -> dict[str, str]:
        """Where the next look begins, once all pages were given."""
        ...

    def close(self) -> None:
        """End it; never raises."""
        ...


class Capture:
    """See contract.Transport. `known` is remembered between looks: the marks."""

    def __init__(self, pages: Pages, known: dict[str, str]) -> None:
        self._pages, self._known = pages, known
        self._is_whole = False

    def entries(self) -> Listing:
        """One file, always new: only its bytes show whether anything has changed."""
        name = f"{self._pages.head.system}.ndjson"
        return Listing((Entry(name, stamp=str(time.time_ns()), is_settled=True),))

    def look(self, entry: Entry) -> Entry | None:
        """The answers of one look are one version."""
        return entry

    @contextlib.contextmanager
    def open(self, entry: Entry) -> Iterator[Iterator[bytes]]:
        """See contract.Transport."""
        yield self._lines()

    def put(self, name: str, content: bytes) -> None:
        """Nothing can be put where one only asks."""
        raise Trouble("read-only", "this source is only read", is_permanent=True)

    def finish(self, entry: Entry, *, is_failed: bool) -> None:
        """Go on behind it, now that the node has it."""
        if self._is_whole and not is_failed:
            self._known.update(self._pages.marks())

    def close(self) -> None:
        """See contract.Transport."""
        self._pages.close()

    def _lines(self) -> Iterator[bytes]:
        self._is_whole = False
        yield from write_capture(self._pages.head, self._pages.ask())
        self._is_whole = True
