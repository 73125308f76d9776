"""Orders that a node has for a base, as it tells them (appliance/http/routes/exchangeorders.py)."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from connectors.sdk.retry import Trouble


class Buyer(msgspec.Struct, frozen=True):
    """Who ordered; `external_id` is None where 1C does not know them."""

    external_id: str | None
    fields: dict[str, str]


class Line(msgspec.Struct, frozen=True):
    """One line; `external_id` is `product` or `product#variant` of 1C."""

    external_id: str | None
    name: str
    sku: str
    quantity: Decimal
    price: Decimal
    amount: Decimal


class Order(msgspec.Struct, frozen=True):
    """One order in one version; `external_id`: what 1C calls it, where it is one of 1C's own."""

    id: str
    version: str
    number: str
    at: datetime
    state: str
    currency: str
    amount: Decimal
    delivery: str
    buyer: Buyer | None
    lines: tuple[Line, ...]
    external_id: str | None = None


class _Page(msgspec.Struct, frozen=True):
    orders: list[Order]
    next: str | None = None


def read_orders(body: bytes) -> tuple[list[Order], str]:
    """Orders of a node, and behind which to go on. Raises Trouble."""
    try:
        page = msgspec.json.decode(body, type=_Page, strict=False)
    except msgspec.DecodeError as error:
        raise Trouble("answer-unreadable", f"this is no answer of a node: {error}"[:300]) from None
    return page.orders, page.next or ""
