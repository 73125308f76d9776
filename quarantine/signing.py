"""Messages between the planes are signed with a key that both have: HMAC-SHA256 over JSON.

The name of the message's type is part of what is signed, so that one sort cannot pass for
another (RFC 2104; the order of checks: signature first, content after).
"""

from __future__ import annotations

import base64
import hmac
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)
KEY_BYTES = 32
TEXT_MAX = 65_536


class Forged(Exception):
    """A message that was not signed with our key, or that does not read as its type."""


class Signer:
    """Seals and opens messages. The text form goes into a header or into Redis."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"A signing key has {KEY_BYTES} bytes; this one has {len(key)}.")
        self._key = key

    @classmethod
    def load(cls, path: Path) -> Signer:
        """The key of a file. Raises OSError, ValueError."""
        return cls(path.read_bytes())

    def seal(self, message: msgspec.Struct) -> str:
        """The message and its signature as one text."""
        body = base64.urlsafe_b64encode(msgspec.json.encode(message)).decode()
        return f"{body}.{self._mac(type(message), body)}"

    def open(self, text: str, type_: type[T]) -> T:
        """The message. Raises Forged."""
        body, _, mac = text.partition(".")
        if len(text) > TEXT_MAX or not hmac.compare_digest(
            mac.encode(), self._mac(type_, body).encode()
        ):
            raise Forged("The signature is not ours.")
        try:
            return msgspec.json.decode(base64.urlsafe_b64decode(body), type=type_)
        except (ValueError, msgspec.MsgspecError) as bad:
            raise Forged("The message does not read as its type.") from bad

    def _mac(self, type_: type, body: str) -> str:
        digest = hmac.digest(self._key, f"{type_.__name__}.{body}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
