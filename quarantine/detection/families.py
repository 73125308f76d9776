"""Which types an extension may have, and which types are never mere content."""

from __future__ import annotations

from quarantine.detection.packages import DOCUMENTS, JAR
from quarantine.detection.texts import HTML, SCRIPTS, SVG, TEXTS

EXECUTABLES = frozenset(
    {
        "application/x-dosexec",
        "application/x-elf",
        "application/x-mach-binary",
        "application/x-executable",
        "application/x-sharedlib",
        "application/x-pie-executable",
        "application/x-object",
        "application/wasm",
        "application/x-dex",
        "application/java-vm",
        "application/x-ms-shortcut",
        "application/x-msi",
        "application/vnd.ms-htmlhelp",
        "application/vnd.android.package-archive",
        JAR,
    }
)
EXECUTABLE_EXTENSIONS = frozenset(
    "exe dll com scr cpl sys drv ocx msi msp mst msix appx appxbundle msixbundle jar class apk dex "
    "elf so dylib bin run app dmg pkg deb rpm chm hlp lnk pif gadget xpi crx ade adp application "
    "appref-ms wasm xll library-ms search-ms url scf settingcontent-ms iqy diagcab".split()
)
SCRIPT_EXTENSIONS = frozenset(
    "bat cmd ps1 psm1 psd1 ps1xml vbs vbe js jse mjs cjs wsf wsh wsc sct hta sh bash zsh csh ksh "
    "fish py pyc pyw pyz php phtml php5 phar asp aspx jsp jspx cgi pl rb lua ahk au3 reg inf msc "
    "applescript scpt ws vb job".split()
)

