"""The connector: captured answers of Yandex Market to the rows of the shop."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec

from connectors.formats.answers import MOSCOW, Call, Captures, Item, id_by, items_at
from connectors.formats.market_orders import (
    Buyer,
    Line,
    Order,
    currency_of,
    read_statuses,
    stage_order,
)

KEY = "yandex_market"
_STATUSES = read_statuses(Path(__file__).parent)
_DAY_FIRST = 10


class _Line(msgspec.Struct, frozen=True, rename="camel"):
    offer_id: str | None = None
    offer_name: str | None = None
    price: Decimal | None = None
    count: Decimal | None = None


class _Buyer(msgspec.Struct, frozen=True, rename="camel"):
    id: str | None = None
    last_name: str | None = None
    first_name: str | None = None
    middle_name: str | None = None
    type: str | None = None


class _Delivery(msgspec.Struct, frozen=True, rename="camel"):
    service_name: str | None = None
    type: str | None = None


class _Order(msgspec.Struct, frozen=True, rename="camel"):
    id: int | str
    status: str
    substatus: str | None = None
    creation_date: str | None = None
    currency: str | None = None
    items_total: Decimal | None = None
    delivery_total: Decimal | None = None
    payment_type: str | None = None
    fake: bool = False
    notes: str | None = None
    items: tuple[_Line, ...] | None = None
    buyer: _Buyer | None = None
    delivery: _Delivery | None = None


class _OrdersPage(msgspec.Struct, frozen=True):
    orders: list[msgspec.Raw] | None = None


class _Offers(msgspec.Struct, frozen=True):
    offers: list[msgspec.Raw] | None = None


class _PricesPage(msgspec.Struct, frozen=True):
    result: _Offers


class _Mappings(msgspec.Struct, frozen=True, rename="camel"):
    offer_mappings: list[msgspec.Raw] | None = None


class _MappingsPage(msgspec.Struct, frozen=True):
    result: _Mappings


class _Money(msgspec.Struct, frozen=True, rename="camel"):
    value: Decimal | None = None
    currency_id: str | None = None
    discount_base: Decimal | None = None


class _Priced(msgspec.Struct, frozen=True, rename="camel"):
    offer_id: str
    price: _Money | None = None


class _Offer(msgspec.Struct, frozen=True, rename="camel"):
    offer_id: str
    name: str | None = None
    vendor: str | None = None
    barcodes: tuple[str | int, ...] | None = None
    archived: bool = False


class _Mapped(msgspec.Struct, frozen=True):
    offer: _Offer


class _Count(msgspec.Struct, frozen=True):
    type: str
    count: Decimal


class _Stocked(msgspec.Struct, frozen=True, rename="camel"):
    offer_id: str
    stocks: tuple[_Count, ...] | None = None


class _Warehouse(msgspec.Struct, frozen=True, rename="camel"):
    warehouse_id: int
    offers: list[msgspec.Raw] | None = None


class _Held(msgspec.Struct, frozen=True):
    """An offer in a warehouse, as one item."""

    warehouse: int
    offer: _Stocked


class _Warehouses(msgspec.Struct, frozen=True):
    warehouses: tuple[_Warehouse, ...] | None = None


class _StocksPage(msgspec.Struct, frozen=True):
    result: _Warehouses


def _stage_order(item: Item, raw: msgspec.Raw, argument: str) -> None:
    found = msgspec.json.decode(raw, type=_Order)
    if found.fake:
        item.taking.warn("test-order", "real orders (this one is left out)", "", item.place)
        return
    lines = tuple(
        Line(
            product=item.text(line.offer_id, f"items[{n}].offerId"),
            name=item.text(line.offer_name, f"items[{n}].offerName"),
            quantity=item.amount(line.count, f"items[{n}].count"),
            price=item.amount(line.price, f"items[{n}].price"),
        )
        for n, line in enumerate(found.items or ())
    )
    delivery = found.delivery or _Delivery()
    order = Order(
        id=str(found.id), number=str(found.id), status=found.status,
        moment=item.moment(_iso(found.creation_date), "creationDate", MOSCOW),
        currency=found.currency, amount=item.amount(found.items_total, "itemsTotal"),
        comment=item.text(found.notes, "notes"), buyer=_buyer(item, found.buyer), lines=lines,
        properties={
            "substatus": found.substatus, "payment": found.payment_type,
            "delivery": delivery.service_name, "delivery_type": delivery.type,
            "delivery_total": item.amount(found.delivery_total, "deliveryTotal"),
        },
    )  # fmt: skip
    stage_order(item, order, _STATUSES)


def _buyer(item: Item, found: _Buyer | None) -> Buyer | None:
    if found is None or not found.id:
        return None
    parts = (found.last_name, found.first_name, found.middle_name)
    name = item.text(" ".join(p.strip() for p in parts if p and p.strip()), "buyer")
    return Buyer(id=found.id, name=name, is_person=found.type != "BUSINESS")


def _iso(text: str | None) -> str | None:
    """`23-09-2022 09:12:41` with the year first; anything else as it is."""
    if text and len(text) > _DAY_FIRST and text[2:3] == text[5:6] == "-":
        return f"{text[6:10]}-{text[3:5]}-{text[:2]}T{text[11:]}"
    return text


def _stage_offer(item: Item, raw: msgspec.Raw, argument: str) -> None:
    found = msgspec.json.decode(raw, type=_Mapped).offer
    barcodes = tuple(str(b) for b in found.barcodes or () if b)
    item.stage("product", found.offer_id, {
        "name": item.text(found.name, "offer.name"), "sku": found.offer_id,
        "brand": item.text(found.vendor, "offer.vendor"),
        "barcode": barcodes[0] if barcodes else None,
        "barcodes": "\n".join(barcodes) if len(barcodes) > 1 else None,
        "is_deleted": found.archived or None,
    })  # fmt: skip


def _stage_price(item: Item, raw: msgspec.Raw, argument: str) -> None:
    found = msgspec.json.decode(raw, type=_Priced)
    told = found.price or _Money()
    amount = item.amount(told.value, "price.value")
    if amount is None:
        item.fault("missing-price", "a price", "", "price")
    type_ = item.taking.settings.get("price_type") or KEY
    item.stage("price", f"{found.offer_id}|{type_}", {
        "product_id": found.offer_id, "price_type_id": type_, "amount": amount,
        "currency": currency_of(told.currency_id),
        "old_amount": item.amount(told.discount_base, "price.discountBase"),
    })  # fmt: skip


def _stage_stock(item: Item, raw: msgspec.Raw, argument: str) -> None:
    """What one warehouse holds that is fit for sale."""
    found = msgspec.json.decode(raw, type=_Held)
    fit = [s.count for s in found.offer.stocks or () if s.type == "FIT"]
    item.stage("stock", f"{found.offer.offer_id}|{found.warehouse}", {
        "product_id": found.offer.offer_id, "warehouse_id": str(found.warehouse),
        "quantity": item.amount(sum(fit, Decimal(0)), "stocks"),
    })  # fmt: skip


def _held(body: msgspec.Raw) -> list[msgspec.Raw]:
    page = msgspec.json.decode(body, type=_StocksPage)
    return [
        msgspec.Raw(b'{"warehouse":%d,"offer":%b}' % (w.warehouse_id, bytes(raw)))
        for w in page.result.warehouses or ()
        for raw in w.offers or ()
    ]


def _held_id(raw: msgspec.Raw) -> str:
    try:
        found = msgspec.json.decode(raw, type=_Held)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return f"{found.warehouse}|{found.offer.offer_id}"


def _offer_id(raw: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(raw, type=_Mapped).offer.offer_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


_CALLS = {
    "orders": Call(items=items_at(_OrdersPage, "orders"), id_of=id_by("id"), stage=_stage_order),
    "offers": Call(
        items=items_at(_MappingsPage, "result", "offer_mappings"), id_of=_offer_id,
        stage=_stage_offer, entity="product",
    ),
    "prices": Call(
        items=items_at(_PricesPage, "result", "offers"), id_of=id_by("offerId"),
        stage=_stage_price, entity="price",
    ),
    "stocks": Call(
        items=_held, id_of=_held_id, stage=_stage_stock, entity="stock",
    ),
}  # fmt: skip

CONNECTOR = Captures(KEY, _CALLS)
