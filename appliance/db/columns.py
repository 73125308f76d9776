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
        oid, each = _TYPES[self.type]
        values, count = self.values, len(self.values)
        if count and values[0] == values[-1] and values.count(values[0]) == count:
            # Of one kind, stream or day, as whole columns often are.
            parts = each(values[:1]) * count
        else:
            parts = each(values)
        return _HEADER(1, int(_NULL in parts), oid, count, 1) + b"".join(parts)


def _texts(values: Sequence[str | None]) -> list[bytes]:
    try:
        found = [None if v is None else v.encode() for v in values]
    except UnicodeEncodeError:
        found = [b"\0"]
    if b"\0" in b"".join(filter(None, found)):
        raise Invalid("A text holds a character that cannot be stored.", code="text.unstorable")
    return _byteas(found)


def _uuids(values: Sequence[UUID | None]) -> list[bytes]:
    return [_NULL if v is None else _UUID + v.int.to_bytes(16, "big") for v in values]


def _bigints(values: Sequence[int | None]) -> list[bytes]:
    return [_NULL if v is None else _BIGINT(8, v) for v in values]


def _byteas(values: Sequence[bytes | None]) -> list[bytes]:
    return [_NULL if v is None else _LENGTH(len(v)) + v for v in values]


def _moments(values: Sequence[datetime | None]) -> list[bytes]:
    return [_NULL if v is None else _moment(v) for v in values]


def _moment(value: datetime) -> bytes:
    past = value - _EPOCH
    return _BIGINT(8, (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds)


# Element type (pg_type.oid, fixed for built-in types) and how its values are written.
_TYPES: dict[str, tuple[int, Callable[[Sequence[Any]], list[bytes]]]] = {
    "uuid": (2950, _uuids),
    "text": (25, _texts),
    "bigint": (20, _bigints),
    "bytea": (17, _byteas),
    "timestamptz": (1184, _moments),
}
