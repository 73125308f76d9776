"""Where a link of a document leads: onto the reader's own disk, to another host, or into a program.

Templates and linked tables on a drive of the sender are everyday and lead nowhere at the reader's;
the same on a host is fetched by the program as soon as the document is opened.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_DRIVE = re.compile(r"^[a-z][:|]")
_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+):")
_HARMLESS_LINKS = {
    "http", "https", "mailto", "tel", "ftp", "file", "sms", "callto", "sip", "skype", "onenote",
    "news", "about", "tg", "viber", "whatsapp", "geo", "e1c", "notes", "outlook", "webcal",
}  # fmt: skip

_PLAIN = {"hyperlink", "externallink", "externallinkpath", "externallinklongpath", "xlpathmissing",
          "xlstartup", "xlalternatestartup", "xllibrary", "mailmergesource",
          "mailmergeheadersource", "attachedschema", "thumbnail"}  # fmt: skip
"""External by nature: somebody clicks on it, or the program asks before it reads the file."""

_PICTURES = {"image", "video", "audio", "media", "webimage"}


def leads_away(target: str) -> bool:
    """Whether the program would reach out to a host (or a scheme of another program) for it."""
    text = unquote(target).strip().lower().replace("\\", "/")
    if text.startswith("file:"):
        rest = text[5:]
        bare = rest.lstrip("/")
        if _DRIVE.match(bare) or not bare or bare.startswith("localhost/"):
            return False
        return len(rest) - len(bare) not in (0, 1, 3)
    if _DRIVE.match(text):
        return False
    return bool(_SCHEME.match(text)) or text.startswith("//")


def is_on_file_server(target: str) -> bool:
    """Whether opening it would log on to a file server (UNC) and so give away a password hash."""
    text = unquote(target).strip().lower().replace("\\", "/")
    return leads_away(target) and text.startswith(("file:", "//"))


def runs_program(target: str) -> bool:
    """Whether a click on it goes to a program (`javascript:`, `ms-msdt:`), not to a page."""
    text = unquote(target).strip().lower()
    scheme = _SCHEME.match(text)
    return bool(scheme) and not _DRIVE.match(text) and scheme[1] not in _HARMLESS_LINKS  # type: ignore[index]


def judge_relation(kind: str, target: str) -> str:
    """The code for an external relationship of this type (last word of its address), or ''."""
    kind = kind.lower()
    if kind == "hyperlink":
        return "office.link_scheme" if runs_program(target) else ""
    if kind in _PLAIN:
        return ""
    if kind in _PICTURES:
        return "office.external_picture" if is_on_file_server(target) else ""
    if not leads_away(target):
        return ""
    return "office.external_template" if kind == "attachedtemplate" else "office.external_object"
