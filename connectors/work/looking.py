"""One source: look, fetch what is whole and new, give it to the node, note that it was taken.

A kill at any instruction brings a file twice at the most, never not at all; the node knows it by
its hash. A source that fails rests, and holds up no other one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from connectors.sdk.retry import Breaker, Trouble, as_trouble, retry, wait_before
from connectors.transports.contract import Entry, Listing, Transport
from connectors.transports.fetch import Fetched, fetch
from connectors.transports.places import open_place
from connectors.transports.polls import Book, find_ready, note_taken, read_book, write_book
from connectors.work.node import Node
from connectors.work.settings import Source
from connectors.work.told import tell

_CLOSE_S = 5.0


async def watch(
    node: Node, source: Source, data: Path, *, looks: int = 0,
    now: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Look again and again; `looks` times when that is not 0. Only a cancel ends it."""
    breaker, tried = Breaker(), 0
    while not looks or tried < looks:
        tried += 1
        if breaker.allows(now()):
            trouble: Trouble | None = None
            try:
                await retry(lambda: look(node, source, data), source.retry)
            except Trouble as error:
                trouble = error
                tell("source.failed", source=source.key, code=error.code, detail=error.detail,
                     permanent=int(error.is_permanent))  # fmt: skip
            breaker.note(now(), trouble)
        if not looks or tried < looks:
            # Spread, so that many sources do not look in the same second.
            jitter = wait_before(source.retry, 0) * min(1.0, source.every_s / 10)
            await asyncio.sleep(source.every_s + (0 if looks else jitter))


async def look(node: Node, source: Source, data: Path) -> int:
    """One look; how many files were given to the node. Raises Trouble."""
    path = _book_of(data, source)
    book = read_book(path)
    transport: Transport | None = None
    given = 0
    try:
        transport = await asyncio.to_thread(open_place, source.place, book.known)
        listing = await asyncio.to_thread(transport.entries)
        for name in listing.skipped:
            tell("file.skipped", source=source.key, name=ascii(name)[:100])
        wanted = tuple(e for e in listing.entries if _matches(e.name, source.pattern))
        for entry in find_ready(book, Listing(wanted)):
            given += await _give(node, source, transport, entry, data=data, book=book)
        write_book(path, book)
    except OSError as error:
        raise as_trouble(error) from None
    finally:
        if transport is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await asyncio.to_thread(transport.close)
    return given


async def _give(
    node: Node, source: Source, transport: Transport, entry: Entry, *, data: Path, book: Book
) -> int:
    """One file to the node. What is wrong with this file alone holds up no other one."""
    fetched: Fetched | None = None
    is_failed = False
    try:
        fetched = await asyncio.to_thread(
            fetch, transport, entry, data / "in", bytes_max=source.bytes_max,
            deadline_s=source.retry.deadline_s,
        )  # fmt: skip
        # Of the same name with the same bytes: only its date is new.
        if book.hashes.get(entry.name) != fetched.sha256:
            run = await _start(node, source, entry, fetched)
            tell("file.given", source=source.key, run=str(run), bytes=fetched.size)
    except Trouble as trouble:
        if not trouble.is_permanent or trouble.code.startswith(("session.", "access.", "http-40")):
            raise
        is_failed = True
        tell("file.failed", source=source.key, code=trouble.code, detail=trouble.detail)
    finally:
        if fetched is not None:
            fetched.path.unlink(missing_ok=True)
    note_taken(book, entry, fetched.sha256 if fetched is not None else "")
    write_book(_book_of(data, source), book)
    await asyncio.to_thread(transport.finish, entry, is_failed=is_failed)
    return int(not is_failed)


async def _start(node: Node, source: Source, entry: Entry, fetched: Fetched) -> UUID:
    file = await node.bring(fetched.path, entry.name)
    return await node.start(source, file, entry.name)


def _book_of(data: Path, source: Source) -> Path:
    return data / "books" / f"{source.key}.json"


def _matches(name: str, pattern: str) -> bool:
    """Names compare as people see them: composed, whatever the case."""
    shown = unicodedata.normalize("NFC", name).casefold()
    return fnmatch.fnmatchcase(shown, unicodedata.normalize("NFC", pattern).casefold())
