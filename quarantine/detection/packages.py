"""What a ZIP really is: an Office document by its content types, OpenDocument by its first entry."""

from __future__ import annotations

import re
from mmap import ACCESS_READ, mmap
from pathlib import Path

from quarantine.containers.budget import Refused
from quarantine.containers.unzip import read_entry
from quarantine.containers.zips import Entry, read_directory

ZIP = "application/zip"
JAR = "application/java-archive"
_ENTRIES_MAX = 100_000
_TYPES_BYTES_MAX = 4 * 1024 * 1024
_O = "application/vnd.openxmlformats-officedocument."
_M = "application/vnd.ms-"
_MAIN = {
    _O + "wordprocessingml.document": _O + "wordprocessingml.document",
    _O + "wordprocessingml.template": _O + "wordprocessingml.template",
    _M + "word.document.macroEnabled": _M + "word.document.macroenabled.12",
    _M + "word.template.macroEnabledTemplate": _M + "word.template.macroenabled.12",
    _O + "spreadsheetml.sheet": _O + "spreadsheetml.sheet",
    _O + "spreadsheetml.template": _O + "spreadsheetml.template",
    _M + "excel.sheet.macroEnabled": _M + "excel.sheet.macroenabled.12",
    _M + "excel.template.macroEnabled": _M + "excel.template.macroenabled.12",
    _M + "excel.addin.macroEnabled": _M + "excel.addin.macroenabled.12",
    _M + "excel.sheet.binary.macroEnabled": _M + "excel.sheet.binary.macroenabled.12",
    _O + "presentationml.presentation": _O + "presentationml.presentation",
    _O + "presentationml.slideshow": _O + "presentationml.slideshow",
    _O + "presentationml.template": _O + "presentationml.template",
    _M + "powerpoint.presentation.macroEnabled": _M + "powerpoint.presentation.macroenabled.12",
    _M + "powerpoint.slideshow.macroEnabled": _M + "powerpoint.slideshow.macroenabled.12",
    _M + "powerpoint.template.macroEnabled": _M + "powerpoint.template.macroenabled.12",
    _M + "powerpoint.addin.macroEnabled": _M + "powerpoint.addin.macroenabled.12",
    _M + "visio.drawing": _M + "visio.drawing",
    _M + "visio.drawing.macroEnabled": _M + "visio.drawing.macroenabled.12",
}
_WITH_MACROS = {
    _O + "wordprocessingml.document": _M + "word.document.macroenabled.12",
    _O + "wordprocessingml.template": _M + "word.template.macroenabled.12",
    _O + "spreadsheetml.sheet": _M + "excel.sheet.macroenabled.12",
    _O + "spreadsheetml.template": _M + "excel.template.macroenabled.12",
    _O + "presentationml.presentation": _M + "powerpoint.presentation.macroenabled.12",
    _O + "presentationml.slideshow": _M + "powerpoint.slideshow.macroenabled.12",
    _M + "visio.drawing": _M + "visio.drawing.macroenabled.12",
}
DOCUMENTS = frozenset({*_MAIN.values()})
OPEN_DOCUMENT = re.compile(r"application/vnd\.oasis\.opendocument\.[a-z-]{3,40}\Z")
_OVERRIDE = re.compile(r"<(?:\w+:)?Override\b[^<>]{0,2000}>")
_CONTENT_TYPE = re.compile(r"""ContentType\s*=\s*["']([^"']{1,200})["']""")
_EBOOK = "application/epub+zip"


def is_document(type_: str) -> bool:
    """Whether the parts of such a file are parts of one document, not files of their own."""
    return type_ in DOCUMENTS or bool(OPEN_DOCUMENT.match(type_)) or type_ == _EBOOK


def type_of_zip(path: Path) -> str:
    """The type of a file that starts like a ZIP; plain ZIP when nothing better is certain."""
    if path.stat().st_size == 0:
        return ZIP
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        try:
            entries = read_directory(data, _ENTRIES_MAX)
            return _type(data, entries)
        except Refused:
            # The walk of containers says what is wrong with it.
            return ZIP


def _type(data: mmap, entries: list[Entry]) -> str:
    by_name = {entry.name: entry for entry in entries}
    if types := by_name.get("[Content_Types].xml"):
        return _office(read_entry(data, types, _TYPES_BYTES_MAX), by_name)
    if entries and entries[0].name == "mimetype" and entries[0].method == 0:
        said = read_entry(data, entries[0], 200).decode("ascii", "replace").strip()
        if OPEN_DOCUMENT.match(said) or said == _EBOOK:
            return said
    low = {name.lower() for name in by_name}
    if "androidmanifest.xml" in low or any(n.endswith((".class", ".dex")) for n in low):
        return JAR
    if "meta-inf/manifest.mf" in low:
        return JAR
    return ZIP


def _office(content: bytes, by_name: dict[str, Entry]) -> str:
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    except UnicodeDecodeError:
        return ZIP
    said = set(_CONTENT_TYPE.findall(text))
    # Some writers give defaults for every kind there is; what a part is said to be goes first.
    mains = _mains(set(_CONTENT_TYPE.findall("".join(_OVERRIDE.findall(text))))) or _mains(said)
    if len(mains) != 1:
        return ZIP
    main = mains.pop()
    macros = any("vbaProject" in type_ for type_ in said) or any(
        name.lower().endswith("vbaproject.bin") for name in by_name
    )
    return _WITH_MACROS.get(main, main) if macros else main


def _mains(said: set[str]) -> set[str]:
    bare = {t.removesuffix("+xml").removesuffix(".main") for t in said if ".main" in t[-10:]}
    return {_MAIN[type_] for type_ in bare if type_ in _MAIN}
