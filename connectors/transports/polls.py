"""What of a source is new and whole: two looks alike, and not taken before.

The book is a small file of the worker; losing it only means that files are offered again, which
the node answers by their hash.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from connectors.transports.contract import Entry, Listing

TAKEN_MAX = 20_000


class Book(msgspec.Struct, omit_defaults=True):
    """`seen`: stamps of the last look; `taken`: stamps of what was handed over, and in `hashes` of
    what bytes; `known`: what the transport itself remembers (an ETag, the last message), as text.
    """

    seen: dict[str, str] = {}
    taken: dict[str, str] = {}
    hashes: dict[str, str] = {}
    known: dict[str, str] = {}


def read_book(path: Path) -> Book:
    """The book of a source; an unreadable one is as good as none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Book)
    except (OSError, msgspec.DecodeError):
        return Book()


def write_book(path: Path, book: Book) -> None:
    """Keep it, whole or as it was."""
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(book))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def find_ready(book: Book, listing: Listing) -> list[Entry]:
    """The entries to fetch now; what is seen for the first time, or grows, waits for a next look."""
    ready = [
        e
        for e in listing.entries
        if book.taken.get(e.name) != e.stamp and (e.is_settled or book.seen.get(e.name) == e.stamp)
    ]
    book.seen = {e.name: e.stamp for e in listing.entries if not e.is_settled}
    return ready


def note_taken(book: Book, entry: Entry, sha256: str = "") -> None:
    """It was handed over; it is not offered again as long as it stays as it is."""
    book.taken.pop(entry.name, None)
    book.taken[entry.name] = entry.stamp
    book.hashes[entry.name] = sha256
    while len(book.taken) > TAKEN_MAX:
        oldest = next(iter(book.taken))
        book.taken.pop(oldest)
        book.hashes.pop(oldest, None)
