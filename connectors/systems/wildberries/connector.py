"""The connector: captured answers of Wildberries to the rows of the seller."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from connectors.formats.answers import Call, Captures, Item, Taking, id_by, items_at
from connectors.formats.market_orders import Line, Order, currency_of, read_statuses, stage_order

KEY = "wildberries"
_STATUSES = read_statuses(Path(__file__).parent)
# Numeric codes of ISO 4217 of the countries where Wildberries sells.
_CURRENCIES = {
    643: "RUB", 933: "BYN", 398: "KZT", 51: "AMD", 417: "KGS", 860: "UZS", 156: "CNY", 840: "USD",
    978: "EUR", 944: "AZN", 981: "GEL", 972: "TJS", 949: "TRY", 784: "AED",
}  # fmt: skip
_MINOR = Decimal("0.01")


class _Address(msgspec.Struct, frozen=True, rename="camel"):
    full_address: str | None = None


class _Order(msgspec.Struct, frozen=True, rename="camel"):
    id: int
    article: str | None = None
    created_at: str | None = None
    chrt_id: int | None = None
    nm_id: int | None = None
    price: Decimal | None = None
    converted_price: Decimal | None = None
    currency_code: int | None = None
    converted_currency_code: int | None = None
    order_uid: str | None = None
    rid: str | None = None
    supply_id: str | None = None
    warehouse_id: int | None = None
    comment: str | None = None
    skus: tuple[str, ...] | None = None
    address: _Address | None = None


class _OrdersPage(msgspec.Struct, frozen=True):
    orders: list[msgspec.Raw] | None = None


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    id: int
    supplier_status: str | None = None
    wb_status: str | None = None


class _StatusesPage(msgspec.Struct, frozen=True):
    orders: tuple[_Status, ...] | None = None


class _Size(msgspec.Struct, frozen=True, rename={"chrt_id": "chrtID", "tech_size": "techSize"}):
    chrt_id: int
    tech_size: str | None = None
    skus: tuple[str, ...] | None = None


class _Card(msgspec.Struct, frozen=True, rename={"nm_id": "nmID", "vendor_code": "vendorCode"}):
    nm_id: int
    vendor_code: str
    title: str | None = None
    brand: str | None = None
    description: str | None = None
    sizes: tuple[_Size, ...] | None = None


class _CardsPage(msgspec.Struct, frozen=True):
    cards: list[msgspec.Raw] | None = None


class _Price(
    msgspec.Struct, frozen=True, rename={"size_id": "sizeID", "discounted": "discountedPrice"}
):
    size_id: int
    price: Decimal | None = None
    discounted: Decimal | None = None


class _Good(
    msgspec.Struct, frozen=True,
    rename={"vendor_code": "vendorCode", "currency": "currencyIsoCode4217"},
):  # fmt: skip
    vendor_code: str
    sizes: tuple[_Price, ...] | None = None
    currency: str | None = None


class _Goods(msgspec.Struct, frozen=True, rename={"list_goods": "listGoods"}):
    list_goods: list[msgspec.Raw] | None = None


class _GoodsPage(msgspec.Struct, frozen=True):
    data: _Goods | None = None


class _Stock(msgspec.Struct, frozen=True, rename={"chrt_id": "chrtId"}):
    chrt_id: int
    amount: Decimal


class _StocksPage(msgspec.Struct, frozen=True):
    stocks: tuple[_Stock, ...] | None = None


def _note_statuses(taking: Taking, body: msgspec.Raw, argument: str) -> None:
    statuses = taking.notes.setdefault("statuses", {})
    for found in msgspec.json.decode(body, type=_StatusesPage).orders or ():
        is_theirs = found.supplier_status != "cancel" and found.wb_status not in (None, "waiting")
        status = found.wb_status if is_theirs else found.supplier_status
        statuses[found.id] = status or "untold"


def _note_cards(taking: Taking, body: msgspec.Raw, argument: str) -> None:
    """Which product a size is of; cards that do not fit are told of where they are staged."""
    products = taking.notes.setdefault("products", {})
    for raw in items_at(_CardsPage, "cards")(body):
        try:
            card = msgspec.json.decode(raw, type=_Card)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        products.update({size.chrt_id: card.vendor_code for size in card.sizes or ()})


def _by_size(taking: Taking) -> bool:
    return taking.settings.get("sizes") == "yes"


def _stage_order(item: Item, raw: msgspec.Raw, argument: str) -> None:
    found = msgspec.json.decode(raw, type=_Order)
    minor = found.price if found.converted_price is None else found.converted_price
    code = found.currency_code if found.converted_price is None else found.converted_currency_code
    price = item.amount(minor * _MINOR if minor is not None else None, "price")
    currency = _CURRENCIES.get(code or 0)
    if currency is None:
        item.fault("unmapped", "a currency that is known by its number", str(code), "currencyCode")
    variant = str(found.chrt_id) if found.chrt_id and _by_size(item.taking) else None
    line = Line(
        product=item.text(found.article, "article"), name=None, quantity="1", price=price,
        variant=variant,
    )  # fmt: skip
    address = found.address.full_address if found.address else None
    order = Order(
        id=str(found.id), number=str(found.id),
        status=item.taking.notes.get("statuses", {}).get(found.id, "untold"),
        moment=item.moment(found.created_at, "createdAt"), currency=currency, amount=price,
        comment=item.text(found.comment, "comment"), lines=(line,),
        properties={
            "basket": found.order_uid, "rid": found.rid, "supply": found.supply_id,
            "warehouse_id": str(found.warehouse_id) if found.warehouse_id else None,
            "barcode": (found.skus or ("",))[0], "nm_id": str(found.nm_id) if found.nm_id else None,
            "address": item.text(address, "address.fullAddress"),
        },
    )  # fmt: skip
    stage_order(item, order, _STATUSES)


def _stage_card(item: Item, raw: msgspec.Raw, argument: str) -> None:
    found = msgspec.json.decode(raw, type=_Card)
    if "offers" not in item.taking.about.get("what", ""):
        return
    barcodes = [s for size in found.sizes or () for s in size.skus or ()]
    item.stage("product", found.vendor_code, {
        "name": item.text(found.title, "title"), "sku": found.vendor_code,
        "brand": item.text(found.brand, "brand"),
        "description": item.text(found.description, "description"),
        "barcode": barcodes[0] if barcodes else None,
        "barcodes": "\n".join(barcodes) if len(barcodes) > 1 else None,
    })  # fmt: skip
    for size in (found.sizes or ()) if _by_size(item.taking) else ():
        item.stage("variant", str(size.chrt_id), {
            "product_id": found.vendor_code, "name": item.text(size.tech_size, "sizes.techSize"),
            "barcode": (size.skus or ("",))[0] or None,
        })  # fmt: skip


def _stage_price(item: Item, raw: msgspec.Raw, argument: str) -> None:
    """What is paid after the seller's discount; before it is the old price."""
    found = msgspec.json.decode(raw, type=_Good)
    type_ = item.taking.settings.get("price_type") or KEY
    by_size = _by_size(item.taking)
    chosen = found.sizes or ()
    if not by_size:
        if len({s.discounted for s in chosen}) > 1:
            item.fault(
                "price-by-size", "one price of all sizes (or the setting `sizes`)", "", "sizes"
            )
        chosen = chosen[:1]
    for size in chosen:
        amount = item.amount(size.discounted, "sizes.discountedPrice")
        if amount is None:
            item.fault("missing-price", "a price", "", "sizes")
        before = item.amount(size.price, "sizes.price")
        key = (
            f"{found.vendor_code}|{size.size_id}|{type_}"
            if by_size
            else f"{found.vendor_code}|{type_}"
        )
        item.stage("price", key, {
            "product_id": found.vendor_code, "price_type_id": type_, "amount": amount,
            "variant_id": str(size.size_id) if by_size else None,
            "currency": currency_of(found.currency),
            "old_amount": before if size.price != size.discounted else None,
        })  # fmt: skip


