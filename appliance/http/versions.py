"""A record's version as an entity tag: the base of an edit travels in If-Match."""

from __future__ import annotations

import re

from appliance.base.errors import Malformed
from appliance.http.ask import Ask

_VERSION = re.compile(rb'"version":"([^"\\]*)"')
_MATCH = re.compile(r'"([\x21\x23-\x7e]*)"\Z|([\x21\x23-\x2b\x2d-\x7e]+)\Z')


def etag(record: bytes) -> dict[str, str]:
    """The header for a record's JSON text; its version stands before all values of fields."""
    found = _VERSION.search(record)
    return tag(found.group(1).decode()) if found else {}


def tag(version: str | None) -> dict[str, str]:
    """The header for a version; none for a record that has none to show."""
    return {"ETag": f'"{version}"'} if version else {}


def expected(ask: Ask) -> str | None:
    """The version the author saw; None when they do not say. Raises Malformed."""
    given = ask.header("if-match")
    if given is None or given.strip() == "*":
        return None
    found = _MATCH.match(given.strip())
    if found is None:
        raise Malformed(
            "If-Match takes one version as it was given, in quotes.", code="request.if_match"
        )
    return found.group(1) if found.group(1) is not None else found.group(2)
