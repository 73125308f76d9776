"""Tags and what follows them: OFX is SGML with closed, unclosed and self-closed leaves.

Nothing is expanded but character references; declarations of entities are refused unread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import TextIO

from connectors.sdk.contract import Fault, Place, Refused

_CHUNK = 1 << 16
NODE_MAX = 1 << 20
_TAG = re.compile(
    r"<!--.*?-->|<!\[CDATA\[(.*?)\]\]>|<(/?)\s*([A-Za-z][A-Za-z0-9_.]*)\s*(/?)>", re.DOTALL
)
_OPEN = re.compile(r"<!--|<!\[CDATA\[")

Token = tuple[str, str, int]


def read_tokens(file: TextIO) -> Iterator[Token]:
    """Tag, the text after it, its line. The tag is in capitals and begins with '/' when it closes.

    Raises Refused: declarations (entity-expansion), a text that never ends (too-large-node).
    """
    buffer, name, text, row, line = "", "", "", 1, 1
    while True:
        chunk = file.read(_CHUNK)
        buffer += chunk
        if "<!ENTITY" in buffer or "<!DOCTYPE" in buffer:
            expected = "a document without declarations"
            raise Refused(Fault("entity-expansion", expected, "<!DOCTYPE>", Place(row=line)))
        end = _find_end(buffer) if chunk else len(buffer)
        at = 0
        for found in _TAG.finditer(buffer, 0, end):
            text += buffer[at : found.start()]
            line += buffer.count("\n", at, found.start())
            at = found.end()
            inside, closing, tag, is_empty = found.groups()
            if tag is None:
                text += inside or ""
                line += found[0].count("\n")
                continue
            if name:
                yield name, _clean(text), row
            name, text, row = (closing + tag).upper(), "", line
            if is_empty:
                yield name, "", row
                name = ""
        if not chunk:
            if name:
                yield name, _clean(text + buffer[at:]), row
            return
        text += buffer[at:end]
        line += buffer.count("\n", at, end)
        buffer = buffer[end:]
        if len(text) + len(buffer) > NODE_MAX:
            expected = f"texts of at most {NODE_MAX} characters"
            raise Refused(Fault("too-large-node", expected, name, Place(row=row)))


def _find_end(buffer: str) -> int:
    """Up to where a buffer is whole: not within a tag, a comment or a CDATA section."""
    start = 0
    while found := _OPEN.search(buffer, start):
        close = buffer.find("-->" if found[0] == "<!--" else "]]>", found.end())
        if close < 0:
            return found.start()
        start = close
    last = buffer.rfind("<", max(start, len(buffer) - 200))
    return last if last >= 0 and ">" not in buffer[last:] else len(buffer)


def _clean(text: str) -> str:
    text = text.strip()
    return unescape(text) if "&" in text else text
