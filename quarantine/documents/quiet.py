"""The four readers of oletools, as functions over bytes or a path, quiet and without side effects.

oletools log through loggers that are off unless somebody turns them on, print only from their
command lines, and write files only in `oleobj.process_file`; none of these is called here. What a
reader cannot take is its own business: each raises what it raises, the caller decides.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import Any

import olefile
from oletools import msodde, oleid, oleobj, olevba, ooxml, rtfobj, xls_parser

from quarantine.documents.targets import judge_relation

PAINTBRUSH = "0003000A-0000-0000-C000-000000000046"
_BOUND_SHEET, _SUP_BOOK, _MACRO_SHEET = 0x85, 0x1AE, 1
_DDE_BEGINS = re.compile(
    rb"\x13[\x00-\x20\"]{0,64}d\x00?d\x00?e\x00?(?:[\x00 \t\"]|a\x00?u)", re.IGNORECASE
)
_CONTROLS = {"\x03ocxname", "ocxdata", "ctls", "\x03ocxdata", "\x03pidhocx"}


def find_macros(data: bytes) -> Iterator[str]:
    """By olevba: VBA projects and loose VBA code in any OLE file within, Excel 4 macro sheets."""
    parser = olevba.VBA_Parser("document", data=data, disable_pcode=True)
    try:
        # Text of any sort counts as VBA source there, since it might be; here it is a document.
        if parser.type != olevba.TYPE_TEXT and parser.detect_vba_macros():
            yield "office.vba"
        if parser.detect_xlm_macros():
            yield "office.xlm"
    finally:
        parser.close()


def find_indicators(data: bytes) -> Iterator[str]:
    """By oleid: encryption, macros, Flash. Its count of external links has ordinary ones, so not that."""
    checker = _Indicators(data=data)
    checker.check()
    values = {indicator.id: indicator.value for indicator in checker.indicators}
    if values.get("encrypted") is True:
        yield "office.encrypted"
    if str(values.get("vba", "")).startswith("Yes"):
        yield "office.vba"
    if values.get("xlm") == "Yes":
        yield "office.xlm"
    if values.get("flash"):
        yield "office.flash"


class _Indicators(oleid.OleID):  # type: ignore[misc]
    """Without titles and authors: they tell nothing here, and a damaged list of them takes minutes."""

    def check_properties(self) -> None:
        return None


def find_relations(package: bytes) -> Iterator[str]:
    """By oleobj: external relationships and menus that run something at opening."""
    parser = ooxml.XmlParser(io.BytesIO(package))
    for kind, target in oleobj.find_external_relationships(parser):
        if code := judge_relation(kind, target):
            yield code
    if any(oleobj.find_customUI(ooxml.XmlParser(io.BytesIO(package)))):
        yield "office.custom_ui"


def find_fields(package: bytes) -> Iterator[str]:
    """By msodde: fields of text documents, links of workbooks."""
    word = msodde.process_docx(io.BytesIO(package), msodde.FIELD_FILTER_DDE)
    if word.strip() or msodde.process_xlsx(io.BytesIO(package)).strip():
        yield "office.dde"


def find_macro_store(data: bytes) -> Iterator[str]:
    """By olevba: a macro store in one XML file or web archive; other XML has none."""
    try:
        yield from find_macros(data)
    except olevba.FileOpenError:
        return


def find_packages(data: bytes) -> Iterator[str]:
    """By oleobj: packed files in an OLE file, also inside the records of an old presentation."""
    for ole in oleobj.find_ole("document", data):
        if ole is None:
            raise OSError("not readable as a compound file")
        for path in ole.listdir(streams=True, storages=False):
            if path[-1].lower() == "\x01ole10native" and not _is_paintbrush(ole, path):
                yield "office.package"


def _is_paintbrush(ole: Any, path: list[str]) -> bool:
    """A picture pasted from Paint lies in the same sort of stream as a packed file."""
    storage = path[:-1]
    clsid = ole.getclsid(storage) if storage else ole.root.clsid
    return str(clsid).upper() == PAINTBRUSH


def claimed_bytes(ole: Any) -> int:
    """How large all streams together say they are, orphans too."""
    total = 0
    for number, known in enumerate(ole.direntries):
        entry = known or ole._load_direntry(number)  # noqa: SLF001 - orphans have no other way
        if entry.entry_type in (olefile.STGTY_STREAM, olefile.STGTY_ROOT):
            total += int(entry.size)
    return total


def find_streams(ole: Any) -> Iterator[str]:
    """What the names of streams and storages say (encryption, controls, projects)."""
    for path in ole.listdir(streams=True, storages=True):
        name = path[-1].lower()
        if name in ("encryptedpackage", "encryptioninfo", "encryptedsummary"):
            yield "office.encrypted"
        elif name in _CONTROLS:
            yield "office.activex"
        elif name in ("_vba_project", "_vba_project_cur"):
            yield "office.vba"


def find_workbook_links(path_or_data: Any) -> Iterator[str]:
    """Records of an old workbook: data links (msodde's reader) and macro sheets.

    msodde itself would also report every link to another workbook, which is everyday.
    """
    book = xls_parser.XlsFile(path_or_data)
    try:
        for stream in book.iter_streams():
            if isinstance(stream, xls_parser.WorkbookStream):
                yield from map(_judge_record, stream.iter_records())
    except (ValueError, KeyError, OSError, struct.error):
        # A damaged record stops the library, perhaps not every spreadsheet program.
        for name in ("Workbook", "Book"):
            if book.exists(name):
                yield from _walk_records(book.openstream(name).read())
    finally:
        book.close()


def _judge_record(record: Any) -> str:
    if isinstance(record, xls_parser.XlsRecordSupBook):
        return "office.dde" if record.support_link_type == record.LINK_TYPE_OLE_DDE else ""
    return _judge_bytes(record.type, record.data or b"")


def _judge_bytes(kind: int, data: bytes) -> str:
    if kind == _BOUND_SHEET and len(data) > 5 and data[5] == _MACRO_SHEET:
        return "office.xlm"
    if kind == _SUP_BOOK and len(data) > 5:
        sheets, length = struct.unpack_from("<HH", data)
        return "office.dde" if sheets == 0 and 1 < length <= 0xFF else ""
    return ""


def _walk_records(data: bytes) -> Iterator[str]:
    at = 0
    while at + 4 <= len(data):
        kind, size = struct.unpack_from("<HH", data, at)
        yield _judge_bytes(kind, data[at + 4 : at + 4 + size])
        at += 4 + size


def find_document_fields(ole: Any) -> Iterator[str]:
    """By msodde over old text documents, at the places where a DDE field may begin.

    Msodde goes through every byte of every stream in Python, a minute for a document with
    pictures; a search for the beginning of such a field picks the places first.
    """
    for number in range(len(ole.direntries)):
        entry = ole.direntries[number] or ole._load_direntry(number)  # noqa: SLF001 - orphans too
        if entry.entry_type != olefile.STGTY_STREAM:
            continue
        data = ole._open(entry.isectStart, entry.size).read()  # noqa: SLF001 - orphans have no path
        for begin in _DDE_BEGINS.finditer(data):
            around = data[begin.start() : begin.start() + msodde.OLE_FIELD_MAX_SIZE * 2]
            # Msodde overlooks a space before the word in UTF-16; in the text that is one all the same.
            if entry.name == "WordDocument" or msodde.process_doc_stream(io.BytesIO(around)):
                yield "office.dde"
                return


def find_rtf(data: bytes) -> Iterator[str]:
    """By rtfobj and msodde's field reader in one pass: objects, fields, templates, updates."""
    reader = _RtfReader(data)
    reader.parse()
    for thing in reader.objects:
        name = (thing.class_name or b"").lower()
        yield "office.package" if name.startswith(b"package") else "office.rtf_object"
    yield from sorted(reader.codes)
    for field in reader.fields:
        if msodde.FIELD_DDE_REGEX.match(field.decode("latin-1")):
            yield "office.dde"


class _RtfReader(rtfobj.RtfObjParser):  # type: ignore[misc]
    """Rtfobj's reader, which also notes fields, templates and words that open an object.

    Texts grow in place: the library joins bytes, and a letter in Russian, which is one escape for
    each character, would take minutes.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.codes: set[str] = set()
        self.fields: list[bytes] = []
        self.current_destination.data = bytearray()

    def open_destination(self, destination: Any) -> None:
        super().open_destination(destination)
        destination.data = bytearray()

    def control_word(self, matchobject: Any, cword: bytes, param: Any) -> None:
        if cword in (b"objupdate", b"objautlink"):
            self.codes.add("office.object_update")
        elif cword in (b"objocx", b"objhtml"):
            self.codes.add("office.activex")

    def control_symbol(self, matchobject: Any) -> None:
        super().control_symbol(matchobject)
        if self.current_destination.cword in (b"fldinst", b"template"):
            self.current_destination.data += matchobject.group()[1:2]

    def close_destination(self, destination: Any) -> None:
        super().close_destination(destination)
        text = bytes(destination.data)
        if destination.cword == b"fldinst":
            self.fields.append(text.translate(None, b"\r\n").strip())
        elif destination.cword == b"template":
            target = text.decode("latin-1").strip()
            if judge_relation("attachedTemplate", target) or not target:
                self.codes.add("office.external_template")
