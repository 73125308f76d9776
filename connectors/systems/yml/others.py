"""The dialects that have only the idea of YML: Hotline and Kaspi (research/connectors 10)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from connectors.formats.xml_write import element, optional
from connectors.sdk.feeds import Category, Offer, Shop
from connectors.systems.yml.dialects import opened
from connectors.systems.yml.write import Dialect

_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_HERE, _GONE = "В наявності", "Немає"


def _hotline_head(shop: Shop, categories: list[Category]) -> str:
    made = datetime.fromisoformat(shop.made_at).strftime("%Y-%m-%d %H:%M")
    head = f"{_XML}<price>" + element("date", made) + element("firmName", shop.name)
    head += element("firmId", shop.merchant) + "<categories>\n"
    for category in categories:
        head += "<category>" + element("id", category.id)
        head += optional("parentId", category.parent_id) + element("name", category.name)
        head += "</category>\n"
    return f"{head}</categories><items>\n"


def _hotline_offer(shop: Shop, offer: Offer) -> str:
    del shop
    parts = [
        "<item>", element("id", offer.id), element("categoryId", offer.category_id),
        optional("code", offer.vendor_code), element("vendor", offer.vendor),
        element("name", offer.name), optional("description", offer.description),
        element("url", offer.url), *(element("image", p) for p in offer.pictures),
        element("priceRUAH", offer.price), optional("oldprice", offer.old_price),
        element("stock", _HERE if offer.is_available else _GONE),
        *(element("param", text, {"name": name}) for name, text in offer.params.items()),
        *(element("barcode", b) for b in offer.barcodes), "</item>\n",
    ]  # fmt: skip
    return "".join(parts)


def _kaspi_head(shop: Shop, categories: list[Category]) -> str:
    del categories
    head = f'{_XML}<kaspi_catalog date="{shop.made_at}" xmlns="kaspiShopping">'
    head += element("company", shop.company) + element("merchantid", shop.merchant)
    return f"{head}<offers>\n"


def _kaspi_offer(shop: Shop, offer: Offer) -> str:
    at = {"available": "yes" if offer.is_available else "no", "storeId": shop.store}
    parts = [
        opened("offer", {"sku": offer.id}), element("model", offer.name),
        optional("brand", offer.vendor), "<availabilities>",
        element("availability", "", {**at, "stockCount": offer.quantity}), "</availabilities>",
        element("price", offer.price), "</offer>\n",
    ]  # fmt: skip
    return "".join(parts)


def _more_kaspi(offer: Offer) -> Iterator[tuple[str, str, str, str]]:
    if "." in offer.price:
        yield "number-malformed", "whole tenge", offer.price, "price"
    if "." in offer.quantity:
        yield "number-malformed", "a whole number", offer.quantity, "quantity"


HOTLINE = Dialect(
    head=_hotline_head, offer=_hotline_offer, tail="</items></price>\n", needs=("vendor", "url"),
    shop_needs=("name", "merchant"), currency="UAH",
)  # fmt: skip
KASPI = Dialect(
    head=_kaspi_head, offer=_kaspi_offer, tail="</offers></kaspi_catalog>\n", needs=("vendor",),
    shop_needs=("company", "merchant", "store"), id_max=20, currency="KZT", has_categories=False,
    more=_more_kaspi,
)  # fmt: skip
