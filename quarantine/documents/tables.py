"""Tables in text: cells that a spreadsheet program takes for a formula that starts a program.

`=cmd|'/c calc'!A1` is a data link. Formulas as such are everyday in exports, and so are cells that
begin with a sign or hold a bar, so the whole shape is asked for: an operator at the beginning of a
cell, a name, a bar, a quoted topic, an exclamation mark. Constant memory; any encoding.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from quarantine.engines.base import Unscannable

CHUNK_BYTES = 1 << 20
OVERLAP_BYTES = 1 << 12

_QUOTED = re.compile(
    rb"(?:^|[\r\n,;\t|\"' ])\s{0,8}[=+\-@][^\r\n|]{0,255}?[A-Za-z_][\w.]{0,63}[\"']{0,2}"
    rb"\|['\"]{1,2}[^\r\n!]{1,1024}!",
)
_BARE = re.compile(
    rb"(?:^|[\r\n,;\t\"'])\s{0,8}=(?:[^\r\n|\"',;\t]{0,64}[+\-*/(])?[A-Za-z_][\w.]{0,63}"
    rb"\|[^\r\n!,;\t\"']{1,255}!",
)
_STARTS = re.compile(rb"\|['\"]|=[^\r\n|\"',;\t]{0,140}\||;E[^\r\n|]{0,64}\|")
"""What each of the shapes holds; a table without any of it is not looked at line by line."""
_SYLK = re.compile(rb"(?:^|\n)C;[^\r\n]{0,200};E[^\r\n|]{0,64}\|'?[^\r\n!]{1,255}!")


def holds_dde(path: Path, deadline: float) -> bool:
    """Whether a cell is a DDE formula. `deadline` is monotonic seconds; raises Unscannable past it."""
    last = b"\n"
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            if time.monotonic() > deadline:
                raise Unscannable("The table took longer than the policy allows.")
            # UTF-16 without its zero bytes is ASCII where it matters.
            text = last + (chunk.replace(b"\x00", b"") if b"\x00" in chunk else chunk)
            if b"|" in text and b"!" in text and _STARTS.search(text) and _matches(text):
                return True
            last = text[-OVERLAP_BYTES:]
    return False


def _matches(text: bytes) -> bool:
    """Only lines with a bar before an exclamation mark are held against the shapes."""
    for line in text.splitlines():
        bar = line.find(b"|")
        if bar >= 0 and line.find(b"!", bar) >= 0:
            row = line[:OVERLAP_BYTES]
            if is_dde_cell(row) or _SYLK.search(row):
                return True
    return False


def is_dde_cell(row: bytes) -> bool:
    """Whether a cell, or one of the cells of a row, has the shape of a DDE formula."""
    return bool(_QUOTED.search(row) or _BARE.search(row))
