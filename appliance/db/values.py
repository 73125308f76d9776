"""Columns of an answer as PostgreSQL writes them in text, back into values."""

from __future__ import annotations


def text_of(value: bytes | None) -> str:
    """A text column; empty for null."""
    return value.decode() if value is not None else ""


def bytea_of(value: bytes | None) -> bytes:
    """A bytea column (`\\x` and hexadecimal digits); empty for null."""
    return bytes.fromhex(value[2:].decode()) if value else b""
