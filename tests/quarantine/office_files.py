"""Makers of office files, hostile in shape and harmless in deed; each writes one file."""

import base64
import io
import struct
import zipfile
import zlib
from pathlib import Path

from tests.quarantine.compound_file import write_compound

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/wordprocessingml/main"
REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
MS_REL = "http://schemas.microsoft.com/office/2006/relationships"
CT = "application/vnd.openxmlformats-officedocument."
HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
PACKAGE_CLSID = bytes.fromhex("0c000300000000c0000000000000004600")[:16]
PAINT_CLSID = struct.pack("<IHH", 0x0003000A, 0, 0) + bytes.fromhex("c000000000000046")

MAIN = {
    "docx": ("word/document.xml", CT + "wordprocessingml.document.main+xml"),
    "xlsx": ("xl/workbook.xml", CT + "spreadsheetml.sheet.main+xml"),
    "xlsb": ("xl/workbook.bin", "application/vnd.ms-excel.sheet.binary.macroEnabled.main"),
    "pptx": ("ppt/presentation.xml", CT + "presentationml.presentation.main+xml"),
}


def relations(*rows):
    """rows: (type, target) or (type, target, "External"); the type is a last word or an address."""
    text = ""
    for number, (kind, target, *mode) in enumerate(rows, 1):
        address = kind if "/" in kind else f"{REL}/{kind}"
        external = ' TargetMode="External"' if mode else ""
        text += f'<Relationship Id="rId{number}" Type="{address}" Target="{target}"{external}/>'
    space = "http://schemas.openxmlformats.org/package/2006/relationships"
    return f'{HEAD}<Relationships xmlns="{space}">{text}</Relationships>'


def package(
    sort, main="", *, rels=(), parts=None, types=None, defaults=None, method=zipfile.ZIP_DEFLATED
):
    """A maker of an OOXML package with this main part."""
    name, kind = MAIN[sort]
    parts, types, defaults = dict(parts or {}), dict(types or {}), dict(defaults or {})

    def make(path: Path) -> None:
        overrides = "".join(
            f'<Override PartName="/{part}" ContentType="{c}"/>'
            for part, c in {name: kind, **types}.items()
        )
        endings = {
            "xml": "application/xml",
            "rels": "application/vnd.openxmlformats-package.relationships+xml",
        }
        given = "".join(
            f'<Default Extension="{e}" ContentType="{c}"/>'
            for e, c in {**endings, **defaults}.items()
        )
        space = "http://schemas.openxmlformats.org/package/2006/content-types"
        folder, _, file = name.rpartition("/")
        body = {
            "[Content_Types].xml": f'{HEAD}<Types xmlns="{space}">{given}{overrides}</Types>',
            "_rels/.rels": relations(("officeDocument", name)),
            name: main or word("<w:p><w:r><w:t>Добрый день</w:t></w:r></w:p>"),
            f"{folder}/_rels/{file}.rels": relations(*rels),
            **parts,
        }
        with zipfile.ZipFile(path, "w", method) as archive:
            for part, data in body.items():
                archive.writestr(part, data)

    return make


def word(body, space=W):
    return (
        f'{HEAD}<w:document xmlns:w="{space}" xmlns:r="{REL}"><w:body>{body}</w:body></w:document>'
    )


def field(*texts, in_one_run=False):
    """A complex field whose code is split over runs (or over elements of one run)."""
    between = "" if in_one_run else "</w:r><w:r>"
    codes = between.join(f'<w:instrText xml:space="preserve">{t}</w:instrText>' for t in texts)
    return (
        '<w:p><w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r>' + codes + "</w:r>"
        '<w:r><w:fldChar w:fldCharType="separate"/></w:r><w:r><w:t>1</w:t></w:r>'
        '<w:r><w:fldChar w:fldCharType="end"/></w:r></w:p>'
    )


def vba_project(prefix=""):
    """The storages and streams that make a VBA project; the code does nothing."""
    code = b'Attribute VB_Name = "Module1"\r\nSub AutoOpen()\r\nEnd Sub\r\n'
    packed = b"\x01" + struct.pack("<H", (len(code) - 1) & 0xFFF | 0x3000) + code
    return {
        f"{prefix}PROJECT": b'ID="{00000000-0000-0000-0000-000000000000}"\r\nModule=Module1\r\n',
        f"{prefix}VBA/_VBA_PROJECT": b"\xcc\x61\xff\xff\x00\x00\x00",
        f"{prefix}VBA/dir": packed,
        f"{prefix}VBA/Module1": packed,
    }


def vba_bin():
    return write_compound(vba_project())


def ole_native(name=b"note.txt"):
    """A packed file as OLE 1 writes it."""
    content = b"harmless"
    body = b"\x02\x00" + name + b"\0C:\\" + name + b"\0\0\0\x03\x00"
    body += struct.pack("<I", len(name) + 4) + b"C:\\" + name + b"\0"
    body += struct.pack("<I", len(content)) + content
    return struct.pack("<I", len(body)) + body


