"""One source: look, fetch what is whole and new, give it to the node, note that it was taken.

A kill at any instruction brings a file twice at the most, never not at all; the node knows it by
its source, name and hash. What is wrong with one file alone holds up no other one: it stays where
it is, and people see it at the node until they have it fetched again or put aside.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import unicodedata
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec

from connectors.sdk.retry import Trouble, as_trouble
from connectors.sdk.wire import FileWish
from connectors.transports.contract import Entry, Listing, Transport
from connectors.transports.fetch import Fetched, fetch
from connectors.transports.places import open_place
from connectors.transports.polls import Book, find_ready, note_taken, read_book, write_book
from connectors.work.address import hide
from connectors.work.lane import Lane
from connectors.work.node import Node
from connectors.work.settings import Source
from connectors.work.standing import Standing, ended, write_standing
from connectors.work.told import tell

_CLOSE_S = 5.0
# The node does not take the key: nothing is wrong with the file, nor with the source.
_KEY = ("session.", "access.", "http-401", "http-403")


class _Visit(msgspec.Struct, frozen=True):
    """One open place. `known`: what its transport remembered before."""

    node: Node
    source: Source
    data: Path
    book: Book
    known: dict[str, str]
    lane: Lane
    standing: Standing
    transport: Transport


async def look(
    node: Node, source: Source, data: Path, *,
    lane: Lane | None = None, standing: Standing | None = None,
) -> int:  # fmt: skip
    """One look; how many files were given to the node. Raises Trouble."""
    path = _book_of(data, source)
    book = read_book(path)
    known = dict(book.known)
    standing, lane = standing or Standing(), lane or Lane()
    given = 0
    async with _opened(source, book.known, lane) as transport:
        visit = _Visit(node, source, data, book, known, lane, standing, transport)
        wanted = await _list(visit)
        ready = find_ready(book, Listing(tuple(wanted)))
        # Of what has no mark only the bytes say whether they are new.
        unmarked = [e for e in wanted if e.is_settled and not e.stamp and e not in ready]
        ready += [e for e in unmarked if e.name not in standing.failed]
        waiting = [e for e in wanted if book.taken.get(e.name) != e.stamp and e not in ready]
        standing.is_unsettled = bool(waiting)
        for entry in ready:
            given += await _give(visit, entry)
        write_book(path, book)
    return given


async def carry_out(
    node: Node, source: Source, data: Path, wishes: list[FileWish], *,
    lane: Lane, standing: Standing,
) -> None:  # fmt: skip
    """Fetch files again that have failed, or put them aside, as people want it. Raises Trouble."""
    for wish in wishes:
        before = standing.failed.get(wish.name)
        path = _book_of(data, source)
        book = read_book(path)
        # Seen from where it was met: a mailbox is read on from there, a page not known yet.
        known = dict(before.known if before is not None else book.known)
        # Where nothing was read behind it since, this is the next look like any other.
        seen = book.known if known == book.known else dict(known)
        async with _opened(source, seen, lane) as transport:
            visit = _Visit(node, source, data, book, known, lane, standing, transport)
            entry = next((e for e in await _list(visit) if e.name == wish.name), None)
            if wish.wish == "replay" and entry is not None:
                await _give(visit, entry, asked=wish.asked)
                write_book(path, book)
            elif wish.wish == "replay":
                gone = Trouble("file-vanished", "it is not there any more; put it back")
                _note_failed(visit, wish.name, gone, wish.asked)
            else:
                if entry is not None:
                    await lane.run(transport.finish, entry, is_failed=True)
                told = ended(wish.name, "dismissed", _now(), asked=wish.asked)
                standing.note_file(wish.name, told, size=0, known={})
        standing.asked[wish.name] = wish.asked
        write_standing(data, source.key, standing)


@contextlib.asynccontextmanager
async def _opened(
    source: Source, known: dict[str, str], lane: Lane
) -> AsyncGenerator[Transport, None]:
    """The way to the files, closed when this is left, also in the middle of a hanging call."""
    transport: Transport | None = None
    try:
        transport = await lane.run(open_place, source.place, known, late=_close)
        yield transport
    except OSError as error:
        raise as_trouble(error) from None
    finally:
        if transport is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await lane.close(transport.close)


async def _list(visit: _Visit) -> list[Entry]:
    listing = await visit.lane.run(visit.transport.entries)
    for name in listing.skipped:
        tell("file.skipped", source=visit.source.key, name=ascii(name)[:100])
    return [e for e in listing.entries if _matches(e.name, visit.source.pattern)]


async def _give(visit: _Visit, entry: Entry, *, asked: int = 0) -> int:
    """One file to the node. What is wrong with this file alone holds up no other one."""
    source, book = visit.source, visit.book
    fetched: Fetched | None = None
    trouble: Trouble | None = None
    try:
        fetched = await visit.lane.run(
            fetch, visit.transport, entry, visit.data / "in", bytes_max=source.bytes_max,
            deadline_s=source.retry.deadline_s, late=_forget,
        )  # fmt: skip
        # Of the same name with the same bytes: only its date is new.
        if asked or book.hashes.get(entry.name) != fetched.sha256:
            run = await _start(visit, entry, fetched, is_again=bool(asked))
            tell("file.given", source=source.key, run=str(run), bytes=fetched.size)
            told = ended(entry.name, "given", _now(), asked=asked)
            visit.standing.note_file(entry.name, told, size=fetched.size, known={})
        elif entry.stamp:
            # Nothing new in it, but it was brought: it is not awaited any more.
            visit.standing.last_file_at = _now()
    except Trouble as error:
        if not error.is_permanent or error.code.startswith("http-4"):
            raise
        trouble = error
        tell("file.failed", source=source.key, code=error.code, detail=error.detail)
        _note_failed(visit, entry.name, error, asked)
    finally:
        if fetched is not None:
            fetched.path.unlink(missing_ok=True)
    note_taken(book, entry, fetched.sha256 if fetched is not None and trouble is None else "")
    write_book(_book_of(visit.data, source), book)
    # One that would be moved away stays, so that it can be fetched again; people put it aside.
    if trouble is None or not getattr(source.place, "may_move", False):
        await visit.lane.run(visit.transport.finish, entry, is_failed=trouble is not None)
    return int(trouble is None)


async def _start(visit: _Visit, entry: Entry, fetched: Fetched, *, is_again: bool) -> UUID:
    try:
        file = await visit.node.bring(fetched.path, entry.name)
        return await visit.node.start(visit.source, file, entry.name, is_again=is_again)
    except Trouble as trouble:
        if trouble.is_permanent and trouble.code.startswith(_KEY):
            raise Trouble(trouble.code, trouble.detail) from None
        raise


def _note_failed(visit: _Visit, name: str, trouble: Trouble, asked: int) -> None:
    """Kept at once: the node hears of it also when we die now."""
    shown = Trouble(trouble.code, hide(visit.source.place, trouble.detail))
    told = ended(name, "failed", _now(), trouble=shown, asked=asked)
    visit.standing.note_file(name, told, size=0, known=visit.known)
    write_standing(visit.data, visit.source.key, visit.standing)


def _close(transport: Transport) -> None:
    transport.close()


def _forget(fetched: Fetched) -> None:
    fetched.path.unlink(missing_ok=True)


def _now() -> datetime:
    return datetime.now(UTC)


def _book_of(data: Path, source: Source) -> Path:
    return data / "books" / f"{source.key}.json"


def _matches(name: str, pattern: str) -> bool:
    """Names compare as people see them: composed, whatever the case."""
    shown = unicodedata.normalize("NFC", name).casefold()
    return fnmatch.fnmatchcase(shown, unicodedata.normalize("NFC", pattern).casefold())
