"""The connector: look at the head of a file, read it as a stream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from connectors.formats.lines import Text, open_lines
from connectors.sdk.contract import (
    Fault,
    Found,
    Inspection,
    Mapping,
    Progress,
    Refused,
    Rows,
    Summary,
)
from connectors.systems.mt940.reader import Reader

_HEAD = 5_000
_REFERENCE = re.compile(r":20 ?:|:25P? ?:")
_MARKS = (
    re.compile(rb"(?m)^\s*:20 ?:"),
    re.compile(rb"(?m)^\s*:25P? ?:"),
    re.compile(rb"(?m)^\s*:(?:60[FM]|61|34F|90[CD]) ?:"),
)
_INTRADAY = re.compile(r":(?:34F|90D|90C|942):|\{2:[IO]942")


class Mt940:
    """SWIFT MT940 and MT942."""

    def open(self, path: Path) -> Mt940File:
        """See sdk.contract.Connector."""
        return Mt940File(path)

    def recognises(self, head: bytes, name: str) -> float:
        """See sdk.contract.Recogniser."""
        narrow = head.replace(b"\0", b"")
        return 0.95 if all(mark.search(narrow) for mark in _MARKS) else 0.0


class Mt940File:
    """One file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = open_lines(path)
        self._version = _look(self._text)

    def inspect(self, learned: dict[str, str]) -> Found:
        """See sdk.contract.Source."""
        text = self._text
        warnings = (*text.warnings, *text.holds)
        found = Inspection("mt940", text.encoding, (), warnings, self._version)
        return Found(found, Mapping())

    def read(self, mapping: Mapping) -> Iterator[Rows | Progress | Summary]:
        """See sdk.contract.Source. Constants: `encoding`, `currency` where a file names none."""
        encoding = mapping.encoding or mapping.constants.get("encoding", "")
        text = open_lines(self._path, encoding) if encoding else self._text
        reader = Reader(text, mapping.constants.get("currency", ""))
        yield from reader.read(self._path.stat().st_size // 160)


def _look(text: Text) -> str:
    head = list(islice(text.lines(), _HEAD))
    if not any(_REFERENCE.match(line) for line in head):
        first = next((line.strip()[:60] for line in head if line.strip()), "nothing")
        raise Refused(Fault("not-this-format", "an MT940 with :20: and :25:", first))
    return "942" if any(_INTRADAY.match(line) for line in head) else "940"
