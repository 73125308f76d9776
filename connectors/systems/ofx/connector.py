"""The connector: the header as it is (one line, blanks, none at all), the encoding by the bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from connectors.formats.lines import open_lines
from connectors.sdk.contract import (
    Fault,
    Found,
    Inspection,
    Mapping,
    Place,
    Progress,
    Refused,
    Rows,
    Summary,
)
from connectors.systems.ofx.reader import Reader

_HEAD = 65_536
_START = re.compile(rb"<\s*OFX\s*>", re.IGNORECASE)
_FIELD = re.compile(
    r"(OFXHEADER|VERSION|CHARSET|ENCODING)\s*[:=]\s*[\"']?\s*"
    r"([A-Za-z0-9_.-]+?)(?=DATA:|SECURITY|CHARSET|COMPRESSION|OLDFILE|[\"'\s<]|$)"
)
_CHARSETS = {
    "1252": "cp1252",
    "1251": "cp1251",
    "1250": "cp1250",
    "iso-8859-1": "cp1252",
    "8859-1": "cp1252",
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "unicode": "utf-8",
}


class Ofx:
    """OFX and its relatives."""

    def open(self, path: Path) -> OfxFile:
        """See sdk.contract.Connector."""
        return OfxFile(path)

    def recognises(self, head: bytes, name: str) -> float:
        """See sdk.contract.Recogniser."""
        return 0.95 if _START.search(head.replace(b"\0", b"")) else 0.0


class OfxFile:
    """One file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            head = file.read(_HEAD)
        header = _read_header(head)
        said = (header.get("CHARSET") or header.get("ENCODING") or "").lower()
        declared = _CHARSETS.get(said, "")
        expected = "cp1252" if declared in ("", "utf-8") else declared
        text = open_lines(path, expected=expected)
        narrow = head.replace(b"\0", b"")
        if _START.search(narrow) is None:
            first = narrow.strip().decode("utf-8", "replace")[:60]
            raise Refused(Fault("not-this-format", "<OFX>", first))
        warnings = text.warnings
        if not header:
            warnings += (Fault("missing-header", "OFXHEADER and VERSION", "none", Place(row=1)),)
        if declared and declared != text.encoding and not _is_ascii(path):
            expected = f"text in {declared}, as the header says"
            warnings += (Fault("encoding-mismatch", expected, text.encoding, Place(row=1)),)
        self._version = header.get("VERSION", "")
        if self._version and not self._version.startswith(("1", "2")):
            warnings += (Fault("unknown-version", "a version of 1 or 2", self._version),)
        self._text = msgspec.structs.replace(text, warnings=warnings)

    def inspect(self, learned: dict[str, str]) -> Found:
        """See sdk.contract.Source."""
        text = self._text
        warnings = (*text.warnings, *text.holds)
        found = Inspection("ofx", text.encoding, (), warnings, self._version)
        return Found(found, Mapping())

    def read(self, mapping: Mapping) -> Iterator[Rows | Progress | Summary]:
        """See sdk.contract.Source. Constants: `encoding`; `account` and `currency` where the file
        names none.
        """
        constants = mapping.constants
        text = self._text
        if encoding := mapping.encoding or constants.get("encoding", ""):
            text = open_lines(self._path, encoding)
        reader = Reader(text, constants.get("account", ""), constants.get("currency", ""))
        yield from reader.read(self._path.stat().st_size // 250)


def _read_header(head: bytes) -> dict[str, str]:
    narrow = head.replace(b"\0", b"")
    start = _START.search(narrow)
    text = narrow[: start.start() if start else 2_000].decode("ascii", "ignore")
    return dict(_FIELD.findall(text)[::-1])


def _is_ascii(path: Path) -> bool:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            if not chunk.isascii():
                return False
    return True
