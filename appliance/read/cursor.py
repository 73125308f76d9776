"""Cursors: a place in a list, encrypted and bound, never base64 of values.

The sort values of the last row may be of fields the bearer of a stolen cursor may not read, so
they are sealed (AES-256-GCM) with the query, the profile and the person as associated data.
"""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.kernel.kind import Json
from appliance.read.plan import refuse_cursor

LIFETIME_S = 24 * 3600


class Cursors:
    """Seals and opens places with the node's key (32 bytes)."""

    def __init__(self, key: bytes) -> None:
        self._box = AESGCM(key)

    def seal(self, place: list[Json], binding: bytes) -> str:
        """The cursor of a place."""
        nonce = os.urandom(12)
        body = msgspec.msgpack.encode([int(time.time()) + LIFETIME_S, place])
        return urlsafe_b64encode(nonce + self._box.encrypt(nonce, body, binding)).decode().rstrip("=")

    def open(self, cursor: str, binding: bytes) -> list[Json]:
        """The place of a cursor. Raises Invalid for any other text."""
        try:
            raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            expires, place = msgspec.msgpack.decode(self._box.decrypt(raw[:12], raw[12:], binding))
        except (ValueError, InvalidTag, msgspec.MsgspecError):
            raise refuse_cursor() from None
        if expires < time.time():
            raise refuse_cursor()
        return list(place)