_O = "application/vnd.openxmlformats-officedocument."
_ODF = "application/vnd.oasis.opendocument."
_TEXT_EXTENSIONS = (
    "txt csv tsv tab log md rst ini cfg conf yaml yml toml json jsonl ndjson geojson xml xsd xsl "
    "xslt wsdl rss atom kml gpx sql sta mt940 mt94 mt940x mta 940 942 swi swift ofx qfx qbo qif "
    "camt pain ics vcf eml srt properties gitattributes gitignore diff patch tex po cml dtd rels "
    "vml rdf kl edi asc text prn dat out old bak xhb aba fin 1c"
)
_TYPES: dict[str, frozenset[str]] = {
    **dict.fromkeys(_TEXT_EXTENSIONS.split(), TEXTS),
    "md": TEXTS | {HTML},
    "docx": frozenset({_O + "wordprocessingml.document"}),
    "dotx": frozenset({_O + "wordprocessingml.template"}),
    "docm": frozenset({"application/vnd.ms-word.document.macroenabled.12"}),
    "dotm": frozenset({"application/vnd.ms-word.template.macroenabled.12"}),
    "xlsx": frozenset({_O + "spreadsheetml.sheet"}),
    "xltx": frozenset({_O + "spreadsheetml.template"}),
    "xlsm": frozenset({"application/vnd.ms-excel.sheet.macroenabled.12"}),
    "xltm": frozenset({"application/vnd.ms-excel.template.macroenabled.12"}),
    "xlam": frozenset({"application/vnd.ms-excel.addin.macroenabled.12"}),
    "xlsb": frozenset({"application/vnd.ms-excel.sheet.binary.macroenabled.12"}),
    "pptx": frozenset({_O + "presentationml.presentation"}),
    "ppsx": frozenset({_O + "presentationml.slideshow"}),
    "potx": frozenset({_O + "presentationml.template"}),
    "pptm": frozenset({"application/vnd.ms-powerpoint.presentation.macroenabled.12"}),
    "ppsm": frozenset({"application/vnd.ms-powerpoint.slideshow.macroenabled.12"}),
    "potm": frozenset({"application/vnd.ms-powerpoint.template.macroenabled.12"}),
    "vsdx": frozenset({"application/vnd.ms-visio.drawing"}),
    "vsdm": frozenset({"application/vnd.ms-visio.drawing.macroenabled.12"}),
    # Word and Excel of 2003 wrote XML under the old endings, and programs export it to this day.
    "doc": frozenset({"application/msword", "application/xml"}),
    "dot": frozenset({"application/msword"}),
    "xls": frozenset({"application/vnd.ms-excel", "application/xml"}),
    "xlt": frozenset({"application/vnd.ms-excel"}),
    "ppt": frozenset({"application/vnd.ms-powerpoint"}),
    "pps": frozenset({"application/vnd.ms-powerpoint"}),
    "vsd": frozenset({"application/vnd.visio"}),
    "msg": frozenset({"application/vnd.ms-outlook"}),
    "rtf": frozenset({"text/rtf"}),
    "odt": frozenset({_ODF + "text"}),
    "ott": frozenset({_ODF + "text-template"}),
    "ods": frozenset({_ODF + "spreadsheet"}),
    "ots": frozenset({_ODF + "spreadsheet-template"}),
    "odp": frozenset({_ODF + "presentation"}),
    "odg": frozenset({_ODF + "graphics"}),
    "epub": frozenset({"application/epub+zip"}),
    "pdf": frozenset({"application/pdf"}),
    "html": frozenset({HTML}),
    "htm": frozenset({HTML}),
    "xhtml": frozenset({HTML, "application/xml"}),
    "svg": frozenset({SVG}),
    "png": frozenset({"image/png"}),
    "jpg": frozenset({"image/jpeg"}),
    "jpeg": frozenset({"image/jpeg"}),
    "jpe": frozenset({"image/jpeg"}),
    "jfif": frozenset({"image/jpeg"}),
    "gif": frozenset({"image/gif"}),
    "bmp": frozenset({"image/bmp"}),
    "tif": frozenset({"image/tiff"}),
    "tiff": frozenset({"image/tiff"}),
    "webp": frozenset({"image/webp"}),
    "heic": frozenset({"image/heic"}),
    "heif": frozenset({"image/heic"}),
    "avif": frozenset({"image/avif"}),
    "ico": frozenset({"image/vnd.microsoft.icon", "image/x-icon", "image/png"}),
    "emf": frozenset({"image/emf"}),
    "wmf": frozenset({"image/emf", "image/wmf"}),
    "dbf": frozenset({"application/x-dbf"}),
    "zip": frozenset({"application/zip"}),
    "tar": frozenset({"application/x-tar"}),
    "gz": frozenset({"application/gzip"}),
    "tgz": frozenset({"application/gzip"}),
    "bz2": frozenset({"application/x-bzip2"}),
    "tbz": frozenset({"application/x-bzip2"}),
    "tbz2": frozenset({"application/x-bzip2"}),
    "xz": frozenset({"application/x-xz"}),
    "txz": frozenset({"application/x-xz"}),
    "lzma": frozenset({"application/x-lzma"}),
    "zst": frozenset({"application/zstd"}),
    "tzst": frozenset({"application/zstd"}),
    "7z": frozenset({"application/x-7z-compressed"}),
    "rar": frozenset({"application/vnd.rar"}),
    "mp3": frozenset({"audio/mpeg"}),
    "wav": frozenset({"audio/wav"}),
    "ogg": frozenset({"audio/ogg", "video/ogg", "application/ogg"}),
    "oga": frozenset({"audio/ogg"}),
    "opus": frozenset({"audio/ogg"}),
    "flac": frozenset({"audio/flac", "audio/x-flac"}),
    "m4a": frozenset({"audio/mp4", "video/mp4"}),
    "amr": frozenset({"audio/AMR", "audio/amr"}),
    "mp4": frozenset({"video/mp4", "audio/mp4"}),
    "m4v": frozenset({"video/mp4"}),
    "mov": frozenset({"video/quicktime", "video/mp4"}),
    "3gp": frozenset({"video/mp4", "video/3gpp"}),
    "webm": frozenset({"video/webm"}),
    "mkv": frozenset({"video/x-matroska"}),
    "avi": frozenset({"video/x-msvideo"}),
}
_WITHOUT_EXTENSION = TEXTS | {"application/x-dbf"}
_LITTER = {
    ".ds_store": "application/x-apple-ds-store",
    "thumbs.db": "application/x-thumbs",
    "desktop.ini": "text/plain",
}


def types_of(extension: str) -> frozenset[str]:
    """The types that a file with this extension may have; empty when the extension is unknown."""
    return _TYPES.get(extension, frozenset())


def extension_of_type(type_: str) -> str:
    """The usual extension of a type; empty when it has none here."""
    return next((ext for ext, types in _TYPES.items() if type_ in types), "")


def is_fine_unnamed(type_: str) -> bool:
    """Whether a type may come without an extension, or with one that nobody knows."""
    return type_ in _WITHOUT_EXTENSION


def is_litter(name: str, type_: str) -> bool:
    """Whether it is what a desktop leaves in archives, under its own name and of its own kind."""
    if name.startswith("._"):
        return type_ == "application/applefile"
    return _LITTER.get(name.lower()) == type_


def never_content(type_: str) -> str:
    """`executable`, `script` or empty."""
    if type_ in EXECUTABLES:
        return "executable"
    return "script" if type_ in SCRIPTS else ""


DOCUMENT_TYPES = DOCUMENTS
