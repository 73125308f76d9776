"""ZIP, read by the one rule that leaves two readers nothing to disagree about.

The file is: local entries from byte 0 on without a gap, the central directory, optionally the two
ZIP64 records, the end record with its comment, end of file. Local headers say what the central
directory says; names are given once. Whatever real writers do within that passes: data
descriptors, ZIP64, padding in extra fields, comments, stored and deflated entries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap

import msgspec

from quarantine.containers.budget import Refused
from quarantine.containers.paths import Paths

Bytes = mmap | bytes

END, CENTRAL, LOCAL, DESCRIPTOR = b"PK\5\6", b"PK\1\2", b"PK\3\4", b"PK\7\x08"
_END64, _LOCATOR = b"PK\6\6", b"PK\6\7"
_END_AT = struct.Struct("<4sHHHHIIH")
_END64_AT = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR_AT = struct.Struct("<4sIQI")
_CENTRAL_AT = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL_AT = struct.Struct("<4sHHHHHIIIHH")
_COMMENT_MAX = 0xFFFF
_DESCRIPTOR_BYTES_MAX = 24
_U16, _U32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _DESCRIBED, _STRONG, _UTF8, _MASKED = 0x1, 0x8, 0x40, 0x800, 0x2000
_COMPARED = _ENCRYPTED | _STRONG | _UTF8 | _MASKED
_X_ZIP64, _X_UNICODE, _X_AES = 0x0001, 0x7075, 0x9901
_MADE_BY_UNIX = (3, 19)


class Entry(msgspec.Struct, frozen=True):
    """One entry as both headers agree on it; `start` and `packed` are its data in the file."""

    name: str
    folder: bool
    method: int
    encrypted: bool
    crc: int
    packed: int
    size: int
    start: int
    mode: int


class _Listed(msgspec.Struct, frozen=True):
    raw: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int
    unicode: bytes | None
    aes: bool


def read_directory(data: Bytes, entries_max: int) -> list[Entry]:
    """All entries in the order of the file, every header checked. Raises Refused."""
    start, end, count = _find_directory(data)
    if count > entries_max:
        raise Refused("container.entries", "It has more entries than the policy allows.")
    listed = sorted(_read_central(data, start, end, count), key=lambda e: e.offset)
    paths, entries, at = Paths(), [], 0
    for index, item in enumerate(listed):
        if item.offset != at:
            raise _broken(
                "overlap" if item.offset < at else "gap", "Entries overlap or leave gaps."
            )
        at = listed[index + 1].offset if index + 1 < len(listed) else start
        if at <= item.offset:
            raise _broken("overlap", "Entries overlap or leave gaps.")
        entries.append(_read_local(data, item, at, paths))
    if at != start:
        raise _broken("gap", "There are bytes between the entries and the directory.")
    return entries


def _broken(word: str, sentence: str) -> Refused:
    return Refused(f"container.{word}", sentence)


def _find_directory(data: Bytes) -> tuple[int, int, int]:
    """Start and end of the central directory and its number of entries."""
    at = _find_end(data)
    _, disk, first_disk, here, count, size, start, _ = _END_AT.unpack_from(data, at)
    end = at
    if at >= _LOCATOR_AT.size and data[at - 20 : at - 16] == _LOCATOR:
        end, (count64, size64, start64) = _read_end64(data, at - 20)
        for small, full, large in ((count, _U16, count64), (size, _U32, size64)):
            if small not in (full, large):
                raise _broken("structure", "Its two end records disagree.")
        if start not in (_U32, start64):
            raise _broken("structure", "Its two end records disagree.")
        here, count, size, start = count64, count64, size64, start64
        disk = first_disk = 0
    if disk or first_disk or here != count:
        raise _broken("structure", "It is one of several parts of an archive.")
    if start + size != end:
        raise _broken("prefix", "There are bytes before the archive or inside its directory.")
    return start, end, count


def _find_end(data: Bytes) -> int:
    least = max(0, len(data) - _END_AT.size - _COMMENT_MAX)
    found = [
        at
        for at in _all(data, END, least)
        if at + _END_AT.size <= len(data)
        and at + _END_AT.size + _END_AT.unpack_from(data, at)[7] == len(data)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise _broken("structure", "It can be read as two archives.")
    if data.rfind(END, least) >= 0:
        raise _broken("trailing", "There are bytes behind the end of the archive.")
    raise _broken("structure", "It has no directory at its end; the archive is cut or damaged.")


def _all(data: Bytes, mark: bytes, start: int) -> Iterator[int]:
    at = data.find(mark, start)
    while at >= 0:
        yield at
        at = data.find(mark, at + 1)


def _read_end64(data: Bytes, locator: int) -> tuple[int, tuple[int, int, int]]:
    _, disk, at, disks = _LOCATOR_AT.unpack_from(data, locator)
    if disk or disks > 1 or at + _END64_AT.size > locator or data[at : at + 4] != _END64:
        raise _broken("structure", "Its ZIP64 records are damaged.")
    record = _END64_AT.unpack_from(data, at)
    size, here, count = record[1], record[6], record[7]
    if record[4] or record[5] or here != count or at + 12 + size != locator:
        raise _broken("structure", "Its ZIP64 records are damaged.")
    return at, (count, record[8], record[9])


def _read_central(data: Bytes, start: int, end: int, count: int) -> Iterator[_Listed]:
    at = start
    for _ in range(count):
        if at + _CENTRAL_AT.size > end or data[at : at + 4] != CENTRAL:
            raise _broken("structure", "Its directory is damaged.")
        head = _CENTRAL_AT.unpack_from(data, at)
        made_by, flags, method, crc = head[1] >> 8, head[3], head[4], head[7]
        names, extras, comments = head[10], head[11], head[12]
        at += _CENTRAL_AT.size
        raw, extra = data[at : at + names], data[at + names : at + names + extras]
        at += names + extras + comments
        if at > end or not raw or head[13] not in (0, _U16):
            raise _broken("structure", "Its directory is damaged.")
        fields = _read_extra(extra)
        size, packed, offset = _widen(fields, head[9], head[8], head[16])
        yield _Listed(
            raw, flags, method, crc, packed, size, offset,
            head[15] >> 16 if made_by in _MADE_BY_UNIX else 0,
            fields.get(_X_UNICODE), _X_AES in fields,
        )  # fmt: skip
    if at != end:
        raise _broken("structure", "There are bytes behind the last entry of its directory.")


def _read_extra(extra: bytes) -> dict[int, bytes]:
    """Fields by number; padding that is no field (as `zipalign` writes) must be zeros."""
    fields: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        number, size = struct.unpack_from("<HH", extra, at)
        if at + 4 + size > len(extra):
            break
        if number in fields and number in (_X_ZIP64, _X_UNICODE):
            raise _broken("structure", "An entry has the same extra field twice.")
        fields[number] = extra[at + 4 : at + 4 + size]
        at += 4 + size
    if extra[at:].strip(b"\0"):
        raise _broken("structure", "An entry's extra fields are damaged.")
    return fields


def _widen(fields: dict[int, bytes], size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The 64-bit values in place of those that are all ones, in the fixed order of the field."""
    wide = fields.get(_X_ZIP64, b"")
    at, values = 0, []
    for value in (size, packed, offset):
        is_wide = value == _U32 and at + 8 <= len(wide)
        values.append(int.from_bytes(wide[at : at + 8], "little") if is_wide else value)
        at += 8 * is_wide
    return values[0], values[1], values[2]


