"""XML, SVG and HTML: declared entities and pictures that run are held; pages are for download only.

XML is read as a stream by expat, in constant memory however large the file is. A document type
that only names a file elsewhere is everyday (`<!DOCTYPE yml_catalog SYSTEM "shops.dtd">`) and is
never fetched; the danger is a declared entity, which makes a small file large or reads other files.
XML that is not well-formed is plain text once no document type can come any more.

A page may hold scripts, as pages do: no suspicion, because HTML is never shown inline. An SVG is a
picture to most people, so one with scripts, foreign content or references to hosts is held.
"""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Iterable, Iterator
from xml.parsers import expat

from quarantine.contract import Finding, Policy, Verdict
from quarantine.engines.base import Leaf, Unscannable

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 4096
DECLARATION_BYTES = 200

_XML_TYPES = {"text/xml", "application/xml", "image/svg+xml", "application/xhtml+xml"}
_XML_ENDINGS = (".xml", ".svg", ".xsd", ".xsl", ".xslt", ".yml.xml", ".xhtml", ".rels", ".gpx")
_ENTITY = re.compile(
    rb"<!ENTITY|<\x00!\x00E\x00N\x00T\x00I\x00T\x00Y|\x00<\x00!\x00E\x00N\x00T\x00I\x00T\x00Y"
)
_ENCODING = re.compile(rb"<\?xml[^>]{0,100}encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")

_ODD_HEADS = (b"\x4c\x6f\xa7\x94", b"\x00\x00\x00<", b"<\x00\x00\x00", b"\xff\xfe\x00\x00",
              b"\x00\x00\xfe\xff")  # fmt: skip
"""XML in EBCDIC or UTF-32, which some parsers take and expat does not."""

_ACTIVE = {"script", "foreignobject", "iframe", "embed", "object", "handler", "listener", "video",
           "audio", "applet"}  # fmt: skip
_HOSTS = re.compile(r"^\s*(?:(?:https?|ftp|file):|//|\\\\)", re.IGNORECASE)
_RUNS = re.compile(r"^[\s\x00-\x20]*(?:javascript|vbscript|data:(?!image/(?:png|jpe?g|gif|webp)))",
                   re.IGNORECASE)  # fmt: skip
_STYLE_HOSTS = re.compile(r"@import|url\(\s*[\"']?\s*(?:(?:https?|ftp|file):|//)", re.IGNORECASE)

_SENTENCES = {
    "markup.dtd": "It declares entities, with which a small file becomes a large one.",
    "markup.svg_script": "A drawing that runs a script.",
    "markup.svg_foreign": "A drawing that holds a page, a film or another program's content.",
    "markup.svg_external": "A drawing that fetches something from a host when it is shown.",
    "markup.svg_broken": "A drawing that is not well-formed, so that programs read it differently.",
    "markup.encoding": "It is XML in an encoding in which checks cannot read it.",
}


class MarkupEngine:
    """XML and its kin; HTML is looked at for its document type only."""

    name = "markup"
    version = f"1; {expat.EXPAT_VERSION}"

    def wants(self, leaf: Leaf) -> bool:
        """By our detection, by name, or by a head that looks like XML."""
        if leaf.type in _XML_TYPES or leaf.type.endswith("+xml"):
            return True
        if leaf.name.lower().endswith(_XML_ENDINGS):
            return True
        return _looks_like_xml(_head(leaf))

    def examine(self, leaf: Leaf, policy: Policy) -> Iterable[Finding]:
        """Suspicious findings, one for each sort. Raises Unscannable when time runs out."""
        codes = sorted(_Reading(leaf, time.monotonic() + policy.seconds_max).run())
        return [
            Finding(self.name, code, Verdict.SUSPICIOUS, _SENTENCES[code], leaf.place)
            for code in codes
        ]


def _head(leaf: Leaf) -> bytes:
    with leaf.path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _looks_like_xml(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in head[:4]:
        head = head.replace(b"\x00", b"").lstrip(b"\xff\xfe")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:600].lower()
    if start.startswith((b"<?xml", b"<svg")):
        return True
    return start.startswith((b"<!doctype", b"<!--")) and not re.match(rb"<!doctype\s+html", start)


def _is_about_encoding(fault: expat.ExpatError | LookupError | ValueError) -> bool:
    if not isinstance(fault, expat.ExpatError):
        return True
    return fault.code == expat.errors.codes[expat.errors.XML_ERROR_UNKNOWN_ENCODING]


