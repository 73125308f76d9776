"""What the XML parts of Office and OpenDocument files would do, element by element.

One streaming pass per part, by local name: the same element means the same under the transitional
and the strict namespace and under any prefix. Field codes are put together over runs, paragraphs
and nested fields, because a field split into single letters works all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.parsers import expat

from quarantine.documents.sights import Sight
from quarantine.documents.tables import is_dde_cell
from quarantine.documents.targets import judge_relation, leads_away, runs_program

_DDE_FIELD = re.compile(r"^\s*(?:quote\s+)?\"?\s*dde(auto)?\b", re.IGNORECASE)
_FETCHING_FIELD = re.compile(
    r"^\s*(?:includetext|link|rd|import|database)\b[^\"]*?\"?\s*[^\"\s]*?"
    r"(?:https?:|ftp:|mhtml:|\\\\{1,4}[a-z0-9])",
    re.IGNORECASE,
)
_PICTURE_FIELD = re.compile(r"^\s*(?:includepicture|import)\s+\"?\s*(\\{2,4}[a-z0-9]|file://[^/])",
                            re.IGNORECASE)  # fmt: skip
_FIELD_CHARS_MAX = 1 << 16
_DEPTH_MAX = 512
_PACKAGED = ("package", "packager", "htmlfile", "scriptlet", "script:", "shellexplore", "wscript")
_RELATIONS = {
    "vbaproject": "office.vba",
    "wordvbadata": "office.vba",
    "xlmacrosheet": "office.xlm",
    "xlintlmacrosheet": "office.xlm",
    "control": "office.activex",
    "activexcontrolbinary": "office.activex",
}
_ODF_LOADING = {"object", "object-ole", "plugin", "applet", "floating-frame", "section-source",
                "table-source"}  # fmt: skip

Attributes = dict[str, str]


class Elements:
    """One part: feed its bytes, take its sights. Part names are for the place of a finding."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.sights: set[Sight] = set()
        self.depth = 0
        self.fields: list[list[str]] = []
        self.reading_instruction = False
        self.content_types: list[tuple[str, str]] = []

    def read(self, data: bytes) -> None:
        """Parse it all. A part that is not well-formed is read up to there, as Office does."""
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = self._entity
        parser.StartDoctypeDeclHandler = self._doctype
        try:
            parser.Parse(data, True)
        except (expat.ExpatError, LookupError, ValueError):
            if b"<!ENTITY" in data:
                self._see("office.dtd")

    def _see(self, code: str) -> None:
        if code:
            self.sights.add(Sight(code, self.part))

    def _entity(self, *declared: object) -> None:
        self._see("office.dtd")

    def _doctype(self, name: str, *rest: object) -> None:
        # Basic libraries of OpenDocument and files of OpenOffice 1 name a type; no part of OOXML does.
        if ":" not in name and not self.part.lower().startswith(
            ("basic/", "dialogs/", "meta-inf/")
        ):
            self._see("office.dtd")

    def _start(self, tag: str, attributes: Attributes) -> None:
        self.depth += 1
        if self.depth > _DEPTH_MAX:
            self._see("office.broken")
        local = tag.rpartition(":")[2]
        if judge := _JUDGES.get(local):
            judge(self, {key.rpartition(":")[2]: value for key, value in attributes.items()})
        elif local in _ODF_LOADING:
            self._odf_object(attributes)
        elif tag in ("script:event-listener", "script:event"):
            self._see("office.macro")
        if "xlink:href" in attributes:
            self._odf_link(attributes["xlink:href"])

    def _end(self, tag: str) -> None:
        self.depth -= 1
        self.reading_instruction = False

    def _text(self, text: str) -> None:
        if self.reading_instruction:
            self._add_instruction(text)

    def _odf_object(self, attributes: Attributes) -> None:
        target = attributes.get("xlink:href", "")
        if target and leads_away(target):
            self._see("office.external_object")

    def _odf_link(self, target: str) -> None:
        low = target.strip().lower()
        if low.startswith(("vnd.sun.star.script:", "macro:", "vnd.sun.star.execute:")):
            self._see("office.macro")
        elif runs_program(target) and not low.startswith(("vnd.sun.star", "#", ".uno:")):
            self._see("office.link_scheme")

    def relationship(self, attributes: Attributes) -> None:
        """External ones by where they lead, internal ones by what they are."""
        kind = attributes.get("Type", "").rpartition("/")[2]
        if attributes.get("TargetMode", "").lower() == "external":
            self._see(judge_relation(kind, attributes.get("Target", "")))
        else:
            self._see(_RELATIONS.get(kind.lower(), ""))

    def field_char(self, attributes: Attributes) -> None:
        """Beginning and end of a field, nested ones within."""
        kind = attributes.get("fldCharType", "")
        if kind == "begin":
            self.fields.append([])
        elif kind == "end" and self.fields:
            code = "".join(self.fields.pop())
            self.field(code)
            if self.fields:
                self.fields[-1].append(code)

    def instruction(self, attributes: Attributes) -> None:
        """Text of a field code follows."""
        self.reading_instruction = True

    def _add_instruction(self, text: str) -> None:
        if not self.fields:
            self.fields.append([])
        top = self.fields[-1]
        top.append(text)
        if len(top) > 1 and sum(map(len, top)) > _FIELD_CHARS_MAX:
            del top[1:]

    def simple_field(self, attributes: Attributes) -> None:
        """A field in one attribute."""
        self.field(attributes.get("instr", ""))

    def field(self, code: str) -> None:
        """A whole field code."""
        if _DDE_FIELD.match(code) or _DDE_FIELD.match(_unquote(code)):
            self._see("office.dde")
        elif _FETCHING_FIELD.match(code):
            self._see("office.external_object")
        elif _PICTURE_FIELD.match(code):
            self._see("office.external_picture")

    def cell(self, attributes: Attributes) -> None:
        """A cell of an Excel 2003 XML file."""
        if is_dde_cell(attributes.get("Formula", "").encode("utf-8")):
            self._see("office.dde")

    def ole_object(self, attributes: Attributes) -> None:
        """An embedded object, by the program that would open it."""
        program = (attributes.get("ProgID") or attributes.get("progId") or "").lower()
        if program.startswith(_PACKAGED):
            self._see("office.package")

    def click(self, attributes: Attributes) -> None:
        """What a click or a hover on a slide does."""
        action = attributes.get("action", "").lower()
        if action.startswith(("ppaction://program", "ppaction://macro")):
            self._see("office.action")

    def custom_ui(self, attributes: Attributes) -> None:
        """Menus of the document's own; one that runs something at opening."""
        if attributes.get("onLoad") or attributes.get("loadImage"):
            self._see("office.custom_ui")

    def dde(self, attributes: Attributes) -> None:
        """A data link of a workbook, of OpenDocument too."""
        self._see("office.dde")

    def macro_sheet(self, attributes: Attributes) -> None:
        """The root of an Excel 4 macro sheet."""
        self._see("office.xlm")

    def encryption(self, attributes: Attributes) -> None:
        """OpenDocument says in its manifest that a part is encrypted."""
        self._see("office.encrypted")

    def content_type(self, attributes: Attributes) -> None:
        """A type for one part, or for all parts with an ending."""
        where = attributes.get("PartName") or "." + attributes.get("Extension", "")
        self.content_types.append((where.lower(), attributes.get("ContentType", "").lower()))

    def flush(self) -> None:
        """At the end of a part: fields that were never closed."""
        while self.fields:
            self.field("".join(self.fields.pop()))


