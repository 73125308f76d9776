"""The name that people see on a file, checked once for every way in.

Nothing is ever stored under it. It is refused when a screen would show another name than the disk
gets, or when some system in use would take it for something else than a file name.
"""

from __future__ import annotations

import re
import unicodedata

CHARS_MAX = 200
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_INVISIBLE = frozenset("\u200b\u2028\u2029\u2060\ufeff\ufff9\ufffa\ufffb\u180e\u115f\u1160\u3164")
_RESERVED = re.compile(
    r"(?:con|prn|aux|nul|clock\$|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])\Z",
    re.IGNORECASE,
)
_EXTENSION = re.compile(r"\.([^.\s/\\]{1,16})\Z")


class BadName(ValueError):
    """The name cannot be kept; the text says what is wrong with it, without repeating it."""


def check_name(name: str) -> str:
    """The name in its one normal form (NFC). Raises BadName."""
    name = unicodedata.normalize("NFC", name)
    if not name.strip():
        raise BadName("The file has no name. Give it one.")
    if len(name) > CHARS_MAX:
        raise BadName(f"The file name has {len(name)} characters, at most {CHARS_MAX} are taken.")
    for character in name:
        if character in _BIDI:
            raise BadName("The file name has a character that turns the direction of writing.")
        if character in _INVISIBLE or unicodedata.category(character) in ("Cc", "Cs", "Cn"):
            raise BadName("The file name has a control character or one that nobody can see.")
    if "/" in name or "\\" in name or name in (".", ".."):
        raise BadName("The file name is a path. Send the name alone.")
    if ":" in name:
        raise BadName("The file name has a colon, which some systems take for a drive.")
    if name != name.strip() or name.endswith("."):
        raise BadName("The file name begins or ends with a space or ends with a dot.")
    if _RESERVED.match(name.split(".", 1)[0].strip()):
        raise BadName("The file name is that of a device on some systems. Rename the file.")
    return name


def extension_of(name: str) -> str:
    """What stands behind the last dot, in lower case; empty when there is nothing."""
    found = _EXTENSION.search(name)
    return found[1].lower() if found else ""