class _Reading:
    """One pass over one file."""

    def __init__(self, leaf: Leaf, deadline: float) -> None:
        self.leaf, self.deadline = leaf, deadline
        self.codes: set[str] = set()
        self.root = ""
        self.in_style = self.transcoded = False
        self.parser = self._make_parser(None)

    def run(self) -> set[str]:
        if _head(self.leaf).startswith(_ODD_HEADS):
            return {"markup.encoding"}
        try:
            self._feed(self._chunks())
        except (expat.ExpatError, LookupError, ValueError) as fault:
            self._settle(fault)
        return self.codes

    def _make_parser(self, encoding: str | None) -> expat.XMLParserType:
        parser = expat.ParserCreate(encoding)
        # No handler for external entities: nothing outside the file is ever opened.
        parser.EntityDeclHandler = self._entity
        parser.StartElementHandler = self._first
        self.root = ""
        return parser

    def _chunks(self) -> Iterator[bytes]:
        with self.leaf.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                if time.monotonic() > self.deadline:
                    raise Unscannable("The XML took longer than the policy allows.")
                yield chunk

    def _feed(self, chunks: Iterable[bytes]) -> None:
        for chunk in chunks:
            self.parser.Parse(chunk, False)
            if "markup.dtd" in self.codes:
                return  # the rest is not worth the expansion
        self.parser.Parse(b"", True)

    def _settle(self, fault: expat.ExpatError | LookupError | ValueError) -> None:
        """Not well-formed: what could a more patient program still read here?"""
        if "markup.dtd" in self.codes:
            return
        if not self.transcoded and _is_about_encoding(fault):
            self._read_in_its_encoding()
        elif self.root == "svg":
            self.codes.add("markup.svg_broken")
        elif not self.root and self._declares_entities():
            self.codes.add("markup.dtd")

    def _read_in_its_encoding(self) -> None:
        """Expat knows few encodings: the library of Python decodes, expat parses.

        A name that nobody knows ("USASCII" of some banks) stands in front of text whose markup is
        plain ASCII, or it could not have been read.
        """
        named = _ENCODING.search(_head(self.leaf)[:DECLARATION_BYTES])
        try:
            decoder = (
                codecs.getincrementaldecoder(named[1].decode("ascii"))("replace") if named else None
            )
            probe = decoder.decode(b"<") if decoder else ""
        except (LookupError, ValueError, TypeError):
            decoder, probe = None, ""
        if decoder is None or not isinstance(probe, str):
            decoder = codecs.getincrementaldecoder("latin-1")()
        decoder.reset()
        self.transcoded = True
        self.parser = self._make_parser("utf-8")
        try:
            self._feed(decoder.decode(c).encode("utf-8", "replace") for c in self._chunks())
        except (expat.ExpatError, LookupError, ValueError) as fault:
            self._settle(fault)

    def _declares_entities(self) -> bool:
        last = b""
        for chunk in self._chunks():
            if _ENTITY.search(last + chunk):
                return True
            last = chunk[-32:]
        return False

    def _entity(self, *declared: object) -> None:
        self.codes.add("markup.dtd")

    def _first(self, name: str, attributes: dict[str, str]) -> None:
        """The root decides: only a drawing is looked at element by element."""
        self.root = name.rpartition(":")[2].lower()
        if self.root != "svg":
            self.parser.StartElementHandler = None
            return
        self.parser.StartElementHandler = self._element
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.ProcessingInstructionHandler = self._instruction
        self._element(name, attributes)

    def _element(self, name: str, attributes: dict[str, str]) -> None:
        element = name.rpartition(":")[2].lower()
        self.in_style = element == "style"
        if element == "script":
            self.codes.add("markup.svg_script")
        elif element in _ACTIVE:
            self.codes.add("markup.svg_foreign")
        for key, value in attributes.items():
            self._attribute(element, key.rpartition(":")[2].lower(), value)

    def _attribute(self, element: str, key: str, value: str) -> None:
        if key.startswith("on") and len(key) > 3:
            self.codes.add("markup.svg_script")
        elif key in ("href", "src", "to", "from", "values", "data", "base"):
            if _RUNS.match(value) or "javascript:" in value.lower():
                self.codes.add("markup.svg_script")
            elif element != "a" and key in ("href", "src", "data") and _HOSTS.match(value):
                self.codes.add("markup.svg_external")
        elif _STYLE_HOSTS.search(value):
            self.codes.add("markup.svg_external")

    def _end(self, name: str) -> None:
        self.in_style = False

    def _text(self, text: str) -> None:
        if self.in_style and _STYLE_HOSTS.search(text):
            self.codes.add("markup.svg_external")

    def _instruction(self, target: str, data: str) -> None:
        if target == "xml-stylesheet":
            self.codes.add("markup.svg_external")


ENGINE = MarkupEngine()
