"""Files of daily life, made by real tools and libraries: none of them may be held."""

import bz2
import csv
import email.message
import functools
import gzip
import io
import json
import lzma
import shutil
import struct
import subprocess
import tarfile
import tempfile
import warnings
import wave
import zlib
import zipfile
from pathlib import Path

import openpyxl
import pikepdf
import xlsxwriter
import zstandard
from PIL import Image

from tests.quarantine.corpus_containers import CSV, gif, jpeg, office, png
from tests.quarantine.zip_maker import Item, make_zip, make_zip64

W = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
P = "application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml"
RU = "Наименование;Цена\nКольцо;100\nЦепочка;200\n"


def picture(kind, **more):
    out = io.BytesIO()
    Image.new("RGB" if kind != "GIF" else "P", (64, 48), 7).save(out, kind, **more)
    return out.getvalue()


def moving_gif():
    out = io.BytesIO()
    first, *others = [Image.new("P", (20, 20), n) for n in range(4)]
    first.save(out, "GIF", save_all=True, append_images=others, comment=b"made for a test")
    return out.getvalue()


def camera_jpeg():
    """As phones write them: a second picture behind the first."""
    return picture("JPEG") + picture("JPEG")


def samsung_jpeg():
    body = b"\0\0\1\x0a\x0e\0\0\0Image_UTC_Data1732000000000"
    return picture("JPEG") + body + b"SEFH" + bytes(20) + struct.pack("<I", 24) + b"SEFT"


def real_pdf():
    out = io.BytesIO()
    with pikepdf.new() as document:
        document.add_blank_page()
        document.save(out)
    return out.getvalue()


