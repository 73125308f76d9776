"""TAR: regular files and folders, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from quarantine.containers.budget import Budget, Part, Refused
from quarantine.containers.paths import Paths

_BLOCK = 512
_PIECE = 256 * 1024
_LONG_BYTES_MAX = 64 * 1024
_FILES, _FOLDER, _LINKS = (b"0", b"\0", b"7"), b"5", (b"1", b"2", b"K")
_PAX, _PAX_GLOBAL, _GNU_NAME = b"x", b"g", b"L"


class _Header(msgspec.Struct, frozen=True):
    name: str
    size: int
    kind: bytes


def walk(path: Path, budget: Budget) -> Iterator[Part]:
    """Each regular file in the order of the archive. Raises Refused."""
    paths = Paths()
    with path.open("rb") as file:
        better: dict[str, str] = {}
        while (header := _read_header(file)) is not None:
            if header.kind in (_PAX, _PAX_GLOBAL, _GNU_NAME):
                better |= _read_meta(file, header)
                continue
            name = better.get("path", header.name)
            size = _number(better.get("size"), header.size)
            better = {}
            _check_kind(header, name)
            budget.count_entry()
            folder = header.kind == _FOLDER or name.endswith("/")
            if name in (".", "./") and folder:
                continue
            name = paths.add(name, folder=folder)
            if folder and size:
                raise _broken("An entry is called a folder and has content.")
            if folder:
                continue
            with budget.sink(size) as sink:
                for piece in _read_content(file, size):
                    sink.write(piece)
                sink.close()
                yield Part(name, sink.path)


def _broken(sentence: str) -> Refused:
    return Refused("container.structure", sentence)


def _read_header(file: BinaryIO) -> _Header | None:
    block = file.read(_BLOCK)
    if not block:
        return None
    if len(block) < _BLOCK:
        raise _broken("It ends in the middle of a header.")
    if not block.strip(b"\0"):
        _check_end(file)
        return None
    said = _octal(block[148:156])
    if said != sum(block[:148]) + 8 * 32 + sum(block[156:]):
        raise _broken("The checksum of a header is wrong.")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (above := _text(block[345:500])):
        name = f"{above}/{name}"
    return _Header(name, _size(block[124:136]), block[156:157])


def _check_end(file: BinaryIO) -> None:
    while piece := file.read(_PIECE):
        if piece.strip(b"\0"):
            raise Refused("container.trailing", "There are bytes behind the end of the archive.")


def _check_kind(header: _Header, name: str) -> None:
    if header.kind in _LINKS:
        raise Refused("container.link", "An entry is a link, not a file.", name=name)
    if header.kind not in (_FOLDER, *_FILES):
        raise Refused("container.special", "An entry is a device or a special file.", name=name)


def _read_meta(file: BinaryIO, header: _Header) -> dict[str, str]:
    if header.size > _LONG_BYTES_MAX:
        raise _broken("A header is too long.")
    content = b"".join(_read_content(file, header.size))
    if header.kind == _GNU_NAME:
        return {"path": _text(content)}
    values = dict(_pax(content))
    if any(key.startswith("GNU.sparse") for key in values):
        raise Refused("container.special", "An entry is a sparse file. Pack it as a plain one.")
    if header.kind == _PAX_GLOBAL:
        if values.keys() & {"path", "size", "linkpath"}:
            raise _broken("A header gives one name or size to all entries.")
        return {}
    if "linkpath" in values:
        raise Refused("container.link", "An entry is a link, not a file.")
    return {key: value for key, value in values.items() if key in ("path", "size")}


def _pax(content: bytes) -> Iterator[tuple[str, str]]:
    """`LENGTH KEY=VALUE\\n` records."""
    at = 0
    while at < len(content):
        digits, space, _ = content[at : at + 20].partition(b" ")
        if not space or not digits.isdigit() or int(digits) < len(digits) + 4:
            raise _broken("A header is damaged.")
        record = content[at + len(digits) + 1 : at + int(digits)]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise _broken("A header is damaged.")
        yield _text(key), value[:-1].decode("utf-8", "replace")
        at += int(digits)


def _read_content(file: BinaryIO, size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = file.read(min(left, _PIECE))
        if not piece:
            raise _broken("It ends in the middle of an entry.")
        left -= len(piece)
        yield piece
    padding = file.read(-size % _BLOCK)
    if len(padding) != -size % _BLOCK:
        raise _broken("It ends in the middle of an entry.")


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _octal(field: bytes) -> int:
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise _broken("A number in a header is damaged.") from None


def _size(field: bytes) -> int:
    if field[0] & 0x80:
        size = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    else:
        size = _octal(field)
    if size < 0:
        raise _broken("A number in a header is damaged.")
    return size


def _number(text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    if not text.isascii() or not text.isdigit():
        raise _broken("A number in a header is damaged.")
    return int(text)
