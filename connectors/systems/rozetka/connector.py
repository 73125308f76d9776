"""The connector: captured answers of Rozetka to the rows of the shop."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from connectors.formats.answers import Call, Captures, Item, id_by, items_at
from connectors.formats.market_orders import Buyer, Line, Order, read_statuses, stage_order

KEY = "rozetka"
_STATUSES = read_statuses(Path(__file__).parent)
_KYIV = ZoneInfo("Europe/Kyiv")


class _Good(msgspec.Struct, frozen=True):
    id: int | None = None
    article: str | None = None
    price_offer_id: str | None = None


class _Purchase(msgspec.Struct, frozen=True):
    item_name: str | None = None
    quantity: Decimal | None = None
    price: Decimal | None = None
    price_with_discount: Decimal | None = None
    cost_with_discount: Decimal | None = None
    item: _Good | None = None


class _Person(msgspec.Struct, frozen=True):
    full_name: str | None = None


class _Status(msgspec.Struct, frozen=True):
    name_uk: str | None = None


class _Order(msgspec.Struct, frozen=True):
    id: int
    status: int
    status_group: int = 0
    created: str | None = None
    amount_with_discount: Decimal | None = None
    comment: str | None = None
    user_phone: str | None = None
    user_title: _Person | None = None
    ttn: str | None = None
    payment_type_name: str | None = None
    status_data: _Status | None = None
    purchases: tuple[_Purchase, ...] | None = None


class _Orders(msgspec.Struct, frozen=True):
    orders: list[msgspec.Raw] | None = None


class _OrdersPage(msgspec.Struct, frozen=True):
    content: _Orders


def _stage_order(item: Item, raw: msgspec.Raw, argument: str) -> None:
    found = msgspec.json.decode(raw, type=_Order)
    lines = tuple(_line(item, p, f"purchases[{n}]") for n, p in enumerate(found.purchases or ()))
    status = str(found.status)
    named = found.status_data or _Status()
    order = Order(
        id=str(found.id), number=str(found.id),
        status=status if status in _STATUSES else f"group {found.status_group}",
        moment=item.moment(found.created, "created", _KYIV), currency="UAH",
        amount=item.amount(found.amount_with_discount, "amount_with_discount"),
        comment=item.text(found.comment, "comment"), buyer=_buyer(item, found), lines=lines,
        properties={
            "status_number": status, "status_name": named.name_uk, "ttn": found.ttn,
            "payment": found.payment_type_name,
        },
    )  # fmt: skip
    stage_order(item, order, _STATUSES)


def _line(item: Item, found: _Purchase, path: str) -> Line:
    """What is bought, by the id that the seller's own price list gave it."""
    good = found.item or _Good()
    price = found.price if found.price_with_discount is None else found.price_with_discount
    return Line(
        product=item.text(good.price_offer_id or good.article, f"{path}.item"),
        name=item.text(found.item_name, f"{path}.item_name"),
        quantity=item.amount(found.quantity, f"{path}.quantity"),
        price=item.amount(price, f"{path}.price"),
        amount=item.amount(found.cost_with_discount, f"{path}.cost_with_discount"),
    )


def _buyer(item: Item, found: _Order) -> Buyer | None:
    """A buyer is known by the telephone alone."""
    person = found.user_title or _Person()
    phone = item.text(found.user_phone, "user_phone")
    if phone is None:
        return None
    name = item.text(person.full_name, "user_title.full_name")
    return Buyer(id=phone, name=name, phone=phone, is_person=True)


_CALLS = {
    "orders": Call(
        items=items_at(_OrdersPage, "content", "orders"), id_of=id_by("id"), stage=_stage_order
    ),
}

CONNECTOR = Captures(KEY, _CALLS)
