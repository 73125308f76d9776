"""What a zipped workbook is allowed to be, looked at before any library opens it.

Sizes are believed only when they are read: the sheets are decompressed under a budget here, once,
for their notes. Figures from research/connectors 12: real sheets reach a ratio of 15, a million
styled empty rows 11, the bomb 1 029.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from connectors.sdk.contract import Fault, Refused

ENTRIES_MAX = 2_000
RATIO_MAX = 200
UNPACKED_MAX = 1 << 30
STRINGS_MAX = 256 << 20
_SMALL = 1 << 20
_CHUNK = 1 << 16


def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive, if its directory is sane. Raises Refused."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise Refused(Fault("truncated", "a whole workbook", str(error))) from None
    entries = archive.infolist()
    names = [e.filename for e in entries]
    if len(entries) > ENTRIES_MAX or len(set(names)) != len(names):
        raise _too_large(f"{len(entries)} parts")
    if any(e.flag_bits & 1 for e in entries):
        raise Refused(Fault("password-protected", "a workbook without password", "encrypted parts"))
    total = sum(e.file_size for e in entries)
    if total > UNPACKED_MAX:
        raise _too_large(f"{total} bytes unpacked")
    for entry in entries:
        if entry.file_size > _SMALL and entry.file_size > RATIO_MAX * max(1, entry.compress_size):
            raise _too_large(
                f"{entry.filename} packed {entry.file_size // max(1, entry.compress_size)} times"
            )
        if entry.filename.endswith("sharedStrings.xml") and entry.file_size > STRINGS_MAX:
            raise _too_large(f"{entry.file_size} bytes of texts")
    return archive


def read_part(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """One part in chunks, never more than its entry claims. Raises Refused."""
    entry = archive.getinfo(name)
    seen = 0
    try:
        with archive.open(entry) as part:
            while chunk := part.read(_CHUNK):
                seen += len(chunk)
                if seen > entry.file_size or seen > UNPACKED_MAX:
                    raise _too_large(f"{name} holds more than it says")
                yield chunk
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        raise Refused(Fault("truncated", "a whole workbook", f"{name}: {error}")) from None


def _too_large(found: str) -> Refused:
    return Refused(Fault("workbook-too-large", "a workbook of ordinary size", found))
