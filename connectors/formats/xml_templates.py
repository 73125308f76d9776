"""Records of a shape that is known, taken straight from the text: most of a large catalogue.

A catalogue of 1C is a few shapes of record, each hundreds of thousands of times. The parser reads
the first records of a shape; from them one pattern is made, of their very tags in their order with
any text between. What comes next and matches it whole is such a record again: balanced, without a
comment, a section or an entity of its own, a sibling of the one before. It is taken from the match
and the parser never sees it; all else goes to the parser, as everything went before. So a record
that is altered, cut or hostile in any way is the parser's, and the answers are its answers.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from connectors.formats.xml import LOCAL, Element, Inside, XmlFile
from connectors.sdk.contract import Fault, Place, Refused

TEMPLATES_MAX = 48
TRIED_MAX = 8
HELD_MAX = 1 << 18
RUN = 16
_NODES_MAX = 400
_TEXT = r"[^<]*"
_VALUE = r"[^\"<&\t\n]*"
_GAP = r"[ \t\n]*"
# What a text may not hold, looked for only where there is an ampersand at all.
_find_other_entity = re.compile("&(?!(?:amp|lt|gt|quot|apos);)").search
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&"))
# The texts of a match without the blanks around them, and at the end an empty one: a part that a
# shape lacks is read from place -1.
Groups = list[str]


class Node:
    """An element of a shape. `text`: the group of its text if it is a leaf; `attributes`: theirs."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, element: Element) -> None:
        self.name: str = LOCAL[element.tag]
        self.text = -1
        self.attributes: dict[str, int] = {}
        self.children: list[Node] = []


Reader = Callable[[Groups, Place], None]
# What makes a reader of a shape, or None for one it leaves to the parser; and the names of the
# parts of a record that it reads (the text of others is not even taken).
Planner = Callable[[Node], Reader | None]


class Template:
    """The pattern of a shape, and its reader."""

    __slots__ = ("match", "read")

    def __init__(self, pattern: str, read: Reader) -> None:
        self.match = re.compile(pattern).match
        self.read = read


class Shapes:
    """The shapes of one sort of record, those met last first."""

    def __init__(self, planner: Planner, parts: frozenset[str]) -> None:
        self._planner = planner
        self._parts = parts
        self._met: Counter[tuple[Any, ...]] = Counter()
        self.templates: list[Template] = []

    def find(self, text: str, at: int) -> tuple[Template, re.Match[str]] | None:
        """The template that a whole record from there matches."""
        known = self.templates
        if known and (match := known[0].match(text, at)):
            return known[0], match
        for place, template in enumerate(known[1:TRIED_MAX], 1):
            if match := template.match(text, at):
                known.insert(0, known.pop(place))
                return template, match
        return None

    def learn(self, element: Element) -> None:
        """Look at a record that the parser read; the second of a shape makes a template."""
        if len(self.templates) >= TEMPLATES_MAX or len(self._met) > 4 * TEMPLATES_MAX:
            return
        shape = _shape_of(element)
        if shape is None:
            return
        self._met[shape] += 1
        if self._met[shape] != 2:
            return
        root = Node(element)
        counter = [0]
        inner = "".join(_pattern(child, root, counter, self._parts) for child in element)
        if (read := self._planner(root)) is not None:
            name = re.escape(root.name)
            self.templates.insert(0, Template(rf"{_GAP}<{name}>{inner}{_GAP}</{name}>", read))


def iter_records(
    file: XmlFile, *tags: str, whole: Iterable[str], shapes: dict[str, Shapes]
) -> Iterator[Element | None]:
    """As `XmlFile.iter_elements`, but records of known shapes are given to their readers here;
    for every few of them there is a None.
    """
    return _Run(file, tags, frozenset(whole), shapes).go()


