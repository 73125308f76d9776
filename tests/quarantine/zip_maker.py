"""Archives with one thing wrong, byte by byte: no library writes what these tests need."""

import dataclasses
import struct
import zlib


@dataclasses.dataclass
class Item:
    """One entry; whatever is None is what is true."""

    name: bytes
    data: bytes = b"a,b\n1,2\n"
    method: int = 8
    flags: int = 0
    local_name: bytes | None = None
    local_method: int | None = None
    local_flags: int | None = None
    crc: int | None = None
    size: int | None = None
    local_size: int | None = None
    packed: bytes | None = None
    extra: bytes = b""
    local_extra: bytes | None = None
    mode: int = 0
    offset: int | None = None
    described: str = ""
    behind: bytes = b""
    disk: int = 0


def deflate(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def make_zip(
    *items, prefix=b"", gap=b"", comment=b"", trailing=b"", shift=0, count=None, size=None
):
    """The bytes of an archive; `prefix` lies before entry 0 and offsets know of it by `shift`."""
    body, central = bytearray(prefix), bytearray()
    for item in items:
        packed = item.packed
        if packed is None:
            packed = deflate(item.data) if item.method == 8 else item.data
        crc = zlib.crc32(item.data) if item.crc is None else item.crc
        full = len(item.data) if item.size is None else item.size
        flags = item.flags | (8 if item.described else 0)
        at = len(body) - len(prefix) + shift if item.offset is None else item.offset
        local = (0, 0, 0) if item.described else (crc, len(packed), item.local_size or full)
        name = item.local_name or item.name
        extra = item.extra if item.local_extra is None else item.local_extra
        body += struct.pack(
            "<4sHHHHHIIIHH",
            b"PK\3\4",
            20,
            flags if item.local_flags is None else item.local_flags,
            item.method if item.local_method is None else item.local_method,
            0,
            0x21,
            *local,
            len(name),
            len(extra),
        )
        body += name + extra + packed
        if item.described:
            body += struct.pack("<4sI", b"PK\7\x08", crc)
            body += struct.pack(f"<{item.described * 2}", len(packed), full)
        body += item.behind
        central += struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            b"PK\1\2",
            (3 << 8) | 20,
            20,
            flags,
            item.method,
            0,
            0x21,
            crc,
            len(packed),
            full,
            len(item.name),
            len(item.extra),
            0,
            item.disk,
            0,
            item.mode << 16,
            at,
        )
        central += item.name + item.extra
    body += gap
    start = len(body) - len(prefix) + shift
    number = len(items) if count is None else count
    end = struct.pack(
        "<4sHHHHIIH",
        b"PK\5\6",
        0,
        0,
        number,
        number,
        len(central) if size is None else size,
        start,
        len(comment),
    )
    return bytes(body + central + end) + comment + trailing


def make_zip64(data=b"a,b\n1,2\n", *, lie=0):
    """One entry with every ZIP64 record there is; `lie` is added to the size it gives."""
    packed = deflate(data)
    wide = struct.pack("<HHQQ", 1, 16, len(data), len(packed))
    ones = 0xFFFFFFFF
    local = struct.pack(
        "<4sHHHHHIIIHH", b"PK\3\4", 45, 0, 8, 0, 0x21, zlib.crc32(data), ones, ones, 5, len(wide)
    )
    body = local + b"a.csv" + wide + packed
    central_wide = struct.pack("<HHQQQ", 1, 24, len(data) + lie, len(packed), 0)
    central = struct.pack(
        "<4sHHHHHHIIIHHHHHII", b"PK\1\2", 45, 45, 0, 8, 0, 0x21, zlib.crc32(data), ones, ones,
        5, len(central_wide), 0, 0, 0, 0, ones,
    )  # fmt: skip
    central += b"a.csv" + central_wide
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(central), len(body))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(body) + len(central), 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, ones, ones, 0)
    return body + central + end64 + locator + end


def make_overlapping(files=30, kernel_bytes=300_000):
    """Entries that all share one compressed kernel, as overlap bombs do."""
    data = bytes(kernel_bytes)
    packed = deflate(data)
    one = make_zip(Item(b"0.txt", data, packed=packed))
    local_length = 30 + 5 + len(packed)
    central = bytearray()
    for _ in range(files):
        central += one[local_length : one.rindex(b"PK\5\6")]
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, files, files, len(central), local_length, 0)
    return one[:local_length] + bytes(central) + end
