"""Ids of what a run makes: they follow from the run and a name, so a repeat makes the same."""

from __future__ import annotations

from hashlib import blake2b
from uuid import UUID


def derived_id(run: UUID, name: str) -> UUID:
    """The id of what a run makes: a UUIDv7 of the run's millisecond, the same each time."""
    spread = blake2b(name.encode(), digest_size=10, key=run.bytes).digest()
    number = int.from_bytes(run.bytes[:6] + spread)
    number = number & ~(0xF << 76) | 0x7 << 76
    return UUID(int=number & ~(0x3 << 62) | 0x2 << 62)
