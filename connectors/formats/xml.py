"""XML as it comes from strangers: streamed by local name, within bounds, with the place of all.

Schemas gate nothing (3 of 23 public CommerceML files are valid against 1C's own); what gates is
well-formedness and safety. No DTD is ever given to the parser and no entity is ever resolved; a
node, a depth and the attributes of one element are bounded; memory does not grow with the file:
an element is cleared, with what stands before it, as soon as the next block of bytes is read.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from lxml import etree

from connectors.formats.xml_head import choose_encoding, read_full, read_prolog
from connectors.sdk.contract import Fault, Place, Refused

CHUNK = 1 << 18
NODE_MAX = 10_000_000  # the parser's own bound of a text, told earlier and in words
TAG_MAX = 1 << 20
ATTRIBUTES_MAX = 20_000
ITEM_MAX = 24 << 20  # bytes, and tags, between two elements that the reader asked for
ITEM_TAGS_MAX = 1_000_000
ROOT_MAX = 1 << 20
HEAD_KEPT = 64
SHOWN_CONTROL = "\N{REPLACEMENT CHARACTER}"  # stands for a control character of the input
_BOM = b"\xef\xbb\xbf"
_CONTROLS = bytes(c for c in range(32) if c not in (9, 10, 13))
_SAFE = {
    "resolve_entities": False,
    "no_network": True,
    "load_dtd": False,
    "huge_tree": False,
    "recover": False,
    "remove_comments": True,
    "remove_pis": True,
    "encoding": "utf-8",
}
_TOO_LARGE = frozenset({114, 110})
_UNDEFINED_ENTITY = frozenset({26, 27})
_NOT_TEXT = frozenset({9, 81})
Element = Any


class LocalNames(dict[str, str]):
    """Local name by full tag: `LOCAL[element.tag]`."""

    def __missing__(self, tag: str) -> str:
        if len(self) > 100_000:
            self.clear()
        name = self[tag] = tag.rpartition("}")[2]
        return name


LOCAL = LocalNames()


class Head(msgspec.Struct, frozen=True):
    """What stands at the start. `declared`: the encoding as written there, empty when it is not."""

    root: str
    namespace: str
    attributes: dict[str, str]
    encoding: str
    declared: str = ""
    warnings: tuple[Fault, ...] = ()


class XmlFile:
    """One document. `roots`: local names it may start with (any, when empty). `allow_doctype`: a
    DOCTYPE line without own declarations is passed over, nothing of it is loaded. `name`: what
    places say of it (the member of an archive). `encoding`: chosen by a person, else by the bytes.
    `has_controls`: control characters were met by now; each reads as SHOWN_CONTROL, so that only
    its own row is at fault.
    Raises Refused with the codes of research 14, as every method here.
    """

    def __init__(
        self,
        source: Path | Callable[[], BinaryIO],
        *,
        name: str = "",
        roots: Iterable[str] = (),
        allow_doctype: bool = False,
        encoding: str = "",
    ) -> None:
        self._open: Callable[[], BinaryIO] = (
            (lambda: source.open("rb")) if isinstance(source, Path) else source
        )
        self.name = name
        self._allow_doctype = allow_doctype
        self.read_bytes = 0
        self.has_controls = False
        self.late_marks = 0
        self._shift = self._fed_lines = 0
        with self._open() as file:
            chosen = choose_encoding(file, encoding, name)
        self._encoding = chosen.encoding
        self.head = self._read_head(chosen.declared, chosen.warnings, frozenset(roots))

    def iter_elements(self, *tags: str, whole: Iterable[str] = ()) -> Iterator[Element]:
        """Every element of these local names as it ends, in order, cleared afterwards.

        What is inside an element of `whole` is left to it and not told of its own. An element is
        valid until the next one is asked for. Of what stands before it, the first 64 children of
        each ancestor stay to be read (a head), those that were told of are emptied.
        """
        parser = self.start_parser(tags)
        events = parser.read_events()
        inside = Inside(frozenset(whole))
        idle = 0, 0
        for chunk in self.iter_clean():
            self._feed(parser, chunk)
            last = None
            for _, element in events:
                if inside(element):
                    continue
                yield element
                element.clear()
                last = element
            if last is not None:
                idle = 0, 0
                self.forget_before(last)
            else:
                idle = self.wait(idle, chunk, b"<")
        self._close(parser)
        for _, element in events:
            if not inside(element):
                yield element

    def start_parser(self, tags: Iterable[str]) -> Any:
        """A parser that tells of the ends of elements of these local names."""
        self._shift = self._fed_lines = 0
        return self._parser(("end",), [f"{{*}}{tag}" for tag in tags])

    def feed(self, parser: Any, piece: bytes) -> None:
        """Give it bytes in UTF-8. Raises Refused."""
        self._feed(parser, piece)
        self._fed_lines += piece.count(b"\n")

    def finish_parser(self, parser: Any) -> None:
        """There is no more. Raises Refused."""
        self._close(parser)

    def skip_lines(self, count: int) -> None:
        """So many lines were not given to the parser: places after them are that much further."""
        self._shift += count

    @property
    def line_of_end(self) -> int:
        """The line of what comes next."""
        return 1 + self._fed_lines + self._shift

    def wait(self, idle: tuple[int, int], piece: bytes | str, mark: Any) -> tuple[int, int]:
        """Bytes and tags that have gone by without an element asked for. Raises Refused."""
        size, tags = idle[0] + len(piece), idle[1] + piece.count(mark)
        if size > ITEM_MAX or tags > ITEM_TAGS_MAX:
            expected = f"elements of at most {ITEM_MAX} bytes and {ITEM_TAGS_MAX} tags"
            raise self._refused("too-large-node", expected, "more")
        return size, tags

    def forget_before(self, element: Element) -> None:
        """Let go of what stands before an element that was told of, but for a head."""
        parent = element.getparent()
        if parent is not None:
            place = parent.index(element)
            if place > HEAD_KEPT:
                del parent[HEAD_KEPT:place]

    def place_of(self, element: Element, path: str = "") -> Place:
        """Where an element stands: its line, and the path inside it that is meant."""
        return Place(self.name, (element.sourceline or 0) + self._shift, path)

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """What was tolerated: of the head, and of what has been read by now."""
        return (*self.head.warnings, *self.late_warnings)

    @property
    def late_warnings(self) -> tuple[Fault, ...]:
        """What was tolerated in what has been read by now, without those of the head."""
        if not self.late_marks:
            return ()
        marks = f"{self.late_marks} byte order marks inside"
        return (Fault("byte-order-mark", "a mark at the start only", marks, self._place()),)

    def _parser(self, events: tuple[str, ...], tags: list[str] | None) -> Any:
        return etree.XMLPullParser(events=events, tag=tags, **_SAFE)

    def _read_head(self, declared: str, warnings: tuple[Fault, ...], roots: frozenset[str]) -> Head:
        parser = self._parser(("start",), None)
        seen = 0
        for chunk in self.iter_clean():
            self._feed(parser, chunk)
            seen += len(chunk)
            for _, root in parser.read_events():
                return self._head_of(root, declared, warnings, roots)
            if seen > ROOT_MAX:
                raise self._refused("too-large-node", f"a root within {ROOT_MAX} bytes", "none")
        self._close(parser)
        _, root = next(parser.read_events())
        return self._head_of(root, declared, warnings, roots)

    def _head_of(
        self, root: Element, declared: str, warnings: tuple[Fault, ...], roots: frozenset[str]
    ) -> Head:
        namespace, _, name = root.tag.rpartition("}")
        if roots and name not in roots:
            expected = "the root " + " or ".join(sorted(roots))
            looks = "a page of HTML" if name.lower() == "html" else f"<{name}>"
            raise self._refused("not-this-format", expected, looks)
        attributes = {LOCAL[k]: v for k, v in root.attrib.items()}
        return Head(name, namespace[1:], attributes, self._encoding, declared, warnings)

    def iter_bytes(self) -> Iterator[bytes]:
        """The bytes as UTF-8 without marks at the start, block by block."""
        self.read_bytes = 0
        decoder = None
        if self._encoding != "utf-8":
            decoder = codecs.getincrementaldecoder(self._encoding)()
        start = True
        with self._open() as file:
            while block := read_full(file, CHUNK):
                chunk = block if decoder is None else self._decode(decoder, block)
                self.read_bytes += len(block)
                if start:
                    chunk = _without_marks(chunk)
                    start = not chunk
                if chunk:
                    yield chunk
        if decoder is not None:
            self._decode(decoder, b"", final=True)

    def _decode(self, decoder: Any, block: bytes, *, final: bool = False) -> bytes:
        try:
            return bytes(decoder.decode(block, final).encode("utf-8"))
        except UnicodeDecodeError as error:
            offset = self.read_bytes + error.start
            if final:
                raise self._refused("truncated", "whole characters", "a half of one") from None
            found = f"byte 0x{error.object[error.start]:02X}"
            place = Place(self.name, offset=offset)
            raise Refused(
                Fault("bad-encoding", f"text in {error.encoding}", found, place)
            ) from None
        except UnicodeEncodeError:
            raise self._refused("bad-encoding", "whole characters", "half of a pair") from None

    def iter_clean(self) -> Iterator[bytes]:
        """What the parser is given: no DOCTYPE, no marks, no control characters; bounded gaps."""
        gap = quotes = 0
        self.late_marks, self.has_controls = 0, False
        held: bytes | None = None
        for block in self.iter_bytes():
            chunk = self._prolog_of(block) if held is None else held + block
            chunk, held = _cut_mark(chunk)
            chunk = self._clean(chunk)
            opened = chunk.rfind(b"<")
            longest = gap + (chunk.find(b"<") if opened >= 0 else len(chunk))
            if longest > TAG_MAX:
                quotes += chunk.count(b'="') + chunk.count(b"='")
                self._bound(longest, quotes)
            if opened >= 0:
                gap, quotes = len(chunk) - opened, 0
            else:
                gap = longest
            yield chunk
        if held:
            yield held

    def _clean(self, chunk: bytes) -> bytes:
        if _BOM in chunk:
            self.late_marks += chunk.count(_BOM)
            chunk = chunk.replace(_BOM, b"")
        if len(chunk.translate(None, _CONTROLS)) != len(chunk):
            self.has_controls = True
            for code in _CONTROLS:
                chunk = chunk.replace(bytes((code,)), SHOWN_CONTROL.encode())
        return chunk

    def _prolog_of(self, chunk: bytes) -> bytes:
        prolog = read_prolog(chunk, self.name, allow_doctype=self._allow_doctype)
        if prolog.doctype is None:
            return chunk
        start, end = prolog.doctype
        return chunk[:start] + b"\n" * chunk.count(b"\n", start, end) + chunk[end:]

    def _bound(self, gap: int, quotes: int) -> None:
        if quotes > ATTRIBUTES_MAX:
            expected = f"at most {ATTRIBUTES_MAX} attributes of an element"
            raise self._refused("too-large-node", expected, "more")
        if gap > NODE_MAX:
            raise self._refused("too-large-node", f"a node of at most {NODE_MAX} bytes", "more")

    def _feed(self, parser: Any, chunk: bytes) -> None:
        try:
            parser.feed(chunk)
        except etree.XMLSyntaxError as error:
            raise self._undefined_in(parser) or self._explain(error) from None
        if undefined := self._undefined_in(parser):
            raise undefined

    def _close(self, parser: Any) -> None:
        try:
            parser.close()
        except etree.XMLSyntaxError as error:
            if undefined := self._undefined_in(parser):
                raise undefined from None
            place = Place(self.name, error.position[0] + self._shift, offset=self.read_bytes)
            found = _message(error)
            raise Refused(Fault("truncated", "the end of the document", found, place)) from None

    def _undefined_in(self, parser: Any) -> Refused | None:
        """An entity that nobody defines does not stop the parser: it only writes of it."""
        for entry in parser.feed_error_log:
            if entry.type in _UNDEFINED_ENTITY:
                return self._undefined(entry.line + self._shift, entry.message)
        return None

    def _undefined(self, line: int, message: str) -> Refused:
        expected = "characters, or the five entities of XML"
        return Refused(Fault("undefined-entity", expected, message[:120], Place(self.name, line)))

    def _explain(self, error: Any) -> Refused:
        line, column = error.position
        line += self._shift
        place = Place(self.name, line, f"{column}" if column else "", self.read_bytes)
        message = _message(error)
        if error.code in _TOO_LARGE or "too big" in message or "too long" in message:
            if "depth" in message:
                return Refused(Fault("too-deep", "at most 256 elements in each other", "", place))
            return Refused(Fault("too-large-node", f"nodes below {NODE_MAX} bytes", message, place))
        if error.code in _UNDEFINED_ENTITY:
            return self._undefined(line, message)
        if error.code in _NOT_TEXT:
            return Refused(Fault("bad-encoding", f"text in {self._encoding}", message, place))
        return Refused(Fault("malformed", "well-formed XML", message, place))

    def _place(self) -> Place:
        return Place(self.name, offset=self.read_bytes)

    def _refused(self, code: str, expected: str, found: str) -> Refused:
        return Refused(Fault(code, expected, found, self._place()))


class Inside:
    """Whether an element stands in one that is taken whole; asked anew for each new parent."""

    def __init__(self, whole: frozenset[str]) -> None:
        self._whole = whole
        self._parent: Element = None
        self._answer = False

    def __call__(self, element: Element) -> bool:
        """Whether this one does."""
        if not self._whole:
            return False
        parent = element.getparent()
        if parent is not self._parent:
            self._parent = parent
            self._answer = False
            while parent is not None and not self._answer:
                self._answer = LOCAL[parent.tag] in self._whole
                parent = parent.getparent()
        return self._answer


def _cut_mark(chunk: bytes) -> tuple[bytes, bytes]:
    """A block, and the half of a mark at its end that the next block completes."""
    if chunk.endswith((b"\xef", b"\xef\xbb")):
        cut = chunk.rindex(b"\xef")
        return chunk[:cut], chunk[cut:]
    return chunk, b""


def _without_marks(chunk: bytes) -> bytes:
    while True:
        found = chunk.lstrip()
        if not found.startswith(_BOM):
            # Only marks and what stands between them goes: lines are counted from the text.
            return chunk if not found.startswith(b"<?xml") else found
        chunk = found[len(_BOM) :]


def _message(error: Any) -> str:
    return str(error.msg or "").partition(", line ")[0].strip()[:120]
