"""Ledgers: facts that nobody edits, and how a present value follows from them.

Two sorts, known to accountants from 1C's registers. A *state* ledger says what a value is from a
moment on, by key: the price of a product. It holds until the next entry of the same key, so two
values at once cannot exist. A *balance* ledger says how much came or went, by key: stock of a
product in a warehouse; the balance is the sum. Both merge by union. A wrong entry is answered by
a reversing one, whose id follows from the id of what it reverses, so that two nodes that reverse
the same entry while apart reverse it once.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b
from uuid import UUID

import msgspec

# Every ledger has this field; a reversing entry names in it what it takes back.
REVERSES = "reverses"


class LedgerSort(StrEnum):
    """What an entry says: a value from now on, or an amount that came or went."""

    STATE = "state"
    BALANCE = "balance"


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the entries of a kind add up. Field names: `at` a date or moment, `key`, `values`.

    `floor`: no balance sinks below zero, `unless` a yes/no field of a key's record allows it
    (`warehouse.allow_negative`). `within` names a balance ledger whose key is part of this one's:
    the sum over it is at most that balance (what is reserved, of what is in stock). `until` names
    a moment from which on an amount is released by itself.
    """

    sort: LedgerSort
    at: str
    key: tuple[str, ...]
    values: tuple[str, ...]
    floor: bool = False
    unless: str = ""
    within: str = ""
    until: str = ""


def entry_key(parts: list[str | None]) -> UUID:
    """Sixteen bytes that stand for the key fields' canonical values, in the ledger's order."""
    packed = msgspec.json.encode(parts)
    return UUID(bytes=blake2b(packed, digest_size=16).digest())


def reversal_id(entry: UUID) -> UUID:
    """The id of the one entry that may reverse this one: a UUIDv7 of the same millisecond."""
    return _following(entry, b"", b"reversal")


def transfer_id(entry: UUID) -> UUID:
    """The id of the entry that says the same in another unit, when its document goes there."""
    return _following(entry, b"", b"transfer")


def release_id(entry: UUID, amount: int) -> UUID:
    """The id of the entry that releases what is left of a promise when its time is over."""
    return _following(entry, str(amount).encode(), b"release")


def _following(entry: UUID, text: bytes, person: bytes) -> UUID:
    spread = blake2b(entry.bytes + text, digest_size=10, person=person).digest()
    number = int.from_bytes(entry.bytes[:6] + spread)
    number = number & ~(0xF << 76) | 0x7 << 76
    return UUID(int=number & ~(0x3 << 62) | 0x2 << 62)