def _unquote(code: str) -> str:
    """QUOTE 68 68 69: letters written as numbers."""
    words = code.split()
    return "".join(
        chr(int(w)) if w.isdecimal() and len(w) < 6 else w + " "
        for w in words
        if w.upper() != "QUOTE"
    )


_JUDGES: dict[str, Callable[[Elements, Attributes], None]] = {
    "Relationship": Elements.relationship,
    "fldChar": Elements.field_char,
    "instrText": Elements.instruction,
    "fldSimple": Elements.simple_field,
    "Cell": Elements.cell,
    "OLEObject": Elements.ole_object,
    "oleObject": Elements.ole_object,
    "oleObj": Elements.ole_object,
    "hlinkClick": Elements.click,
    "hlinkHover": Elements.click,
    "hlinkMouseOver": Elements.click,
    "customUI": Elements.custom_ui,
    "ddeLink": Elements.dde,
    "dde-link": Elements.dde,
    "dde-source": Elements.dde,
    "dde-connection-decl": Elements.dde,
    "dde-connection": Elements.dde,
    "macrosheet": Elements.macro_sheet,
    "encryption-data": Elements.encryption,
    "Override": Elements.content_type,
    "Default": Elements.content_type,
}


def judge_content_types(types: list[tuple[str, str]], names: tuple[str, ...]) -> set[Sight]:
    """What the parts are by the package's own word, whatever they are called."""
    lower = {"/" + name.lower().lstrip("/") for name in names}
    own = {where for where, _ in types if not where.startswith(".")}
    sights = set()
    for where, kind in types:
        code = next((code for word, code in _KINDS if word in kind), "")
        if not code:
            continue
        if where.startswith("."):
            meant = {name for name in lower - own if name.endswith(where)}
        else:
            meant = lower & {where}
        sights |= {Sight(code, name.lstrip("/")) for name in meant}
    return sights


_KINDS = (
    ("vbaproject", "office.vba"),
    ("macrosheet", "office.xlm"),
    ("ms-office.activex", "office.activex"),
)
