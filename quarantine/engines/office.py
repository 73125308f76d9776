"""Office files: whatever in them runs, fetches, starts another program, or hides.

OOXML (docx, xlsx, pptx, xlsb and kin), old OLE files, RTF, OpenDocument, single-file XML and
tables in text. All four readers of oletools where they apply (olevba, oleid, msodde, oleobj), over a
copy of the package that is reduced to the parts that matter, and a pass of our own over the same
elements, because each of the four misses something (fields inside hyperlinks, the strict
namespace, macro sheets in OOXML, OpenDocument altogether).

Everyday and clean: links that one clicks, charts, pictures, pivot caches, links between workbooks,
embedded tables, templates on the sender's own disk.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

import olefile

from quarantine.contract import Finding, Policy, Verdict
from quarantine.documents import quiet, tables
from quarantine.documents.elements import Elements, judge_content_types
from quarantine.documents.package import OLE_MAGIC, Package, Part, peek_names, read_package
from quarantine.documents.sights import SENTENCES, Sight
from quarantine.engines.base import Leaf, Unscannable

HEAD_BYTES = 4096
WHOLE_BYTES_MAX = 100 << 20
"""Readers that want the whole file in memory get files up to here."""

_TABLE_TYPES = {"text/csv", "text/tab-separated-values", "application/csv"}
_TABLE_ENDINGS = (".csv", ".tsv", ".tab", ".slk")
_PACKAGE_ENDINGS = (".docx", ".xlsx", ".pptx", ".xlsb", ".docm", ".xlsm", ".pptm", ".dotx", ".xltx",
                    ".odt", ".ods", ".odp")  # fmt: skip
_XML_HINTS = (
    b"mso-application",
    b"pkg:package",
    b"<office:document ",
    b"<office:document\n",
    b"<office:document\r",
    b"schemas-microsoft-com:office",
)
_WORKBOOK_BOF = (b"\x09\x00\x04\x00", b"\x09\x02\x06\x00", b"\x09\x04\x06\x00", b"\x09\x08\x08\x00")


class OfficeEngine:
    """One file at a time; parts of a package are its own business, nested documents come as leaves."""

    name = "office"
    version = f"1; oletools {version('oletools')}; olefile {olefile.__version__}"

    def wants(self, leaf: Leaf) -> bool:
        """By the head of the bytes; a table in text by type or name."""
        return _choose(leaf) is not None

    def examine(self, leaf: Leaf, policy: Policy) -> Iterable[Finding]:
        """Suspicious findings by code and part. Raises Unscannable over a limit."""
        look = _choose(leaf)
        if look is None:
            return []
        found = look(leaf, policy, time.monotonic() + policy.seconds_max)
        return [
            Finding(
                self.name,
                sight.code,
                Verdict.SUSPICIOUS,
                SENTENCES[sight.code],
                _place(leaf, sight),
            )
            for sight in sorted(found, key=lambda s: (s.code, s.part))
        ]


def _place(leaf: Leaf, sight: Sight) -> str:
    return f"{leaf.place or leaf.name}/{sight.part[:200]}" if sight.part else leaf.place


def _choose(leaf: Leaf) -> Callable[[Leaf, Policy, float], set[Sight]] | None:
    """The way to look at it."""
    with leaf.path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    start = head.lstrip()
    look: Callable[[Leaf, Policy, float], set[Sight]] | None = None
    if head.startswith(OLE_MAGIC):
        look = _look_at_compound
    elif head.startswith(b"PK"):
        names = peek_names(leaf.path)
        if not names and leaf.name.lower().endswith(_PACKAGE_ENDINGS):
            look = _look_at_package  # a damaged one
        if (
            "[Content_Types].xml" in names
            or "mimetype" in names
            or "META-INF/manifest.xml" in names
        ):
            look = _look_at_package
    elif start.startswith(b"{\\rt"):
        look = _look_at_rtf
    elif start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        look = _look_at_xml if any(hint in head for hint in _XML_HINTS) else None
    elif head.startswith(_WORKBOOK_BOF):
        look = _look_at_bare_workbook
    elif b"mime-version" in head.lower() and leaf.name.lower().endswith((".mht", ".mhtml", ".doc")):
        look = _look_at_web_archive
    elif head.startswith(b"ID;P"):
        look = _look_at_sheet_in_text
    elif leaf.type in _TABLE_TYPES or leaf.name.lower().endswith(_TABLE_ENDINGS):
        look = _look_at_table
    return look


def _look_at_package(leaf: Leaf, policy: Policy, deadline: float) -> set[Sight]:
    try:
        package = read_package(leaf.path, policy, deadline)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError):
        return {Sight("office.broken")}
    except Exception as fault:
        if type(fault).__name__ == "error":  # zlib.error, lzma.LZMAError: damaged data
            return {Sight("office.broken")}
        raise
    found: set[Sight] = {Sight("office.encrypted")} if package.encrypted else set()
    types: list[tuple[str, str]] = []
    for part in package.parts:
        _check_time(deadline)
        found |= _look_at_part(part, types)
    found |= judge_content_types(types, package.names)
    found |= _look_at_names(package)
    if not any(sight.code == "office.dtd" for sight in found):
        # A document type goes to no reader that might expand it.
        found |= _run_readers(package, deadline)
    return _without_echo(found)


def _look_at_part(part: Part, types: list[tuple[str, str]]) -> set[Sight]:
    if part.xml:
        elements = Elements(part.name)
        elements.read(part.data)
        elements.flush()
        types.extend(elements.content_types)
        return elements.sights
    if part.data.startswith(OLE_MAGIC):
        return {Sight(code, part.name) for code in _judge_compound(part.data)}
    return set()


def _look_at_names(package: Package) -> set[Sight]:
    """Macro folders of OpenDocument, and a VBA project that nothing else in the package names."""
    found = set()
    for name in package.names:
        low = name.lower()
        listing = low.endswith(("/", "-lb.xml", "-lc.xml"))
        if low.startswith(("scripts/", "basic/")) and not listing:
            found.add(Sight("office.macro", name))
        elif low.rpartition("/")[2].startswith("vbaproject") and low.endswith(".bin"):
            found.add(Sight("office.vba", name))
    return found


def _run_readers(package: Package, deadline: float) -> set[Sight]:
    reduced = package.reduced()
    found: set[Sight] = set()
    readers = (
        quiet.find_macros,
        quiet.find_relations,
        quiet.find_fields,
        quiet.find_indicators,
    )
    for reader in readers:
        _check_time(deadline)
        found |= {Sight(code) for code in _codes(reader(reduced))}
    return found


def _codes(reader: Iterator[str]) -> Iterator[str]:
    """What a reader sees; one that stumbles over the data has not looked, so the file is held."""
    try:
        yield from (code for code in reader if code)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - readers of hostile bytes raise whatever there is
        yield "office.broken"


def _without_echo(found: set[Sight]) -> set[Sight]:
    """A reader names no part; when a part is known for the same code, that one says it all."""
    placed = {sight.code for sight in found if sight.part}
    return {sight for sight in found if sight.part or sight.code not in placed}


def _look_at_compound(leaf: Leaf, policy: Policy, deadline: float) -> set[Sight]:
    return {Sight(code) for code in _judge_compound(_read_whole(leaf))}


def _judge_compound(data: bytes) -> Iterator[str]:
    """Every code that an OLE file earns; damaged ones are held, for programs read them differently."""
    try:
        ole = olefile.OleFileIO(data)
    except (OSError, ValueError, TypeError, IndexError, KeyError):
        yield "office.broken"
        return
    with ole:
        if quiet.claimed_bytes(ole) > 2 * len(data):
            # Streams that overlap or go in circles: readers would follow them for hours.
            yield "office.broken"
            return
        readers: list[Iterator[str]] = [quiet.find_streams(ole)]
        if ole.exists("WordDocument"):
            readers.append(quiet.find_document_fields(ole))
        if ole.exists("Workbook") or ole.exists("Book"):
            readers.append(quiet.find_workbook_links(data))
        readers += [quiet.find_packages(data), quiet.find_macros(data), quiet.find_indicators(data)]
        for reader in readers:
            yield from _codes(reader)


def _look_at_bare_workbook(leaf: Leaf, policy: Policy, deadline: float) -> set[Sight]:
    """Excel 2 to 4 wrote records without a container; the first says what sort of sheet it is."""
    head = leaf.path.open("rb").read(8)
    return {Sight("office.xlm")} if head[6:8] in (b"\x40\x00", b"\x00\x01") else set()


def _look_at_rtf(leaf: Leaf, policy: Policy, deadline: float) -> set[Sight]:
    return {Sight(code) for code in _codes(quiet.find_rtf(_read_whole(leaf).lstrip()))}


def _look_at_xml(leaf: Leaf, policy: Policy, deadline: float) -> set[Sight]:
    """One XML file of Word or Excel 2003, flat OPC, or flat OpenDocument."""
    elements = Elements("")
    data = _read_whole(leaf)
    elements.read(data)
    elements.flush()
    if b"<!DOCTYPE" in data:
        return elements.sights
    return elements.sights | _look_for_store(data)


def _look_at_web_archive(leaf: Leaf, policy: Policy, deadline: float) -> set[Sight]:
    return _look_for_store(_read_whole(leaf))


def _look_for_store(data: bytes) -> set[Sight]:
    """The macro store that Word hides in single files, by olevba."""
    return {Sight(code) for code in _codes(quiet.find_macro_store(data))}


def _look_at_sheet_in_text(leaf: Leaf, policy: Policy, deadline: float) -> set[Sight]:
    """SYLK: a sheet of macros, and formulas as in any table in text."""
    found = {Sight(code) for code in _codes(quiet.find_macros(_read_whole(leaf)))}
    return found | _look_at_table(leaf, policy, deadline)


def _look_at_table(leaf: Leaf, policy: Policy, deadline: float) -> set[Sight]:
    return {Sight("text.dde")} if tables.holds_dde(leaf.path, deadline) else set()


def _read_whole(leaf: Leaf) -> bytes:
    if leaf.path.stat().st_size > WHOLE_BYTES_MAX:
        raise Unscannable("The document is larger than its readers can look at.")
    return leaf.path.read_bytes()


def _check_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Unscannable("The document took longer than the policy allows.")


ENGINE = OfficeEngine()
