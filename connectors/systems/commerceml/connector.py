"""The connector: a document of CommerceML, or a zip with any number of them and their pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from connectors.formats.archive import Member, is_archive, list_members
from connectors.formats.xml import XmlFile
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
from connectors.sdk.manifest import read_manifest
from connectors.systems.commerceml.images import Images
from connectors.systems.commerceml.reader import read_part, summary_of
from connectors.systems.commerceml.stream import Package
from connectors.systems.commerceml.survey import (
    Part,
    facts_of,
    in_order,
    look_at,
    warnings_of,
)
from connectors.systems.commerceml.words import ROOT

BLOCK = 1_000
_ENCODINGS = ("utf-8", "cp1251", "utf-16-le", "utf-16-be", "cp866", "koi8-r")
_STARTS = (b"<", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


class CommerceML:
    """CommerceML 2.x and 3.x."""

    def open(self, path: Path) -> CommerceMLPackage:
        """See sdk.contract.Connector."""
        return CommerceMLPackage(path)

    def attached(self, path: Path) -> Callable[[str], Iterator[bytes]]:
        """See sdk.contract.Carrier."""
        return Images(path).read

    def recognises(self, head: bytes, name: str) -> float:
        """See sdk.contract.Recogniser: the root, in any encoding of it; a zip of XML may be one."""
        start = head[:8_192]
        if any(ROOT.encode(encoding) in start for encoding in _ENCODINGS):
            return 1.0
        if start.startswith(b"PK\x03\x04") and name.lower().endswith(".zip"):
            return 0.3
        return 0.0


class CommerceMLPackage:
    """One package, looked at when it is opened: every byte of a zip is unpacked once by then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._warnings: list[Fault] = []
        self._images: frozenset[str] = frozenset()
        self._encoding = ""
        self._parts = self._look("")

    def inspect(self, learned: dict[str, str]) -> Found:
        """See sdk.contract.Source. No column is mapped: the constants are the settings."""
        facts = facts_of(self._parts)
        found = Inspection(
            "commerceml",
            "\n".join(sorted({p.file.head.encoding for p in self._parts})),
            warnings=(*warnings_of(self._parts), *self._warnings),
            version=facts.get("version", ""),
            facts=facts,
        )
        return Found(found, Mapping(constants=read_manifest("commerceml").settings))

    def read(self, mapping: Mapping) -> Iterator[Rows | Progress | Summary]:
        """See sdk.contract.Source."""
        if mapping.encoding != self._encoding:
            self._parts = self._look(mapping.encoding)
        package = Package(mapping.constants)
        package.images = self._images
        yield Progress(0)
        seen = 0
        for part, ranks in in_order(self._parts):
            for _ in read_part(part, ranks, package):
                if len(package.rows) < BLOCK:
                    continue
                seen += len(package.rows)
                yield package.take()
                yield Progress(seen)
        if package.rows:
            seen += len(package.rows)
            yield package.take()
        yield Progress(seen, seen)
        warnings = (*warnings_of(self._parts), *self._warnings)
        yield summary_of(package, self._parts, warnings)

    def _look(self, encoding: str) -> list[Part]:
        self._encoding = encoding
        if not is_archive(self._path):
            return [look_at(XmlFile(self._path, roots=(ROOT,), encoding=encoding))]
        members = list_members(self._path)
        parts, others = [], []
        for member in members:
            part = self._member(member, encoding)
            if part is None:
                others.append(member.name)
            else:
                parts.append(part)
        if not parts:
            found = f"an archive of {len(members)} others"
            raise Refused(Fault("not-this-format", "a document of CommerceML inside", found))
        self._images = frozenset(name.rpartition("/")[2] for name in others)
        return parts

    def _member(self, member: Member, encoding: str) -> Part | None:
        with member.open() as file:
            start = file.read(64)
        named = member.name.lower().endswith(".xml")
        if not named and not start.lstrip().startswith(_STARTS):
            self._prove(member)
            return None
        try:
            return look_at(XmlFile(member.open, name=member.name, roots=(ROOT,), encoding=encoding))
        except Refused as refused:
            if named or refused.fault.code != "not-this-format":
                raise
            place = Place(member.name)
            self._warnings.append(Fault("other-file", f"<{ROOT}>", refused.fault.found, place))
            return None

    def _prove(self, member: Member) -> None:
        """Unpack a picture once: its sum is proved before a row is staged."""
        with member.open() as file:
            while file.read(1 << 20):
                pass
