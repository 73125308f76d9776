"""A zip that several files of one exchange came in: a set of members, read by their index.

No name of a member is ever a path: it is a label, in cp866 where old writers left no flag. What
unpacks to more than it may is refused before anything is read of it, a wrong sum when it is read.
An archive inside is opened once more, one inside that is refused.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from connectors.sdk.contract import Fault, Place, Refused

MEMBERS_MAX = 50_000
UNPACKED_MAX = 8 << 30
RATIO_MAX = 200
_SMALL = 1 << 20
_NESTED_MAX = 1 << 30
_UTF8_NAME = 0x800
_ZIP = b"PK\x03\x04"


class Member(msgspec.Struct, frozen=True):
    """One file of the set. `name`: its label, for people. `open`: its bytes, as often as asked."""

    name: str
    size: int
    open: Callable[[], BinaryIO]


def is_archive(path: Path) -> bool:
    """Whether a file is a zip, by its first bytes (an empty zip too)."""
    with path.open("rb") as file:
        return file.read(4) in (_ZIP, b"PK\x05\x06")


def list_members(path: Path) -> list[Member]:
    """Every file of an archive and of the archives in it. Raises Refused."""
    found = list(_members(lambda: path.open("rb"), "", 0))
    twice = [name for name, count in Counter(m.name for m in found).items() if count > 1]
    if twice:
        raise _refused("archive-duplicate", "one member for a name", twice[0])
    return found


def read_member(member: Member, most: int) -> Iterator[bytes]:
    """The bytes of a member, at most so many. Raises Refused (too-large-node, truncated)."""
    seen = 0
    with member.open() as file:
        while block := file.read(1 << 16):
            seen += len(block)
            if seen > most:
                raise _refused("too-large-node", f"at most {most} bytes", "more", member.name)
            yield block


class Checked(io.RawIOBase):
    """A member as it is unpacked: what is wrong with it is a refusal, not an error of zlib."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def readable(self) -> bool:
        """See io.IOBase."""
        return True

    def read(self, size: int = -1) -> bytes:
        """See io.RawIOBase. Raises Refused."""
        try:
            return self._file.read(size)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, zlib.error) as error:
            code = "wrong-checksum" if "CRC" in str(error) else "truncated"
            raise _refused(code, "a whole member", str(error)[:120], self._name) from None

    def close(self) -> None:
        """See io.IOBase."""
        self._file.close()
        super().close()


def _members(source: Callable[[], BinaryIO], inside: str, depth: int) -> Iterator[Member]:
    archive = _archive(source, inside)
    _check(archive, inside)
    for entry in archive.infolist():
        if entry.is_dir():
            continue
        name = f"{inside}/{_label(entry)}" if inside else _label(entry)
        opener = _opener(archive, entry, name)
        with opener() as file:
            start = file.read(4)
        if start == _ZIP and not _is_document(name):
            if depth:
                raise _refused("nested-archive", "no archive in an archive of one", name)
            if entry.file_size > _NESTED_MAX:
                raise _refused("archive-too-large", f"at most {_NESTED_MAX} bytes", name)
            yield from _members(_seekable(archive, entry), name, depth + 1)
        else:
            yield Member(name, entry.file_size, opener)


def _seekable(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    """An archive inside: it seeks, so it is not wrapped; its members are."""
    return lambda: cast("BinaryIO", archive.open(entry))


def _opener(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Callable[[], BinaryIO]:
    def open_member() -> BinaryIO:
        try:
            return cast("BinaryIO", Checked(cast("BinaryIO", archive.open(entry)), name))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise _refused("truncated", "a whole member", str(error)[:120], name) from None

    return open_member


def _archive(source: Callable[[], BinaryIO], inside: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(source())
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise _refused("truncated", "a whole archive", str(error)[:120], inside) from None


def _check(archive: zipfile.ZipFile, inside: str) -> None:
    entries = archive.infolist()
    if len(entries) > MEMBERS_MAX:
        raise _refused("archive-too-large", f"at most {MEMBERS_MAX} members", str(len(entries)))
    if any(e.flag_bits & 1 for e in entries):
        raise _refused("password-protected", "an archive without password", "encrypted members")
    total = sum(e.file_size for e in entries)
    if total > UNPACKED_MAX:
        raise _refused("archive-too-large", f"at most {UNPACKED_MAX} bytes", f"{total}", inside)
    for entry in entries:
        packed = max(1, entry.compress_size)
        if entry.file_size > _SMALL and entry.file_size > RATIO_MAX * packed:
            found = f"packed {entry.file_size // packed} times"
            expected = f"a member packed at most {RATIO_MAX} times"
            raise _refused("archive-too-large", expected, found, _label(entry))


def _label(entry: zipfile.ZipInfo) -> str:
    name = entry.filename
    if not entry.flag_bits & _UTF8_NAME:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("cp866")
    return name.replace("\\", "/")[:400]


def _is_document(name: str) -> bool:
    return name.lower().endswith((".xlsx", ".docx", ".ods", ".odt", ".pptx", ".epub"))


def _refused(code: str, expected: str, found: str, name: str = "") -> Refused:
    return Refused(Fault(code, expected, found, Place(name)))
