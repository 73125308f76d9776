"""The connector: captured answers of Ozon to the rows of the shop."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec

from connectors.formats.answers import Call, Captures, Item, id_by, items_at
from connectors.formats.market_orders import (
    Buyer,
    Line,
    Order,
    currency_of,
    read_statuses,
    stage_order,
)

KEY = "ozon"
_STATUSES = read_statuses(Path(__file__).parent)


class _Product(msgspec.Struct, frozen=True):
    offer_id: str | None = None
    name: str | None = None
    price: Decimal | None = None
    quantity: Decimal | None = None
    sku: int | None = None
    currency_code: str | None = None


class _Address(msgspec.Struct, frozen=True):
    address_tail: str | None = None


class _Customer(msgspec.Struct, frozen=True):
    customer_id: int | None = None
    name: str | None = None
    phone: str | None = None
    customer_email: str | None = None
    address: _Address | None = None


class _Legal(msgspec.Struct, frozen=True):
    company_name: str | None = None
    inn: str | None = None


class _Method(msgspec.Struct, frozen=True):
    name: str | None = None
    warehouse: str | None = None
    warehouse_id: int | None = None


class _Posting(msgspec.Struct, frozen=True):
    posting_number: str
    status: str
    order_number: str | None = None
    substatus: str | None = None
    in_process_at: str | None = None
    shipment_date: str | None = None
    tracking_number: str | None = None
    parent_posting_number: str | None = None
    products: tuple[_Product, ...] | None = None
    customer: _Customer | None = None
    legal_info: _Legal | None = None
    delivery_method: _Method | None = None


class _Postings(msgspec.Struct, frozen=True):
    postings: list[msgspec.Raw] | None = None


class _PostingsPage(msgspec.Struct, frozen=True):
    result: _Postings


class _ItemsPage(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw] | None = None


class _Offer(msgspec.Struct, frozen=True):
    offer_id: str
    name: str | None = None
    barcodes: tuple[str, ...] | None = None
    is_archived: bool = False


class _Price(msgspec.Struct, frozen=True):
    price: Decimal | None = None
    old_price: Decimal | None = None
    currency_code: str | None = None


class _Priced(msgspec.Struct, frozen=True):
    offer_id: str
    product_id: int | None = None
    price: _Price | None = None


class _Stock(msgspec.Struct, frozen=True):
    type: str = ""
    present: Decimal | None = None
    reserved: Decimal | None = None


class _Stocked(msgspec.Struct, frozen=True):
    offer_id: str
    product_id: int | None = None
    stocks: tuple[_Stock, ...] | None = None


def _stage_posting(item: Item, raw: msgspec.Raw, argument: str) -> None:
    found = msgspec.json.decode(raw, type=_Posting)
    method = found.delivery_method or _Method()
    lines = tuple(
        Line(
            product=item.text(p.offer_id, f"products[{n}].offer_id"),
            name=item.text(p.name, f"products[{n}].name"),
            quantity=item.amount(p.quantity, f"products[{n}].quantity"),
            price=item.amount(p.price, f"products[{n}].price"),
        )
        for n, p in enumerate(found.products or ())
    )
    currency = next((p.currency_code for p in found.products or () if p.currency_code), None)
    order = Order(
        id=found.posting_number, number=found.posting_number, status=found.status,
        moment=item.moment(found.in_process_at, "in_process_at"), currency=currency,
        buyer=_buyer(item, found), lines=lines,
        properties={
            "order_number": found.order_number, "substatus": found.substatus,
            "ship_until": found.shipment_date, "tracking_number": found.tracking_number,
            "split_from": found.parent_posting_number, "delivery": method.name,
            "warehouse": method.warehouse,
            "warehouse_id": str(method.warehouse_id) if method.warehouse_id else None,
        },
    )  # fmt: skip
    stage_order(item, order, _STATUSES)


def _buyer(item: Item, found: _Posting) -> Buyer | None:
    customer, legal = found.customer or _Customer(), found.legal_info or _Legal()
    if not customer.customer_id:
        return None
    address = customer.address.address_tail if customer.address else None
    company = item.text(legal.company_name, "legal_info.company_name")
    return Buyer(
        id=str(customer.customer_id), name=company or item.text(customer.name, "customer.name"),
        phone=item.text(customer.phone, "customer.phone"),
        email=item.text(customer.customer_email, "customer.customer_email"),
        address=item.text(address, "customer.address.address_tail"), tax_id=legal.inn or None,
        is_person=not company,
    )  # fmt: skip


def _stage_offer(item: Item, raw: msgspec.Raw, argument: str) -> None:
    found = msgspec.json.decode(raw, type=_Offer)
    barcodes = tuple(b for b in found.barcodes or () if b)
    item.stage("product", found.offer_id, {
        "name": item.text(found.name, "name"), "sku": found.offer_id,
        "barcode": barcodes[0] if barcodes else None,
        "barcodes": "\n".join(barcodes) if len(barcodes) > 1 else None,
        "is_deleted": found.is_archived or None,
    })  # fmt: skip


def _stage_price(item: Item, raw: msgspec.Raw, argument: str) -> None:
    found = msgspec.json.decode(raw, type=_Priced)
    told = found.price or _Price()
    amount = item.amount(told.price, "price.price")
    if amount is None:
        item.fault("missing-price", "a price", "", "price")
    old = item.amount(told.old_price, "price.old_price")
    type_ = item.taking.settings.get("price_type") or KEY
    item.stage("price", f"{found.offer_id}|{type_}", {
        "product_id": found.offer_id, "price_type_id": type_, "amount": amount,
        "currency": currency_of(told.currency_code), "old_amount": old if old != "0" else None,
    })  # fmt: skip


def _stage_stock(item: Item, raw: msgspec.Raw, argument: str) -> None:
    """What the seller's own warehouses hold; what lies at Ozon's is no stock of ours."""
    found = msgspec.json.decode(raw, type=_Stocked)
    own = [s for s in found.stocks or () if s.type in ("fbs", "rfbs")]
    present = sum((s.present or Decimal(0) for s in own), Decimal(0))
    item.stage("stock", found.offer_id, {
        "product_id": found.offer_id, "quantity": item.amount(present, "stocks"),
    })  # fmt: skip


_CALLS = {
    "postings": Call(
        items=items_at(_PostingsPage, "result", "postings"), id_of=id_by("posting_number"),
        stage=_stage_posting,
    ),
    "offers": Call(
        items=items_at(_ItemsPage, "items"), id_of=id_by("offer_id"),
        stage=_stage_offer, entity="product",
    ),
    "prices": Call(
        items=items_at(_ItemsPage, "items"), id_of=id_by("offer_id"),
        stage=_stage_price, entity="price",
    ),
    "stocks": Call(
        items=items_at(_ItemsPage, "items"), id_of=id_by("offer_id"),
        stage=_stage_stock, entity="stock",
    ),
}  # fmt: skip

CONNECTOR = Captures(KEY, _CALLS)
