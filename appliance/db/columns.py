"""Whole columns as binary arrays: how thousands of rows travel in one statement.

A text array costs both sides a pass over every character for quoting; in binary each value is
its length and its bytes (PostgreSQL's array_recv). Measured on 10 000 records: a fifth of the
time to encode, and array_in disappears from the server's profile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from struct import Struct
from typing import Any
from uuid import UUID

from appliance.base.errors import Invalid

_HEADER = Struct(">iiIii").pack
_LENGTH = Struct(">i").pack
_BIGINT = Struct(">iq").pack
_NULL = _LENGTH(-1)
_UUID = _LENGTH(16)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Column:
    """Values of one PostgreSQL type for a parameter `$n::type[]`."""

    __slots__ = ("_encoded", "type", "values")

    def __init__(self, type_: str, values: Sequence[Any]) -> None:
        self.type = type_
        self.values = values
        self._encoded = b""

    def encode(self) -> bytes:
        """The binary form, made once. Raises Invalid for a text that cannot be stored."""
        if not self._encoded:
            self._encoded = self._encode()
        return self._encoded

    def _encode(self) -> bytes:
        oid, one = _TYPES[self.type]
        values, count = self.values, len(self.values)
        if count and values[0] == values[-1] and values.count(values[0]) == count:
            # Of one kind, stream or day, as whole columns often are.
            parts = [_NULL if values[0] is None else one(values[0])] * count
        else:
            parts = [_NULL if v is None else one(v) for v in values]
        return _HEADER(1, int(_NULL in parts), oid, count, 1) + b"".join(parts)


def _text(value: str) -> bytes:
    try:
        found = value.encode()
    except UnicodeEncodeError:
        found = b"\0"
    if b"\0" in found:
        raise Invalid("A text holds a character that cannot be stored.", code="text.unstorable")
    return _LENGTH(len(found)) + found


def _uuid(value: UUID) -> bytes:
    return _UUID + value.int.to_bytes(16, "big")


def _bigint(value: int) -> bytes:
    return _BIGINT(8, value)


def _bytea(value: bytes) -> bytes:
    return _LENGTH(len(value)) + value


def _moment(value: datetime) -> bytes:
    past = value - _EPOCH
    return _BIGINT(8, (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds)


# Element type (pg_type.oid, fixed for built-in types) and how one value is written.
_TYPES: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "uuid": (2950, _uuid),
    "text": (25, _text),
    "bigint": (20, _bigint),
    "bytea": (17, _bytea),
    "timestamptz": (1184, _moment),
}