def linear_pdf():
    out = io.BytesIO()
    with pikepdf.new() as document:
        document.add_blank_page()
        document.save(out, linearize=True, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    return out.getvalue()


def by_openpyxl(**more):
    out = io.BytesIO()
    book = openpyxl.Workbook(**more)
    sheet = book.create_sheet("Прайс")
    for number in range(50):
        sheet.append([f"ring {number}", number])
    book.save(out)
    return out.getvalue()


def by_xlsxwriter(picture_too=False, **options):
    out = io.BytesIO()
    with xlsxwriter.Workbook(out, options) as book:
        sheet = book.add_worksheet()
        for number in range(50):
            sheet.write_row(number, 0, [f"ring {number}", number])
        if picture_too:
            sheet.insert_image("C1", "a.png", {"image_data": io.BytesIO(picture("PNG"))})
            chart = book.add_chart({"type": "line"})
            chart.add_series({"values": "=Sheet1!$B$1:$B$50"})
            sheet.insert_chart("F1", chart)
    return out.getvalue()


def open_document(kind, *more):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mimetype", f"application/vnd.oasis.opendocument.{kind}")
        archive.writestr("content.xml", "<?xml version='1.0'?><c/>", zipfile.ZIP_DEFLATED)
        archive.writestr("META-INF/manifest.xml", "<?xml version='1.0'?><m/>")
        archive.writestr("Configurations2/statusbar/", "")
        archive.writestr("Thumbnails/thumbnail.png", picture("PNG"))
        for name, content in more:
            archive.writestr(name, content)
    return out.getvalue()


class _Pipe(io.RawIOBase):
    """A stream that cannot seek, so that writers put data descriptors behind the entries."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.data += data
        return len(data)


def by_python(*names, stream=False, method=zipfile.ZIP_DEFLATED, comment=b"", content=CSV):
    out = _Pipe() if stream else io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.comment = comment
        for name in names:
            archive.writestr(name, b"" if name.endswith("/") else content)
    return bytes(out.data) if stream else out.getvalue()


def by_python_large():
    out = _Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.csv", "w", force_zip64=True) as file:
            file.write(CSV)
    return bytes(out.data)


@functools.cache
def _folder():
    folder = Path(tempfile.mkdtemp(prefix="benign-"))
    (folder / "папка").mkdir()
    (folder / "a.csv").write_bytes(CSV * 100)
    (folder / "папка" / "цены.csv").write_text(RU)
    return folder


def by_tool(*command):
    """What the tool writes to its standard output; our own bytes stand in where it is missing."""
    if shutil.which(command[0]) is None:
        return None
    return subprocess.run(command, cwd=_folder(), capture_output=True, check=True).stdout


def by_tool_or(otherwise, *command):
    return lambda: by_tool(*command) or otherwise()


def by_jar():
    """Java's own writer of archives, if there is a Java here."""
    if shutil.which("jar") is None:
        return by_python("a.csv", stream=True)
    target = _folder() / "java.zip"
    subprocess.run(["jar", "cMf", str(target), "a.csv", "папка"], cwd=_folder(), check=True)
    return target.read_bytes()


def by_tarfile(form, compress=""):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{compress}", format=form) as archive:
        archive.add(_folder() / "a.csv", "a.csv")
        archive.add(_folder() / "папка", "папка/" + "очень-длинное-имя-" * 9)
    return out.getvalue()


def by_ustar():
    """The oldest form, with a name that needs its second field."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(_folder() / "a.csv", "deep/" * 25 + "a.csv")
    return out.getvalue()


def mac_zip():
    """As the archive utility of macOS writes it: descriptors, no UTF-8 flag, forks beside files."""
    fork = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60)
    return make_zip(
        Item("цены.csv".encode(), CSV, described="I", extra=b"UX\x08\0" + bytes(8)),
        Item(b"__MACOSX/", b"", method=0),
        Item("__MACOSX/._цены.csv".encode(), fork, described="I"),
        Item(b".DS_Store", b"\0\0\0\1Bud1" + bytes(40), described="I"),
    )


def windows_zip():
    """Explorer on a Russian Windows: names in cp866, folders without entries of their own."""
    return make_zip(Item("Прайс/цены.csv".encode("cp866"), CSV), Item(b"b\\c.csv", CSV))


def info_zip_unicode():
    raw = "цены.csv".encode("cp866")
    better = struct.pack("<BI", 1, zlib.crc32(raw)) + "цены.csv".encode()
    extra = struct.pack("<HH", 0x7075, len(better)) + better
    return make_zip(Item(raw, CSV, extra=extra))


def wav():
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(800))
    return out.getvalue()


def mail():
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@b.example", "c@d.example", "Прайс"
    message.set_content("Добрый день")
    message.add_attachment(CSV, maintype="text", subtype="csv", filename="a.csv")
    return bytes(message)


def dbf():
    fields = b"NAME\0\0\0\0\0\0\0C" + bytes(4) + b"\x0a" + bytes(15)
    head = b"\x03\x7e\x0b\x15" + struct.pack("<IHH", 1, 65, 11) + bytes(20)
    return head + fields + b"\r" + b" ring      " + b"\x1a"


def table(**more):
    out = io.StringIO()
    csv.writer(out, **more).writerows([["name", "price"]] + [[f"r{n}", n] for n in range(200)])
    return out.getvalue()


OFX = b"OFXHEADER:100\r\nDATA:OFXSGML\r\n\r\n<OFX><SIGNONMSGSRSV1></SIGNONMSGSRSV1></OFX>\r\n"
MT940 = b":20:START\r\n:25:10020030/1234567\r\n:28C:1/1\r\n:60F:C261120EUR100,00\r\n-\r\n"
BANK = "1CClientBankExchange\r\nВерсияФормата=1.02\r\nКодировка=Windows\r\nКонецФайла\r\n"
COMMERCE = (
    '<?xml version="1.0" encoding="windows-1251"?>\n<КоммерческаяИнформация ВерсияСхемы="2.05"/>'
)
YML = (
    '<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE yml_catalog SYSTEM "shops.dtd"><yml_catalog/>'
)
TALK = """# How to install

Run `pip install nexus`, then use the function `main()` of the package:

```sh
export PATH=/usr/bin
```

Set the price to 100. If it exists, call the bank. Dim the light. Get-together on Friday;
for each branch write a line. Start with the first: $5 each = fair.
"""
warnings.filterwarnings("ignore", module="xlsxwriter")

BENIGN = {
    # Archives.
    "python.zip": lambda: by_python("a.csv", "b/c.csv"),
    "stored.zip": lambda: by_python("a.csv", method=zipfile.ZIP_STORED),
    "streamed.zip": lambda: by_python("a.csv", "b.csv", stream=True),
    "streamed-stored.zip": lambda: by_python("a.csv", stream=True, method=zipfile.ZIP_STORED),
    "folders.zip": lambda: by_python("b/", "b/a.csv"),
    "comment.zip": lambda: by_python("a.csv", comment="Прайс на сегодня".encode()),
    "cyrillic.zip": lambda: by_python("папка/цены.csv"),
    "empty.zip": by_python,
    "empty-entry.zip": lambda: by_python("a.csv", content=b""),
    "zip64.zip": make_zip64,
    "zip64-streamed.zip": by_python_large,
    "info-zip.zip": by_tool_or(lambda: by_python("a.csv"), "zip", "-r", "-", "a.csv", "папка"),
    "info-zip-stored.zip": by_tool_or(lambda: by_python("a.csv"), "zip", "-0", "-r", "-", "a.csv"),
    "info-zip-plain.zip": by_tool_or(lambda: by_python("a.csv"), "zip", "-X", "-", "a.csv"),
    "java.zip": by_jar,
    "mac.zip": mac_zip,
    "windows.zip": windows_zip,
    "unicode-names.zip": info_zip_unicode,
    "modes-of-all-ones.zip": lambda: make_zip(Item(b"b/", b"", mode=0xFFFF), Item(b"b/a.csv", CSV)),
    "aligned.zip": lambda: make_zip(Item(b"a.csv", CSV, extra=b"", local_extra=bytes(3))),
    "in-zip.zip": lambda: by_python("b.zip", content=by_python("c.zip", content=by_python("a.csv"))),
    "workbook-in.zip": lambda: by_python("a.xlsx", content=by_xlsxwriter()),
    "ustar.tar": by_ustar,
    "pax.tar": lambda: by_tarfile(tarfile.PAX_FORMAT),
    "gnu.tar": lambda: by_tarfile(tarfile.GNU_FORMAT),
    "tool.tar": by_tool_or(lambda: by_tarfile(tarfile.GNU_FORMAT), "tar", "cf", "-", "a.csv", "папка"),
    "tool.tgz": by_tool_or(lambda: by_tarfile(tarfile.GNU_FORMAT, "gz"), "tar", "czf", "-", "."),
    "python.tar.gz": lambda: by_tarfile(tarfile.PAX_FORMAT, "gz"),
    "python.tar.xz": lambda: by_tarfile(tarfile.PAX_FORMAT, "xz"),
    "python.tar.bz2": lambda: by_tarfile(tarfile.PAX_FORMAT, "bz2"),
    "a.csv.gz": lambda: gzip.compress(CSV),
    "two-members.csv.gz": lambda: gzip.compress(CSV) + gzip.compress(CSV),
    "tool.csv.gz": by_tool_or(lambda: gzip.compress(CSV), "gzip", "-c", "a.csv"),
    "a.csv.xz": lambda: lzma.compress(CSV),
    "tool.csv.xz": by_tool_or(lambda: lzma.compress(CSV), "xz", "-c", "a.csv"),
    "a.csv.lzma": lambda: lzma.compress(CSV, lzma.FORMAT_ALONE),
    "a.csv.bz2": lambda: bz2.compress(CSV),
    "a.csv.zst": lambda: zstandard.compress(CSV),
    "two-frames.csv.zst": lambda: zstandard.compress(CSV) + zstandard.compress(CSV),
    "tool.csv.zst": by_tool_or(lambda: zstandard.compress(CSV), "zstd", "-c", "a.csv"),
    # Documents.
    "openpyxl.xlsx": by_openpyxl,
    "openpyxl-streamed.xlsx": lambda: by_openpyxl(write_only=True),
    "xlsxwriter.xlsx": by_xlsxwriter,
    "xlsxwriter-zip64.xlsx": lambda: by_xlsxwriter(use_zip64=True),
    "xlsxwriter-flat.xlsx": lambda: by_xlsxwriter(constant_memory=True),
    "pictures.xlsx": lambda: by_xlsxwriter(True),
    "letter.docx": lambda: office(W, Item(b"word/_rels/document.xml.rels", b"<?xml version='1.0'?><R/>")),
    "slides.pptx": lambda: office(P, Item(b"ppt/media/image1.png", picture("PNG"))),
    "workbook-in.docx": lambda: office(W, Item(b"word/embeddings/a.xlsx", by_openpyxl())),
    "letter.odt": lambda: open_document("text"),
    "table.ods": lambda: open_document("spreadsheet", ("Object 1/content.xml", "<?xml version='1.0'?><o/>")),
    "slides.odp": lambda: open_document("presentation", ("layout-cache", b"\1\2\0\3" * 9)),
    "page.pdf": real_pdf,
    "linear.pdf": linear_pdf,
    "letter.rtf": lambda: b"{\\rtf1\\ansi hello}",
    "letter.eml": mail,
    # Pictures and sound.
    "p.png": lambda: picture("PNG"),
    "tiny.png": png,
    "padded.png": lambda: png(bytes(12)),
    "p.jpg": lambda: picture("JPEG"),
    "tiny.jpeg": jpeg,
    "progressive.jpg": lambda: picture("JPEG", progressive=True),
    "camera.jpg": camera_jpeg,
    "samsung.jpg": samsung_jpeg,
    "p.gif": lambda: picture("GIF"),
    "tiny.gif": gif,
    "moving.gif": moving_gif,
    "without-its-last-byte.gif": lambda: gif()[:-1],
    "form.xml": lambda: b"<form><title>1</title></form>",
    "centered.md": lambda: b"<div align=center>\n\n# Name\n\n</div>\n",
    "p.bmp": lambda: picture("BMP"),
    "p.tiff": lambda: picture("TIFF"),
    "p.webp": lambda: picture("WEBP"),
    "p.ico": lambda: picture("ICO"),
    "p.svg": lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "s.wav": wav,
    # Texts.
    "a.csv": lambda: CSV,
    "table.csv": lambda: table().encode(),
    "semicolons.csv": lambda: RU.encode("cp1251"),
    "dos.csv": lambda: RU.encode("cp866") + b"\x1a",
    "wide.csv": lambda: RU.encode("utf-16"),
    "wide-unmarked.csv": lambda: (RU * 9).encode("utf-16-le"),
    "marked.csv": lambda: RU.encode("utf-8-sig"),
    "tabs.tsv": lambda: table(dialect="excel-tab").encode(),
    "empty.txt": lambda: b"",
    "one-letter.txt": lambda: b"x",
    "mz.csv": lambda: b"MZ;price\nring;100\n",
    "readme.md": lambda: TALK.encode(),
    "without-extension": lambda: TALK.encode(),
    "data.json": lambda: json.dumps({"a": [1, 2]}).encode(),
    "lines.jsonl": lambda: b'{"a": 1}\n{"a": 2}\n',
    "table.html": lambda: b"<!doctype html><html><body><table></table></body></html>",
    "feed.xml": lambda: YML.encode(),
    "feed.yml": lambda: YML.encode(),
    "commerce.xml": lambda: COMMERCE.encode("cp1251"),
    "statement.txt": lambda: BANK.encode("cp1251"),
    "statement.sta": lambda: MT940,
    "statement.ofx": lambda: OFX,
    "padded.qbo": lambda: OFX + b"\0",
    "person.vcf": lambda: b"BEGIN:VCARD\r\nVERSION:3.0\r\nFN:A\r\nEND:VCARD\r\n",
    "old.dbf": dbf,
}  # fmt: skip
