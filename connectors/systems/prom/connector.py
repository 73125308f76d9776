"""The connector: captured answers of Prom.ua to the rows of the company."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from connectors.formats.answers import Call, Captures, Item, id_by, items_at
from connectors.formats.market_orders import Buyer, Line, Order, read_statuses, stage_order

KEY = "prom"
_STATUSES = read_statuses(Path(__file__).parent)
_KYIV = ZoneInfo("Europe/Kyiv")
_NOTHING = msgspec.Raw(b"null")


class _Product(msgspec.Struct, frozen=True):
    id: int | None = None
    external_id: str | None = None
    sku: str | None = None
    name: str | None = None
    quantity: Decimal | None = None
    price: msgspec.Raw = _NOTHING
    total_price: msgspec.Raw = _NOTHING


class _Option(msgspec.Struct, frozen=True):
    name: str | None = None


class _Order(msgspec.Struct, frozen=True):
    id: int
    status: str
    date_created: str | None = None
    status_name: str | None = None
    client_id: int | None = None
    client_first_name: str | None = None
    client_second_name: str | None = None
    client_last_name: str | None = None
    client_notes: str | None = None
    email: str | None = None
    phone: str | None = None
    price: msgspec.Raw = _NOTHING
    delivery_address: str | None = None
    delivery_option: _Option | None = None
    payment_option: _Option | None = None
    products: tuple[_Product, ...] | None = None


class _OrdersPage(msgspec.Struct, frozen=True):
    orders: list[msgspec.Raw] | None = None


def _stage_order(item: Item, raw: msgspec.Raw, argument: str) -> None:
    found = msgspec.json.decode(raw, type=_Order)
    lines = tuple(_line(item, p, f"products[{n}]") for n, p in enumerate(found.products or ()))
    order = Order(
        id=str(found.id), number=str(found.id), status=found.status,
        moment=item.moment(found.date_created, "date_created", _KYIV),
        currency=item.taking.settings.get("currency") or "UAH",
        amount=item.written(found.price, "price"),
        comment=item.text(found.client_notes, "client_notes"), buyer=_buyer(item, found),
        lines=lines,
        properties={
            "status_name": found.status_name, "delivery_address": found.delivery_address,
            "delivery": found.delivery_option.name if found.delivery_option else None,
            "payment": found.payment_option.name if found.payment_option else None,
        },
    )  # fmt: skip
    stage_order(item, order, _STATUSES)


def _line(item: Item, found: _Product, path: str) -> Line:
    return Line(
        product=item.text(found.external_id or found.sku, f"{path}.external_id"),
        name=item.text(found.name, f"{path}.name"),
        quantity=item.amount(found.quantity, f"{path}.quantity"),
        price=item.written(found.price, f"{path}.price"),
        amount=item.written(found.total_price, f"{path}.total_price"),
    )


def _buyer(item: Item, found: _Order) -> Buyer | None:
    if not found.client_id:
        return None
    parts = (found.client_last_name, found.client_first_name, found.client_second_name)
    name = " ".join(p.strip() for p in parts if p and p.strip())
    return Buyer(
        id=str(found.client_id), name=item.text(name, "client"),
        phone=item.text(found.phone, "phone"), email=item.text(found.email, "email"),
        is_person=True,
    )  # fmt: skip


_CALLS = {
    "orders": Call(items=items_at(_OrdersPage, "orders"), id_of=id_by("id"), stage=_stage_order),
}

CONNECTOR = Captures(KEY, _CALLS)