class _Run:
    """One walk: the text not yet given away, and where in it we are."""

    def __init__(
        self, file: XmlFile, tags: tuple[str, ...], whole: frozenset[str], shapes: dict[str, Shapes]
    ) -> None:
        self._file = file
        self._parser = file.start_parser(tags)
        self._events = self._parser.read_events()
        self._inside = Inside(whole)
        self._shapes = shapes
        names = "|".join(map(re.escape, shapes)) or "(?!)"
        self._ends = re.compile(f"</({names})>")
        self._window = ""
        self._at = 0
        self._last: Element = None
        self._idle = 0, 0

    def go(self) -> Iterator[Element | None]:
        """Every element told of, in order."""
        for text in self._texts():
            self._window = self._window[self._at :] + text
            self._at = 0
            yield from self._take()
        yield from self._feed(self._window[self._at :])
        self._file.finish_parser(self._parser)
        yield from self._told()

    def _take(self) -> Iterator[Element | None]:
        """Give the window away: whole records to their templates, all else to the parser."""
        window = self._window
        while end := self._ends.search(window, self._at):
            piece = window[self._at : end.end()]
            self._at = end.end()
            yield from self._feed(piece)
            element = self._last
            if element is None or "<!" in piece or "<?" in piece:
                continue
            # The parser has just ended this very element with this very tag.
            if LOCAL[element.tag] == end[1]:
                yield from self._run_of(self._shapes[end[1]])
        if len(window) - self._at > HELD_MAX:
            yield from self._feed(window[self._at :])
            self._at = len(window)

    def _run_of(self, shapes: Shapes) -> Iterator[None]:
        """Siblings of known shapes, as long as they come."""
        window, file = self._window, self._file
        count, find, strip = window.count, window.find, str.strip
        name, begun = file.name, file.line_of_end
        line, at, taken = begun, self._at, 0
        while found := shapes.find(window, at):
            template, match = found
            ends = match.end()
            opened = find("<", at)
            groups = [*map(strip, match.groups("")), ""]
            if find("&", opened, ends) >= 0:
                if _find_other_entity(window, opened, ends):
                    break
                groups = [_plain(g) if "&" in g else g for g in groups]
            line += count("\n", at, opened)
            template.read(groups, Place(name, line))
            line += count("\n", opened, ends)
            at = ends
            taken += 1
            if taken % RUN == 0:
                yield None
        self._at = at
        file.skip_lines(line - begun)
        yield None

    def _feed(self, piece: str) -> Iterator[Element]:
        self._last = None
        if piece:
            self._file.feed(self._parser, piece.encode())
            yield from self._told()
        if self._last is not None:
            self._idle = 0, 0
        else:
            self._idle = self._file.wait(self._idle, piece, "<")

    def _told(self) -> Iterator[Element]:
        for _, element in self._events:
            self._last = None
            if self._inside(element):
                continue
            shapes = self._shapes.get(LOCAL[element.tag])
            if shapes is not None:
                shapes.learn(element)
            yield element
            element.clear()
            self._last = element
        if self._last is not None:
            self._file.forget_before(self._last)

    def _texts(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")()
        held = ""
        for chunk in self._file.iter_clean():
            text = held + self._decode(decoder, chunk)
            # Line ends as the parser would make them.
            held = "\r" if text.endswith("\r") else ""
            if held:
                text = text[:-1]
            if "\r" in text:
                text = text.replace("\r\n", "\n").replace("\r", "\n")
            yield text
        self._decode(decoder, b"", final=True)

    def _decode(self, decoder: Any, chunk: bytes, *, final: bool = False) -> str:
        try:
            return cast("str", decoder.decode(chunk, final))
        except UnicodeDecodeError as error:
            offset = self._file.read_bytes
            place = Place(self._file.name, self._file.line_of_end, offset=offset)
            if final:
                fault = Fault("truncated", "whole characters", "a half of one", place)
                raise Refused(fault) from None
            found = f"byte 0x{error.object[error.start]:02X}"
            raise Refused(Fault("bad-encoding", "text in utf-8", found, place)) from None


def _shape_of(element: Element) -> tuple[Any, ...] | None:
    """What makes two records equal but for their texts; None for what no template is made of."""
    if element.attrib or element.prefix:
        return None
    found: list[Any] = []
    for part in element.iterdescendants():
        if part.prefix or (len(part) and (part.text or "").strip()) or (part.tail or "").strip():
            return None
        found.append((LOCAL[part.tag], tuple(part.attrib), len(part)))
        if len(found) > _NODES_MAX or any("}" in name for name in part.attrib):
            return None
    return tuple(found)


def _pattern(
    element: Element, above: Node, counter: list[int], parts: frozenset[str] | None
) -> str:
    """The pattern of an element and all in it; `parts`: the names that are read at this level."""
    node = Node(element)
    above.children.append(node)
    is_read = parts is None or node.name in parts
    name = re.escape(node.name)
    said = ""
    for attribute in element.attrib:
        said += rf"\s+{re.escape(attribute)}=\"{_group(_VALUE, is_read)}\""
        if is_read:
            node.attributes[attribute] = _next(counter)
    if len(element) == 0:
        if is_read:
            node.text = _next(counter)
        return rf"{_GAP}<{name}{said}{_GAP}(?:/>|>{_group(_TEXT, is_read)}</{name}>)"
    inner = "".join(
        _pattern(child, node, counter, None if is_read else frozenset()) for child in element
    )
    return rf"{_GAP}<{name}{said}>{inner}{_GAP}</{name}>"


def _group(pattern: str, is_read: bool) -> str:  # noqa: FBT001
    return f"({pattern})" if is_read else pattern


def _next(counter: list[int]) -> int:
    counter[0] += 1
    return counter[0] - 1


def _plain(text: str) -> str:
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return text