def _stocks(body: msgspec.Raw) -> list[msgspec.Raw]:
    found = msgspec.json.decode(body, type=_StocksPage)
    return [msgspec.Raw(msgspec.json.encode(s)) for s in found.stocks or ()]


def _note_stocks(taking: Taking, body: msgspec.Raw, argument: str) -> None:
    """How much of each product, over its sizes; a size that is told twice counts once."""
    sums: dict[str, dict[int, Decimal]] = taking.notes.setdefault(
        f"stocks {argument}", defaultdict(dict)
    )
    products: dict[int, str] = taking.notes.get("products", {})
    for found in msgspec.json.decode(body, type=_StocksPage).stocks or ():
        if found.chrt_id in products:
            sums[products[found.chrt_id]][found.chrt_id] = found.amount


def _none(body: msgspec.Raw) -> list[msgspec.Raw]:
    """Statuses are noted, not staged."""
    return []


def _stage_stock(item: Item, raw: msgspec.Raw, argument: str) -> None:
    found = msgspec.json.decode(raw, type=_Stock)
    product: Any = item.taking.notes.get("products", {}).get(found.chrt_id)
    if product is None:
        item.fault("unmapped", "a size that a card has", str(found.chrt_id), "chrtId")
        item.stage("stock", f"{found.chrt_id}|{argument}", {"warehouse_id": argument or None})
        return
    values = {"product_id": product, "warehouse_id": argument or None}
    if _by_size(item.taking):
        amount = item.amount(found.amount, "amount")
        item.stage("stock", f"{product}|{found.chrt_id}|{argument}", {
            **values, "variant_id": str(found.chrt_id), "quantity": amount,
        })  # fmt: skip
        return
    sizes = item.taking.notes[f"stocks {argument}"].pop(product, None)
    if sizes is not None:
        total = item.amount(sum(sizes.values(), Decimal(0)), "amount")
        item.stage("stock", f"{product}|{argument}", {**values, "quantity": total})


_CALLS = {
    "orders": Call(items=items_at(_OrdersPage, "orders"), id_of=id_by("id"), stage=_stage_order),
    "statuses": Call(
        items=_none, id_of=id_by("id"), stage=_stage_order, survey=_note_statuses,
    ),
    "cards": Call(
        items=items_at(_CardsPage, "cards"), id_of=id_by("nmID"), stage=_stage_card,
        entity="product", survey=_note_cards,
    ),
    "prices": Call(
        items=items_at(_GoodsPage, "data", "list_goods"), id_of=id_by("vendorCode"),
        stage=_stage_price, entity="price",
    ),
    "stocks": Call(
        items=_stocks, id_of=id_by("chrtId"), stage=_stage_stock, entity="stock",
        survey=_note_stocks,
    ),
}  # fmt: skip

CONNECTOR = Captures(KEY, _CALLS)
