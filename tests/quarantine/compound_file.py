"""A minimal writer of OLE compound files (MS-CFB, version 3), for hostile cases of any shape.

`write_compound({"WordDocument": b"…", "Macros/VBA/dir": b"…"})` makes storages on the way. Names
are kept as given; siblings hang in a chain to the right, which readers take as any other tree.
"""

import struct

END, FREE, FAT = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD
SECTOR, MINI, CUTOFF = 512, 64, 4096


class _Entry:
    def __init__(self, name: str, kind: int, data: bytes = b"", clsid: bytes = bytes(16)):
        self.name, self.kind, self.data, self.clsid = name, kind, data, clsid
        self.children: dict[str, _Entry] = {}
        self.right = self.child = FREE
        self.start, self.number = END, 0


def write_compound(streams: dict[str, bytes], clsids: dict[str, bytes] | None = None) -> bytes:
    root = _Entry("Root Entry", 5)
    for path, data in streams.items():
        at = root
        *folders, name = path.split("/")
        for folder in folders:
            at = at.children.setdefault(folder, _Entry(folder, 1))
        at.children[name] = _Entry(name, 2, data)
    for path, clsid in (clsids or {}).items():
        at = root
        for folder in filter(None, path.split("/")):
            at = at.children[folder]
        at.clsid = clsid
    entries = _number(root)
    minis, mini_fat = _lay_minis(entries)
    root.data = minis
    sectors: list[bytes] = []
    fat: list[int] = []

    def store(data: bytes) -> int:
        if not data:
            return END
        start = len(sectors)
        blocks = [data[i : i + SECTOR].ljust(SECTOR, b"\0") for i in range(0, len(data), SECTOR)]
        sectors.extend(blocks)
        fat.extend([start + i + 1 for i in range(len(blocks) - 1)] + [END])
        return start

    for entry in entries:
        if entry.kind == 5 or (entry.kind == 2 and len(entry.data) >= CUTOFF):
            entry.start = store(entry.data)
    mini_start = store(struct.pack(f"<{len(mini_fat)}I", *mini_fat)) if mini_fat else END
    mini_sectors = -(-len(mini_fat) * 4 // SECTOR)
    directory = b"".join(map(_directory_entry, entries))
    directory += (bytes(64) + struct.pack("<HBB3I", 0, 0, 0, FREE, FREE, FREE) + bytes(48)) * (
        -len(entries) % 4
    )
    directory_start = store(directory)
    fat_count = 1
    while fat_count * 128 < len(fat) + fat_count:
        fat_count += 1
    assert fat_count <= 109
    first = len(sectors)
    fat += [FAT] * fat_count
    fat += [FREE] * (fat_count * 128 - len(fat))
    packed = struct.pack(f"<{len(fat)}I", *fat)
    sectors += [packed[i : i + SECTOR] for i in range(0, len(packed), SECTOR)]
    difat = [first + i for i in range(fat_count)] + [FREE] * (109 - fat_count)
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header += struct.pack(
        "<HHHHH6xIIIII", 0x3E, 3, 0xFFFE, 9, 6, 0, fat_count, directory_start, 0, CUTOFF
    )
    header += struct.pack("<IIII", mini_start, mini_sectors, END, 0) + struct.pack("<109I", *difat)
    return header + b"".join(sectors)


def _number(root: _Entry) -> list[_Entry]:
    entries = [root]

    def walk(parent: _Entry) -> None:
        previous: _Entry | None = None
        for child in sorted(parent.children.values(), key=lambda e: (len(e.name), e.name.upper())):
            child.number = len(entries)
            entries.append(child)
            if previous is None:
                parent.child = child.number
            else:
                previous.right = child.number
            previous = child
        for child in parent.children.values():
            walk(child)

    walk(root)
    return entries


def _lay_minis(entries: list[_Entry]) -> tuple[bytes, list[int]]:
    data, fat = b"", []
    for entry in entries:
        if entry.kind == 2 and 0 < len(entry.data) < CUTOFF:
            entry.start = len(fat)
            count = -(-len(entry.data) // MINI)
            fat += [entry.start + i + 1 for i in range(count - 1)] + [END]
            data += entry.data.ljust(count * MINI, b"\0")
    return data, fat


def _directory_entry(entry: _Entry) -> bytes:
    name = (entry.name + "\0").encode("utf-16-le")
    size = len(entry.data) if entry.kind in (2, 5) else 0
    start = entry.start if entry.kind in (2, 5) else 0
    return (
        name.ljust(64, b"\0")
        + struct.pack("<HBB3I", len(name), entry.kind, 1, FREE, entry.right, entry.child)
        + entry.clsid
        + bytes(20)
        + struct.pack("<IQ", start, size)
    )