def package_bin():
    return write_compound(
        {"\x01Ole10Native": ole_native(), "\x01CompObj": bytes(64)}, {"": PACKAGE_CLSID}
    )


def compound(streams, clsids=None):
    """A maker of an old Office file."""
    return lambda path: path.write_bytes(write_compound(streams, clsids))


def record(kind, data):
    return struct.pack("<HH", kind, len(data)) + data


def workbook(*, sheet_type=0, sup_book=b"", external=b""):
    """The Workbook stream of an .xls with one sheet, and links if given."""
    start = record(0x809, struct.pack("<HHHHII", 0x600, 5, 0, 0, 0, 0))
    sheet = record(0x85, struct.pack("<IBBBB", 0, 0, sheet_type, 5, 0) + b"Sheet")
    links = (record(0x1AE, sup_book) if sup_book else b"") + (
        record(0x1AE, external) if external else b""
    )
    end = record(0x0A, b"")
    inner = (
        record(0x809, struct.pack("<HHHHII", 0x600, 0x40 if sheet_type else 0x10, 0, 0, 0, 0)) + end
    )
    return (start + sheet + links + end + inner).ljust(5000, b"\0")


def dde_book():
    topic = b"cmd\x03/c echo harmless"
    return struct.pack("<HH", 0, len(topic)) + b"\0" + topic


def other_book():
    target = b"\x01prices.xls"
    return struct.pack("<HH", 1, len(target)) + b"\0" + target + b"\x05\0\0Sheet"


def rtf(body):
    return lambda path: path.write_bytes(b"{\\rtf1\\ansi\\deff0 " + body + b"}")


def rtf_object(class_name, data, *words):
    """An OLE 1 object in hexadecimal."""
    name = class_name + b"\0"
    raw = (
        struct.pack("<III", 0x501, 2, len(name))
        + name
        + struct.pack("<III", 0, 0, len(data))
        + data
    )
    options = b"".join(b"\\" + word for word in words)
    return b"{\\object\\objemb" + options + b"{\\*\\objdata " + raw.hex().encode() + b"}}"


def open_document(kind, content, *, parts=None, manifest=""):
    """A maker of an OpenDocument file: kind is text or spreadsheet."""
    spaces = " ".join(
        f'xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{full}:1.0"'
        for short, full in {"office": "office", "text": "text", "table": "table", "draw": "drawing",
                            "script": "script"}.items()
    )  # fmt: skip
    body = (
        f'{HEAD}<office:document-content {spaces} xmlns:xlink="http://www.w3.org/1999/xlink">'
        f"{content}</office:document-content>"
    )

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("mimetype", f"application/vnd.oasis.opendocument.{kind}")
            archive.writestr("content.xml", body)
            space = "urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"
            archive.writestr(
                "META-INF/manifest.xml",
                f'{HEAD}<manifest:manifest xmlns:manifest="{space}">{manifest}</manifest:manifest>',
            )
            for name, data in (parts or {}).items():
                archive.writestr(name, data)

    return make


def active_mime():
    """A macro store as Word hides it in single XML files and web archives."""
    packed = zlib.compress(vba_bin())
    head = b"ActiveMime\0\0\x01\xf0\x04\0\0\0\xff\xff\xff\xff\0\0\x05\xf0"
    return head.ljust(0x32, b"\0") + packed


def word_2003(path: Path) -> None:
    space = "http://schemas.microsoft.com/office/word/2003/wordml"
    data = base64.b64encode(active_mime()).decode()
    path.write_text(
        '<?xml version="1.0"?><?mso-application progid="Word.Document"?>'
        f'<w:wordDocument xmlns:w="{space}"><w:docSuppData><w:binData w:name="editdata.mso">{data}'
        "</w:binData></w:docSuppData></w:wordDocument>",
        "utf-8",
    )


def web_archive(path: Path) -> None:
    data = base64.encodebytes(active_mime()).decode()
    path.write_text(
        'MIME-Version: 1.0\nContent-Type: multipart/related; boundary="b"\n\n--b\n'
        "Content-Type: application/x-mso\nContent-Transfer-Encoding: base64\n"
        f"Content-Location: file:///C:/editdata.mso\n\n{data}\n--b--\n",
        "ascii",
    )


def workbook_link(part):
    """An xlsx with an external link part."""
    return package(
        "xlsx",
        f'{HEAD}<workbook xmlns:r="{REL}"><externalReferences><externalReference r:id="rId1"/>'
        "</externalReferences></workbook>",
        rels=[("externalLink", "externalLinks/externalLink1.xml")],
        parts={"xl/externalLinks/externalLink1.xml": part},
    )


def truncated(make, share=0.6):
    def cut(path: Path) -> None:
        make(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return cut


def macro_workbook(path: Path) -> None:
    import xlsxwriter

    buffer = io.BytesIO(vba_bin())
    with xlsxwriter.Workbook(path) as book:
        book.add_worksheet()
        book.add_vba_project(buffer, is_stream=True)
