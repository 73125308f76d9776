"""The entries of a ZIP, unpacked one at a time with every claim checked against the real bytes."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Callable, Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path

from quarantine.containers.budget import Budget, Note, Part, Refused
from quarantine.containers.zips import Bytes, Entry, read_directory

_STORED, _DEFLATED = 0, 8
_PIECE = 256 * 1024
# Some writers give folders a mode of all ones, which is no kind at all.
_SPECIAL = (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)


def walk(path: Path, budget: Budget) -> Iterator[Part | Note]:
    """Each regular file in the order of the archive. Raises Refused."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        entries = read_directory(data, budget.entries_left)
        budget.count_entry(len(entries))
        for entry in entries:
            if stat.S_IFMT(entry.mode) in _SPECIAL:
                raise Refused(
                    "container.link",
                    "An entry is a link or a device, not a file.",
                    name=entry.name,
                )
        for entry in entries:
            if entry.folder:
                continue
            if note := _unreadable(entry):
                yield note
                continue
            with budget.sink(entry.packed) as sink:
                unpack(data, entry, sink.write)
                sink.close()
                yield Part(entry.name, sink.path)


def read_entry(data: Bytes, entry: Entry, most: int) -> bytes:
    """All of one small entry, for who must look inside before the walk. Raises Refused."""
    if _unreadable(entry) or entry.size > most:
        raise Refused("container.method", "The entry cannot be read.", name=entry.name)
    pieces: list[bytes] = []

    def take(piece: bytes) -> None:
        pieces.append(piece)
        if sum(map(len, pieces)) > most:
            raise Refused("container.size_lie", "The entry is longer than it says.")

    unpack(data, entry, take)
    return b"".join(pieces)


def _unreadable(entry: Entry) -> Note | None:
    if entry.encrypted:
        return Note(
            entry.name,
            "container.encrypted",
            "An entry is encrypted, so nobody can look into it. Send it without a password.",
        )
    if entry.method not in (_STORED, _DEFLATED):
        return Note(
            entry.name,
            "container.method",
            f"An entry is packed by method {entry.method}, which is not read here. "
            "Pack it by the usual method (deflate).",
        )
    return None


def unpack(data: Bytes, entry: Entry, take: Callable[[bytes], None]) -> None:
    """Hand the entry's bytes on. Raises Refused when size or checksum are not what was said."""
    crc = size = 0
    end = entry.start + entry.packed
    inflate = zlib.decompressobj(-15) if entry.method == _DEFLATED else None
    at, waiting = entry.start, b""
    while at < end or waiting or (inflate and not inflate.eof):
        piece = waiting
        if not piece:
            piece = data[at : min(at + _PIECE, end)]
            at += len(piece)
        out = piece
        waiting = b""
        if inflate:
            out = _inflate(inflate, piece, entry)
            waiting = inflate.unconsumed_tail
            if inflate.eof and (inflate.unused_data or at < end):
                raise _lie(entry, "There are bytes behind the data of an entry.")
            if not piece and not out:
                raise _lie(entry, "The data of an entry ends too early.")
        size += len(out)
        crc = zlib.crc32(out, crc)
        if size > entry.size:
            # Counted before it is refused: a lie does not unpack for free either.
            take(out)
            raise _lie(entry, "An entry is longer than it says.")
        take(out)
    if (size, crc) != (entry.size, entry.crc):
        raise _lie(entry, "An entry's size or checksum is not what its header says.")


def _inflate(inflate: zlib._Decompress, piece: bytes, entry: Entry) -> bytes:
    try:
        return inflate.decompress(piece, _PIECE)
    except zlib.error:
        raise _lie(entry, "The data of an entry is damaged.") from None


def _lie(entry: Entry, sentence: str) -> Refused:
    return Refused("container.size_lie", sentence, name=entry.name)
