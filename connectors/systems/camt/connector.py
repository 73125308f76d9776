"""The connector: what kind of message it is by its elements; a wrong namespace is only told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from connectors.formats.archive import is_archive, list_members
from connectors.formats.statements import Desk
from connectors.formats.xml import LOCAL, XmlFile
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
from connectors.systems.camt.reader import Reader

_KINDS = {"BkToCstmrAcctRpt": "052", "BkToCstmrStmt": "053", "BkToCstmrDbtCdtNtfctn": "054"}
_NAMESPACES = tuple(f"xsd:camt.{kind}.".encode() for kind in _KINDS.values())
_VERSION = re.compile(r"camt\.(05[234])\.001\.(\d{2})")
_NEWEST = 14
_MEMBERS_MAX = 5_000
_FIRST_VERSION = re.compile(r"V0\d$")


class Camt:
    """The camt messages of accounts."""

    def open(self, path: Path) -> CamtFile:
        """See sdk.contract.Connector."""
        return CamtFile(path)

    def recognises(self, head: bytes, name: str) -> float:
        """See sdk.contract.Recogniser."""
        narrow = head.replace(b"\0", b"")
        if any(kind.encode() in narrow for kind in _KINDS):
            return 0.95
        # A document of that namespace without what it is for: ours to refuse.
        return 0.9 if any(mark in narrow for mark in _NAMESPACES) else 0.0


class Part(msgspec.Struct, frozen=True):
    """One document: its kind (052, 053, 054) by its elements, its version by its namespace."""

    xml: XmlFile
    kind: str
    version: str


class CamtFile:
    """One document, perhaps wrapped in an envelope; or a zip of them, among whatever else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left_out: list[Fault] = []
        self._parts = self._open("")

    def inspect(self, learned: dict[str, str]) -> Found:
        """See sdk.contract.Source."""
        first = self._parts[0]
        found = Inspection(
            "camt", first.xml.head.encoding, (), tuple(self._warnings()), first.version, {}
        )
        return Found(found, Mapping())

    def read(self, mapping: Mapping) -> Iterator[Rows | Progress | Summary]:
        """See sdk.contract.Source. Constants: `encoding`; `split_batches`: no keeps an entry with
        several transactions as one line.
        """
        encoding = mapping.encoding or mapping.constants.get("encoding", "")
        parts = self._open(encoding) if encoding else self._parts
        splits = mapping.constants.get("split_batches", "yes") != "no"
        desk = Desk()
        total = self._path.stat().st_size // 1_800
        for part in parts:
            yield from Reader(part.xml, part.kind, desk, splits_batches=splits).read(total)
        desk.warnings.extend(self._warnings())
        yield from desk.flush(every=1)
        kinds = " ".join(sorted({part.kind for part in parts}))
        yield desk.summary({"statements": str(desk.count("statement")), "message": kinds})

    def _open(self, encoding: str) -> list[Part]:
        if not is_archive(self._path):
            return [_look(XmlFile(self._path, encoding=encoding))]
        found = []
        self._left_out.clear()
        for member in list_members(self._path)[:_MEMBERS_MAX]:
            try:
                found.append(_look(XmlFile(member.open, name=member.name, encoding=encoding)))
            except Refused as refused:
                # A zip of a bank also brings its letter and a picture; a broken document is not it.
                if refused.fault.code != "not-this-format":
                    raise
                self._left_out.append(refused.fault)
        if not found:
            expected = "a report, statement or notification in the archive"
            raise Refused(Fault("not-this-format", expected, f"{len(self._left_out)} others"))
        return found

    def _warnings(self) -> list[Fault]:
        warnings = list(self._left_out)
        for part in self._parts:
            warnings += part.xml.head.warnings + part.xml.late_warnings
            known = _VERSION.fullmatch(part.version)
            if known is None:
                expected = f"the namespace of camt.{part.kind}"
                warnings.append(Fault("unknown-version", expected, part.xml.head.namespace[:80]))
            elif known[1] != part.kind or int(known[2]) > _NEWEST:
                expected = f"camt.{part.kind} up to version {_NEWEST}"
                warnings.append(Fault("unknown-version", expected, part.version))
        return warnings


def _look(xml: XmlFile) -> Part:
    """What a document is by its first elements. Raises Refused."""
    for element in xml.iter_elements("GrpHdr", "Acct", "Ntry", "Stmt", "Rpt", "Ntfctn"):
        above = element.getparent()
        while above is not None:
            kind = _KINDS.get(_FIRST_VERSION.sub("", LOCAL[above.tag]))
            if kind:
                found = _VERSION.search(str(element.tag))
                version = f"camt.{found[1]}.001.{found[2]}" if found else f"camt.{kind}"
                return Part(xml, kind, version)
            above = above.getparent()
    looks = f"<{xml.head.root}> without one"
    place = Place(xml.name)
    raise Refused(Fault("not-this-format", "a report, statement or notification", looks, place))
