"""What may be said elsewhere of a place: which way and where in short, nothing that opens it.

An address may hold a token, a folder the name of whoever works in it, an error text both. So the
host and the last folder are told, and what the settings of a place say besides is cut out of texts.
"""

from __future__ import annotations

import unicodedata
from urllib.parse import SplitResult, urlsplit

import msgspec

from connectors.transports.places import Place

# Settings that are told as they are.
_OPEN = frozenset({"type", "host", "port", "fingerprints", "mailbox"})
_CUT_FROM = 3
TEXT_MAX = 300


def describe(place: Place) -> tuple[str, str]:
    """The way (`sftp`) and a short address (`sftp.bank.example/…/out`)."""
    told: dict[str, object] = msgspec.to_builtins(place)
    way = str(told.get("type", ""))
    url = _url(told)
    host = str(told.get("host", "") or url.hostname or "")
    port = told.get("port") or url.port
    where = f"{host}:{port}" if host and port else host
    last = str(told.get("folder", "")).rstrip("/").rpartition("/")[2]
    if last in ("", ".", str(told.get("user", ""))):
        return way, where
    return way, f"{where}/…/{last}" if where else f"…/{last}"


def hide(place: Place, text: str) -> str:
    """A text without users, addresses and paths of the settings, and without marks that no line
    may have.
    """
    told = msgspec.to_builtins(place)
    secrets = {str(v) for k, v in told.items() if isinstance(v, str) and k not in _OPEN}
    url = _url(told)
    secrets |= {url.path, url.query, f"{url.path}?{url.query}"}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _CUT_FROM or secret == told.get("user"):
            text = text.replace(secret, "…") if secret else text
    plain = "".join(c for c in text if not unicodedata.category(c).startswith("C"))
    return plain[:TEXT_MAX]


def _url(told: dict[str, object]) -> SplitResult:
    """The address of a page, or of the publication of an API; nothing for one that is none."""
    try:
        found = urlsplit(str(told.get("url") or told.get("base") or ""))
        _ = found.port
    except ValueError:
        return urlsplit("")
    return found