def _read_local(data: Bytes, item: _Listed, end: int, paths: Paths) -> Entry:
    at = item.offset
    if at + _LOCAL_AT.size > end or data[at : at + 4] != LOCAL:
        raise _broken("structure", "An entry has no header where the directory says.")
    _, _, flags, method, _, _, crc, packed, size, names, extras = _LOCAL_AT.unpack_from(data, at)
    at += _LOCAL_AT.size
    raw, extra = data[at : at + names], data[at + names : at + names + extras]
    start = at + names + extras
    if raw != item.raw:
        raise _broken(
            "name_lie", "An entry has one name in its header and another in the directory."
        )
    if method != item.method or (flags ^ item.flags) & _COMPARED:
        raise _broken("lie", "An entry's header and the directory disagree.")
    fields = _read_extra(extra)
    if fields.get(_X_UNICODE, item.unicode) != item.unicode and item.unicode is not None:
        raise _broken(
            "name_lie", "An entry has one name in its header and another in the directory."
        )
    said = (crc, *_widen(fields, size, packed, 0)[:2])
    agreed = (item.crc, item.size, item.packed)
    unknown = flags & _DESCRIBED and all(
        x in (0, _U32, y) for x, y in zip(said, agreed, strict=True)
    )
    if said != agreed and not unknown:
        raise _broken("lie", "An entry's header and the directory disagree about its size.")
    if start + item.packed > end:
        raise _broken("overlap", "Entries overlap.")
    if end - start - item.packed > _DESCRIPTOR_BYTES_MAX:
        raise _broken("gap", "There are bytes between two entries.")
    _check_descriptor(data[start + item.packed : end], item, described=bool(flags & _DESCRIBED))
    name = _name(item)
    folder = name.endswith(("/", "\\"))
    if folder and item.size:
        raise _broken("lie", "An entry is called a folder and has content.")
    path = paths.add(name, folder=folder)
    return Entry(
        path, folder, method, bool(flags & (_ENCRYPTED | _STRONG | _MASKED)) or item.aes,
        item.crc, item.packed, item.size, start, item.mode,
    )  # fmt: skip


def _check_descriptor(tail: bytes, item: _Listed, *, described: bool) -> None:
    """Between an entry's data and the next entry lies its data descriptor, or nothing."""
    forms = [b""]
    if described:
        for width in "IQ":
            if width == "I" and max(item.packed, item.size) > _U32:
                continue
            values = struct.pack(f"<I{width}{width}", item.crc, item.packed, item.size)
            forms += [values, DESCRIPTOR + values]
    if tail not in forms:
        raise _broken("gap", "There are bytes between two entries.")


def _name(item: _Listed) -> str:
    """The entry's name as people see it; readers may differ in it, but not in its extension."""
    if item.flags & _UTF8:
        try:
            return item.raw.decode()
        except UnicodeDecodeError:
            raise _broken("structure", "An entry's name is not UTF-8, as it says.") from None
    try:
        plain = item.raw.decode()
    except UnicodeDecodeError:
        plain = item.raw.decode("cp866")
    if item.unicode is None:
        return plain
    try:
        better = item.unicode[5:].decode()
    except UnicodeDecodeError:
        raise _broken("structure", "An entry's name is not UTF-8, as it says.") from None
    if better.rpartition(".")[2].casefold() != plain.rpartition(".")[2].casefold():
        raise _broken("name_lie", "An entry has two names.")
    return better
