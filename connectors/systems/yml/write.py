"""A feed out: Yandex Market YML, UTF-8, whole or not at all.

The file is written beside its place and renamed at its end, because whoever polls it takes an
offer that is missing off sale. Whether one that is much smaller than the last may be published at
all is the rule of the caller, who is told the counts before the rename.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec

from connectors.formats.amounts import plain_decimal
from connectors.formats.xml_write import element, optional
from connectors.sdk.contract import Fault, Place, Refused

NAME_MAX = 150
SALES_NOTES_MAX = 50


class Shop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose feed it is. `made_at`: ISO 8601 with its zone. `rates`: by currency, the base is 1."""

    name: str
    company: str
    url: str
    made_at: str
    rates: dict[str, str]


class Category(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A category and the one above it."""

    id: str
    name: str
    parent_id: str = ""


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One offer. `id` is never used again for another thing. Amounts are plain decimals."""

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


class Counts(msgspec.Struct, frozen=True):
    """What a feed holds, for the rule that compares it with the last one."""

    offers: int
    bytes: int


def publish(
    path: Path,
    shop: Shop,
    categories: Iterable[Category],
    offers: Iterable[Offer],
    *,
    may: Callable[[Counts], bool] = lambda _: True,
) -> Counts:
    """Write the whole feed and put it in its place, if the caller's rule lets it.

    Raises Refused: an offer that the format cannot say (its fault), `feed-held` when the rule says
    no. In both cases what was published before stays.
    """
    waiting = path.with_name(f"{path.name}.part")
    count = 0

    def counted() -> Iterator[Offer]:
        nonlocal count
        for offer in offers:
            count += 1
            yield offer

    try:
        with waiting.open("wb") as file:
            for piece in write_feed(shop, categories, counted()):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            counts = Counts(count, file.tell())
        if not may(counts):
            expected = "a feed that the rule of its channel lets through"
            raise Refused(Fault("feed-held", expected, f"{count} offers", Place()))
        waiting.replace(path)
    finally:
        waiting.unlink(missing_ok=True)
    return counts


def write_feed(
    shop: Shop, categories: Iterable[Category], offers: Iterable[Offer]
) -> Iterator[bytes]:
    """The feed in pieces. Raises Refused at the first offer that the format cannot say."""
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<yml_catalog date="{shop.made_at}"><shop>'
    head += element("name", shop.name) + element("company", shop.company) + element("url", shop.url)
    head += "<currencies>"
    head += "".join(element("currency", "", {"id": c, "rate": r}) for c, r in shop.rates.items())
    yield f"{head}</currencies><categories>\n".encode()
    known = set()
    for category in categories:
        known.add(category.id)
        said = {"id": category.id, "parentId": category.parent_id}
        yield f"{element('category', category.name, said)}\n".encode()
    yield b"</categories><offers>\n"
    seen: set[str] = set()
    for offer in offers:
        faults = faults_of_offer(offer, known, shop.rates)
        if offer.id in seen:
            faults.append(Fault("duplicate-id", "one offer for an id", offer.id, Place(offer.id)))
        if faults:
            raise Refused(faults[0])
        seen.add(offer.id)
        yield "".join(_offer(offer)).encode()
    yield b"</offers></shop></yml_catalog>\n"


def faults_of_offer(offer: Offer, categories: set[str], rates: dict[str, str]) -> list[Fault]:
    """Everything that keeps an offer out of a feed, each with the field it is in."""
    found: list[Fault] = []

    def fault(code: str, expected: str, said: str, where: str) -> None:
        found.append(Fault(code, expected, said[:60], Place(offer.id, column=where)))

    if not offer.id.strip() or not offer.name.strip():
        fault("missing", "an id and a name", offer.name, "name")
    if len(offer.name) > NAME_MAX:
        fault("too-long", f"at most {NAME_MAX} characters", offer.name, "name")
    if len(offer.sales_notes) > SALES_NOTES_MAX:
        fault("too-long", f"at most {SALES_NOTES_MAX} characters", offer.sales_notes, "sales_notes")
    if offer.category_id not in categories:
        fault("unknown-category", "a category of the feed", offer.category_id, "category_id")
    if offer.currency not in rates:
        fault("unknown-currency", "a currency of the feed", offer.currency, "currency")
    price = _number(offer.price)
    if price is None or price <= 0:
        fault("number-malformed", "a price above 0", offer.price, "price")
    if offer.old_price and price is not None and (_number(offer.old_price) or 0) <= price:
        fault("old-price", "an old price above the price", offer.old_price, "old_price")
    for name in ("quantity", "weight", "minimum_quantity"):
        text = getattr(offer, name)
        if text and ((amount := _number(text)) is None or amount < 0):
            fault("number-malformed", "a plain decimal from 0", text, name)
    return found


def _offer(offer: Offer) -> Iterator[str]:
    available = "true" if offer.is_available else "false"
    said = {"id": offer.id, "available": available, "group_id": offer.group_id}
    yield element("offer", "", said).removesuffix("</offer>")
    yield element("name", offer.name) + optional("url", offer.url) + element("price", offer.price)
    yield optional("oldprice", offer.old_price) + element("currencyId", offer.currency)
    yield element("categoryId", offer.category_id)
    yield "".join(element("picture", p) for p in offer.pictures)
    yield optional("vendor", offer.vendor) + optional("vendorCode", offer.vendor_code)
    yield optional("description", offer.description) + optional("sales_notes", offer.sales_notes)
    yield optional("country_of_origin", offer.country)
    yield "".join(element("barcode", b) for b in offer.barcodes)
    yield "".join(element("param", text, {"name": name}) for name, text in offer.params.items())
    yield optional("weight", offer.weight) + optional("min-quantity", offer.minimum_quantity)
    yield optional("stock_quantity", offer.quantity) + "</offer>\n"


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text) if plain_decimal(text) == text else None
    except (ValueError, InvalidOperation):
        return None
