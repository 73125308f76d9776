"""The connector: what kind of message it is by its elements; a wrong namespace is only told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from connectors.formats.xml import LOCAL, XmlFile
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
from connectors.systems.camt.reader import Reader

_KINDS = {"BkToCstmrAcctRpt": "052", "BkToCstmrStmt": "053", "BkToCstmrDbtCdtNtfctn": "054"}
_VERSION = re.compile(r"camt\.(05[234])\.001\.(\d{2})")
_NEWEST = 14
_FIRST_VERSION = re.compile(r"V0\d$")


class Camt:
    """The camt messages of accounts."""

    def open(self, path: Path) -> CamtFile:
        """See sdk.contract.Connector."""
        return CamtFile(path)

    def recognises(self, head: bytes, name: str) -> float:
        """See sdk.contract.Recogniser."""
        narrow = head.replace(b"\0", b"")
        return 0.95 if any(kind.encode() in narrow for kind in _KINDS) else 0.0


class CamtFile:
    """One file, perhaps wrapped in an envelope."""

    def __init__(self, path: Path, encoding: str = "") -> None:
        self._path = path
        self._xml = XmlFile(path, encoding=encoding)
        self._kind, self._version = self._look()

    def inspect(self, learned: dict[str, str]) -> Found:
        """See sdk.contract.Source."""
        found = Inspection("camt", self._xml.head.encoding, (), self._warnings(), self._version, {})
        return Found(found, Mapping())

    def read(self, mapping: Mapping) -> Iterator[Rows | Progress | Summary]:
        """See sdk.contract.Source. Constants: `encoding`; `split_batches`: no keeps an entry with
        several transactions as one line.
        """
        encoding = mapping.encoding or mapping.constants.get("encoding", "")
        xml = XmlFile(self._path, encoding=encoding) if encoding else self._xml
        splits = mapping.constants.get("split_batches", "yes") != "no"
        reader = Reader(xml, self._kind, splits_batches=splits)
        reader.desk.warnings.extend(self._warnings())
        yield from reader.read(self._path.stat().st_size // 1_800)

    def _look(self) -> tuple[str, str]:
        parts = ("GrpHdr", "Acct", "Ntry", "Stmt", "Rpt", "Ntfctn")
        for element in self._xml.iter_elements(*parts):
            above = element.getparent()
            while above is not None:
                kind = _KINDS.get(_FIRST_VERSION.sub("", LOCAL[above.tag]))
                if kind:
                    found = _VERSION.search(str(element.tag))
                    return kind, f"camt.{found[1]}.001.{found[2]}" if found else f"camt.{kind}"
                above = above.getparent()
        looks = f"<{self._xml.head.root}> without one"
        raise Refused(Fault("not-this-format", "a report, statement or notification", looks))

    def _warnings(self) -> tuple[Fault, ...]:
        warnings: tuple[Fault, ...] = self._xml.head.warnings + self._xml.late_warnings
        known = _VERSION.fullmatch(self._version)
        if known is None:
            expected = f"the namespace of camt.{self._kind}"
            warnings += (Fault("unknown-version", expected, self._xml.head.namespace[:80]),)
        elif known[1] != self._kind or int(known[2]) > _NEWEST:
            expected = f"camt.{self._kind} up to version {_NEWEST}"
            warnings += (Fault("unknown-version", expected, self._version),)
        return warnings
