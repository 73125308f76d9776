"""Archives that are not taken apart here: 7z, RAR and the rest. They are held, with the reason.

A reader of 7z or RAR brings its own decompressors and its own history of holes, and a walk that
is not strict proves nothing. Who needs the content sends it as ZIP; a reviewer may release it.
"""

from __future__ import annotations

from pathlib import Path

from quarantine.containers.budget import Note

_SEVEN, _RAR4, _RAR5 = b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\x00", b"Rar!\x1a\x07\x01\x00"
_SEVEN_AES = b"\x06\xf1\x07\x01"
_TAIL_BYTES = 1024 * 1024
_RAR4_HEADERS_ENCRYPTED, _RAR4_FILE_ENCRYPTED = 0x80, 0x04
_RAR5_ENCRYPTION = b"\4"


def judge(path: Path) -> Note:
    """Why this archive is held."""
    with path.open("rb") as file:
        head = file.read(512)
        start, size = int.from_bytes(head[12:20], "little"), int.from_bytes(head[20:28], "little")
        tail = b""
        if head.startswith(_SEVEN):
            file.seek(min(32 + start, path.stat().st_size))
            tail = file.read(min(size, _TAIL_BYTES))
    if (_SEVEN_AES in tail) or _rar_is_encrypted(head):
        return Note(
            "",
            "container.encrypted",
            "It is encrypted, so nobody can look into it. Send it as ZIP without a password.",
        )
    return Note(
        "",
        "container.unsupported",
        "Archives of this kind are not looked into here. Send the files as ZIP.",
    )


def _rar_is_encrypted(head: bytes) -> bool:
    if head.startswith(_RAR4):
        at = len(_RAR4)
        while at + 7 <= len(head):
            kind, flags = head[at + 2], int.from_bytes(head[at + 3 : at + 5], "little")
            if kind == 0x73 and flags & _RAR4_HEADERS_ENCRYPTED:
                return True
            if kind == 0x74:
                return bool(flags & _RAR4_FILE_ENCRYPTED)
            at += max(7, int.from_bytes(head[at + 5 : at + 7], "little"))
    # The type of a RAR5 header stands behind its checksum (4 bytes) and its length (one byte here).
    return head.startswith(_RAR5) and head[13:14] == _RAR5_ENCRYPTION
