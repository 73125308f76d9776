"""XML as we write it: escaped, without what XML 1.0 cannot hold, element by element."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr

_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def element(name: str, text: str, attributes: Mapping[str, str] | None = None) -> str:
    """A leaf with its text; attributes with empty values are left out."""
    said = "".join(f" {k}={quoteattr(clean(v))}" for k, v in (attributes or {}).items() if v)
    return f"<{name}{said}>{escape(clean(text))}</{name}>"


def optional(name: str, text: str) -> str:
    """A leaf, or nothing for an empty text."""
    return element(name, text) if text else ""


def clean(text: str) -> str:
    """A text without control characters and halves of pairs."""
    return _UNWRITABLE.sub("", text)
