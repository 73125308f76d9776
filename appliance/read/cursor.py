"""Cursors: a place in a list, encrypted and bound, never base64 of values.

The sort values of the last row may be of fields the bearer of a stolen cursor may not read, so
they are sealed (AES-256-GCM) with the query, the profile and the person as associated data. A
cursor also keeps the moment that relative dates were counted from, so that the pages of a list
agree over midnight.
"""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.base.errors import Invalid
from appliance.kernel.kind import Json

LIFETIME_S = 24 * 3600
_NONCE_BYTES = 12


class Cursors:
    """Seals and opens places with the node's key (32 bytes)."""

    def __init__(self, key: bytes) -> None:
        self._box = AESGCM(key)

    def seal(self, place: Sequence[Json], asof: str, binding: bytes) -> str:
        """The cursor of a place in the list as it was counted from `asof`."""
        nonce = os.urandom(_NONCE_BYTES)
        body = msgspec.msgpack.encode([int(time.time()) + LIFETIME_S, asof, place])
        sealed = nonce + self._box.encrypt(nonce, body, binding)
        return urlsafe_b64encode(sealed).decode().rstrip("=")

    def open(self, cursor: str, binding: bytes) -> tuple[list[Json], str]:
        """The place of a cursor and its `asof`. Raises Invalid for any other text."""
        try:
            raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            body = self._box.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], binding)
            expires, asof, place = msgspec.msgpack.decode(body)
        except (ValueError, InvalidTag, msgspec.MsgspecError):
            raise refuse_cursor() from None
        if expires < time.time():
            raise refuse_cursor()
        return list(place), str(asof)


def refuse_cursor() -> Invalid:
    """One answer for every cursor that is not ours, not for this query, or too old."""
    return Invalid(
        "This cursor is not for this query, or is too old; start from the first page.",
        code="query.bad_cursor",
    )
