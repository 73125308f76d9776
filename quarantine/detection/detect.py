"""The type of a file: our own marks first, libmagic for the rest.

libmagic calls a macro document a plain one and a script plain text, so packages are told by their
parts, OLE files by their streams, texts by what they say. `UNKNOWN` means nobody knows it.
"""

from __future__ import annotations

import functools
from importlib import import_module
from pathlib import Path
from typing import Any

from quarantine.detection.marks import by_mark
from quarantine.detection.ole import type_of_ole
from quarantine.detection.packages import type_of_zip
from quarantine.detection.texts import type_of_text

UNKNOWN = "application/octet-stream"
EMPTY = "application/x-empty"
_HEAD_BYTES = 512 * 1024
_SAME = {
    "application/vnd.microsoft.portable-executable": "application/x-dosexec",
    "application/x-7z-compressed": "application/x-7z-compressed",
    "image/x-ms-bmp": "image/bmp",
    "audio/x-wav": "audio/wav",
    "text/xml": "application/xml",
    "inode/x-empty": EMPTY,
}


def detect(path: Path, name: str) -> str:
    """The MIME type of the file at `path`. `name` only chooses among types with the same bytes."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return EMPTY
    marked = by_mark(head, path)
    if marked == "application/zip":
        return type_of_zip(path)
    if marked == "application/x-ole-storage":
        return type_of_ole(path)
    if marked:
        return marked
    return type_of_text(path, head, name) or _ask_libmagic(head)


def _ask_libmagic(head: bytes) -> str:
    said: str = _libmagic().from_buffer(head)
    # What is no text by our rule is none because a line of it looks like one.
    return UNKNOWN if said.startswith("text/") else _SAME.get(said, said)


@functools.cache
def _libmagic() -> Any:
    # In this order: the wheel tells the binding where its library is, instead of the system's.
    wheel, binding = import_module("pylibmagic"), import_module("magic")
    return binding.Magic(mime=True, magic_file=str(wheel.data / "magic.mgc"))


@functools.cache
def version() -> str:
    """Of libmagic, for the report."""
    _libmagic()
    return f"libmagic {import_module('magic').version() / 100:.2f}"
