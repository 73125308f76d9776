"""Ids made where a thing is born: UUIDv7 (RFC 9562), monotonic inside one process."""

from __future__ import annotations

import os
import threading
import time
import uuid
from functools import lru_cache

_lock = threading.Lock()
_last_ms = 0
_count = 0
_bare, _set = object.__new__, object.__setattr__


def uuid7() -> uuid.UUID:
    """A UUIDv7: 48 bit milliseconds, 12 bit counter, 62 random bits.

    The counter keeps ids of one process in order inside a millisecond; never parse time out of
    an id to order facts of different nodes.
    """
    global _last_ms, _count
    with _lock:
        now_ms = time.time_ns() // 1_000_000
        if now_ms <= _last_ms:
            _count += 1
            if _count > 0xFFF:
                _last_ms += 1
                _count = 0
        else:
            _last_ms = now_ms
            _count = 0
        ms, count = _last_ms, _count
    rand = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    return uuid.UUID(int=(ms << 80) | (0x7 << 76) | (count << 64) | (0b10 << 62) | rand)


def uuid_at(value: int) -> uuid.UUID:
    """A UUID by its number, which is below 2**128: for thousands at once, without what the
    constructor looks at.
    """
    found = _bare(uuid.UUID)
    _set(found, "int", value)
    _set(found, "is_safe", uuid.SafeUUID.unknown)
    return found


def uuid_read(raw: bytes | None) -> uuid.UUID:
    """A UUID as PostgreSQL writes it: for thousands of different ones in an answer."""
    return uuid_at(int((raw or b"").replace(b"-", b""), 16))


@lru_cache(maxsize=65_536)
def uuid_of(text: str) -> uuid.UUID:
    """A UUID by its text, kept: a batch says the same few ids again and again. Raises ValueError."""
    return uuid.UUID(text)


def parse_uuid(text: object) -> uuid.UUID | None:
    """The canonical 36-character form only; anything else is None, never an exception."""
    if not isinstance(text, str) or len(text) != 36:
        return None
    try:
        found = uuid_of(text)
    except ValueError:
        return None
    return found if str(found) == text.lower() else None
