"""Feeds on their way out: one shape of shops and offers for every dialect.

An offer that a dialect cannot say stays out with its faults, and the others go: a shop of a hundred
thousand offers is not taken off sale because one lacks a picture. Whether a feed may be published
is the rule of whoever asked for it; a writer only says what went in and what did not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from connectors.sdk.contract import Fault


class Shop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose feed it is. `made_at`: ISO 8601 with its zone. `rates`: by currency, the base is 1.

    `merchant`: the id that the channel gave the shop; `store`: its place of issue (Kaspi: PP1).
    """

    name: str
    company: str
    url: str
    made_at: str
    rates: dict[str, str]
    merchant: str = ""
    store: str = ""


class Category(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A category and the one above it."""

    id: str
    name: str
    parent_id: str = ""


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One offer. `id` is never used again for another thing. Amounts are plain decimals.

    `name_ua`, `description_ua`: in Ukrainian, where a dialect asks for that beside the other one.
    """

    id: str
    name: str
    price: str
    currency: str
    category_id: str
    url: str = ""
    old_price: str = ""
    is_available: bool = True
    quantity: str = ""
    vendor: str = ""
    vendor_code: str = ""
    barcodes: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    description: str = ""
    country: str = ""
    weight: str = ""
    sales_notes: str = ""
    minimum_quantity: str = ""
    group_id: str = ""
    params: dict[str, str] = {}
    name_ua: str = ""
    description_ua: str = ""
    state: str = "new"


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """Asks for a feed of a dialect."""

    dialect: str
    shop: Shop
    categories: list[Category]


class Offers(msgspec.Struct, frozen=True, tag="offers"):
    """More offers for it."""

    offers: list[Offer]


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    """Bytes of the file, in order."""

    data: bytes


class Left(msgspec.Struct, frozen=True, tag="left"):
    """An offer that stays out, and everything that keeps it out. The sheet of a fault's place is
    the offer's id, the column its field.
    """

    id: str
    faults: tuple[Fault, ...]


class Counts(msgspec.Struct, frozen=True, tag="counts"):
    """The end: what a feed holds, for the rule that compares it with the last one."""

    offers: int
    left: int
    bytes: int


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """No feed: what of the shop itself the dialect cannot say."""

    fault: Fault


Order = Begin | Offers
Written = Piece | Left | Counts | Broken


class FeedWriter(Protocol):
    """One dialect of feeds."""

    def write(
        self, shop: Shop, categories: Iterable[Category], offers: Iterable[Offer]
    ) -> Iterator[Piece | Left | Counts]:
        """The file in pieces and, between them, who stays out; the counts last. Raises Refused
        when the shop lacks what the dialect requires.
        """
        ...
