"""Makers of PDF, pictures, markup and scripts, hostile in shape and harmless in deed."""

import io
import random
import struct
import zipfile
import zlib
from pathlib import Path

import pikepdf
from PIL import Image
from pikepdf import Array, Dictionary, Name, String

EICAR = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-" + "STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
MARKER = "NEXUS-QUARANTINE-" + "TEST-MARKER-REJECT"
DOS_STUB = b"This program cannot be run in " + b"DOS mode"


def text(content, encoding="utf-8"):
    return lambda path: path.write_bytes(content.encode(encoding))


def raw(content):
    return lambda path: path.write_bytes(content)


def pdf(change=None, **saving):
    """A PDF of one page, changed by a function of the document; saved with these options."""

    def make(path: Path) -> None:
        with pikepdf.new() as document:
            document.add_blank_page()
            if change:
                change(document)
            document.save(path, **saving)

    return make


def script(code="app.alert('harmless')"):
    return Dictionary(S=Name.JavaScript, JS=String(code))


def fresh(thing):
    """A copy that belongs to no document: makers run more than once."""
    return pikepdf.Object.parse(thing.unparse())


def opens(action):
    def change(document):
        document.Root.OpenAction = document.make_indirect(fresh(action))

    return change


def annotation(**keys):
    def change(document):
        page = document.pages[0]
        page.Annots = Array(
            [document.make_indirect(Dictionary(Type=Name.Annot, Rect=Array([0, 0, 9, 9]), **keys))]
        )

    return change


def link(address):
    return annotation(Subtype=Name.Link, A=Dictionary(S=Name.URI, URI=String(address)))


def attach(document):
    document.attachments["note.txt"] = b"harmless"


def named_script(document):
    document.Root.Names = Dictionary(JavaScript=Dictionary(Names=Array([String("a"), script()])))


def form(**keys):
    def change(document):
        document.Root.AcroForm = document.make_indirect(Dictionary(Fields=Array([]), **keys))

    return change


def page_action(document):
    document.pages[0].AA = Dictionary(O=Dictionary(S=Name.Named, N=Name.Print))


def external_content(document):
    stream = pikepdf.Stream(document, b"")
    stream.F = String("\\\\host\\share\\content")
    document.pages[0].Contents = stream


def reference_form(document):
    stream = pikepdf.Stream(document, b"", Type=Name.XObject, Subtype=Name.Form)
    stream.Ref = Dictionary(F=String("other.pdf"), Page=0)
    document.pages[0].Resources = Dictionary(XObject=Dictionary(X=stream))


def content(data):
    def change(document):
        document.pages[0].Contents = pikepdf.Stream(document, data)

    return change


LOOSE = {"compress_streams": False, "stream_decode_level": pikepdf.StreamDecodeLevel.none}
PACKED = {"object_stream_mode": pikepdf.ObjectStreamMode.generate, "compress_streams": True}


def hex_names(path: Path) -> None:
    """A script whose names are spelt in hexadecimal, as no search for words finds them."""
    pdf(opens(script()))(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"/JavaScript", b"/J#61v#61Script").replace(b"/JS", b"/#4a#53"))


def picture(size=(40, 30), mode="RGB", **saving):
    return lambda path: Image.new(mode, size, 1).save(path, **saving)


def png_chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_bomb(width=60_000, height=60_000):
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(bytes(10_000_000), 9))
    return raw(b"\x89PNG\r\n\x1a\n" + head + body + png_chunk(b"IEND", b""))


def gif_bomb(path: Path) -> None:
    path.write_bytes(b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) +
                     b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x01D\x00;")  # fmt: skip


def bmp_bomb(path: Path) -> None:
    path.write_bytes(b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) +
                     struct.pack("<IiiHHIIiiII", 40, 90_000, 90_000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(946))  # fmt: skip


def tiff_bomb(path: Path) -> None:
    """A fax page of which the head claims a hundred times more lines."""
    Image.new("1", (8, 8)).save(path, "TIFF", tiffinfo={})
    data = bytearray(path.read_bytes())
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(order + "I", data, 4)[0]
    for number in range(struct.unpack_from(order + "H", data, at)[0]):
        entry = at + 2 + 12 * number
        if struct.unpack_from(order + "H", data, entry)[0] in (256, 257):
            struct.pack_into(order + "HII", data, entry + 2, 4, 1, 1_000_000)
    path.write_bytes(data)


def webp_bomb(path: Path) -> None:
    """The largest that the format can claim: its decoder would take a gigabyte at once."""
    body = b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + bytes(59)
    chunk = b"WEBPVP8L" + struct.pack("<I", len(body)) + body
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunk)) + chunk)


def many_frames(path: Path) -> None:
    frames = [Image.new("P", (4, 4), number % 7) for number in range(2_050)]
    frames[0].save(path, save_all=True, append_images=frames[1:], optimize=False)


def damaged(make, at=0.5, cut=False):
    def change(path: Path) -> None:
        make(path)
        data = bytearray(path.read_bytes())
        middle = int(len(data) * at)
        if cut:
            del data[middle:]
        else:
            data[middle] ^= 0xFF
        path.write_bytes(data)

    return change


def noise(size=(300, 200)):
    """A picture that does not compress, so that damage in its middle is damage to its data."""
    return Image.effect_noise(size, 90).convert("RGB")


def noisy(kind):
    return lambda path: noise().save(path, kind)


def stored_zip(**entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


def behind(make, tail):
    def append(path: Path) -> None:
        make(path)
        path.write_bytes(path.read_bytes() + tail)

    return append


SVG = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def svg(body, attributes=""):
    return text(f"<svg {SVG} {attributes}>{body}</svg>")


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {x} "{("&" + y + ";") * 10}">' for x, y in zip("bcdefghij", "abcdefghi"))
    + "]><lolz>&j;</lolz>"
)


def program(path: Path) -> None:
    """The head of a Windows program without a program."""
    path.write_bytes(
        b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80) + bytes(0x40) + b"PE\0\0" + bytes(200)
    )


def pages_pdf(count, bytes_each):
    """A PDF of many pages with content that does not compress."""

    def make(path: Path) -> None:
        with pikepdf.new() as document:
            for number in range(count):
                document.add_blank_page()
                data = random.Random(number).randbytes(bytes_each).hex().encode()
                document.pages[-1].Contents = pikepdf.Stream(document, b"%" + data)
            document.save(path, compress_streams=False)

    return make
