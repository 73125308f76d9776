"""The connector: captured answers of Kaspi to the rows of the merchant."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec

from connectors.formats.answers import Call, Captures, Item, id_by, items_at
from connectors.formats.market_orders import (
    Buyer,
    Line,
    Order,
    read_statuses,
    stage_lines,
    stage_order,
)

KEY = "kaspi"
_STATUSES = read_statuses(Path(__file__).parent)
_MS_MAX = 4_102_444_800_000


class _Customer(msgspec.Struct, frozen=True, rename="camel"):
    id: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    cell_phone: str | None = None


class _Address(msgspec.Struct, frozen=True, rename="camel"):
    formatted_address: str | None = None


class _Attributes(msgspec.Struct, frozen=True, rename="camel"):
    code: str | None = None
    status: str = ""
    state: str | None = None
    creation_date: int | None = None
    total_price: Decimal | None = None
    payment_mode: str | None = None
    delivery_mode: str | None = None
    customer: _Customer | None = None
    delivery_address: _Address | None = None


class _Order(msgspec.Struct, frozen=True):
    id: str
    attributes: _Attributes


class _Offer(msgspec.Struct, frozen=True):
    code: str | None = None
    name: str | None = None


class _Entry(msgspec.Struct, frozen=True, rename="camel"):
    quantity: Decimal | None = None
    base_price: Decimal | None = None
    total_price: Decimal | None = None
    offer: _Offer | None = None


class _Entered(msgspec.Struct, frozen=True):
    id: str
    attributes: _Entry


class _Page(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw] | None = None


def _stage_order(item: Item, raw: msgspec.Raw, argument: str) -> None:
    found = msgspec.json.decode(raw, type=_Order)
    told = found.attributes
    address = told.delivery_address.formatted_address if told.delivery_address else None
    order = Order(
        id=found.id, number=told.code or found.id, status=told.status,
        moment=_moment(item, told.creation_date), currency="KZT",
        amount=item.amount(told.total_price, "totalPrice"), buyer=_buyer(item, told.customer),
        properties={
            "state": told.state, "payment": told.payment_mode, "delivery": told.delivery_mode,
            "address": item.text(address, "deliveryAddress"),
        },
    )  # fmt: skip
    stage_order(item, order, _STATUSES)


def _stage_entry(item: Item, raw: msgspec.Raw, argument: str) -> None:
    """One line, told apart from its order."""
    entry = msgspec.json.decode(raw, type=_Entered)
    found = entry.attributes
    offer = found.offer or _Offer()
    line = Line(
        id=entry.id, product=item.text(offer.code, "offer.code"), name=item.text(offer.name, "offer.name"),
        quantity=item.amount(found.quantity, "quantity"),
        price=item.amount(found.base_price, "basePrice"),
        amount=item.amount(found.total_price, "totalPrice"),
    )  # fmt: skip
    stage_lines(item, argument, (line,))


def _buyer(item: Item, found: _Customer | None) -> Buyer | None:
    if found is None:
        return None
    phone = item.text(found.cell_phone, "customer.cellPhone")
    parts = (found.last_name, found.first_name)
    name = item.text(" ".join(p.strip() for p in parts if p and p.strip()), "customer")
    ident = found.id or phone
    return Buyer(id=ident, name=name, phone=phone, is_person=True) if ident else None


def _moment(item: Item, at: int | None) -> str | None:
    """Milliseconds of Unix time as a moment."""
    if at is None:
        return None
    if not 0 < at < _MS_MAX:
        item.fault("malformed-date", "milliseconds of Unix time", str(at)[:40], "creationDate")
        return None
    return datetime.fromtimestamp(at // 1_000, UTC).isoformat()


_CALLS = {
    "orders": Call(items=items_at(_Page, "data"), id_of=id_by("id"), stage=_stage_order),
    "entries": Call(
        items=items_at(_Page, "data"), id_of=id_by("id"), stage=_stage_entry, entity="order_line"
    ),
}

CONNECTOR = Captures(KEY, _CALLS)
