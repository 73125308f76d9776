"""The dialects that are YML or near to it: Yandex Market, Rozetka, Prom (research/connectors 10)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

from connectors.formats.xml_write import element, optional
from connectors.sdk.feeds import Category, Offer, Shop
from connectors.systems.yml.write import Dialect

SALES_NOTES_MAX = 50
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_STATES = ("new", "used", "refurbished")
More = Iterator[tuple[str, str, str, str]]


def _yml_head(shop: Shop, categories: list[Category]) -> str:
    head = f'{_XML}<yml_catalog date="{shop.made_at}"><shop>'
    head += element("name", shop.name) + element("company", shop.company)
    head += optional("url", shop.url) + "<currencies>" + _currencies(shop) + "</currencies>"
    return f"{head}<categories>\n{_categories(categories)}</categories><offers>\n"


def _currencies(shop: Shop) -> str:
    return "".join(element("currency", "", {"id": c, "rate": r}) for c, r in shop.rates.items())


def _categories(categories: Iterable[Category]) -> str:
    said = ((c.name, {"id": c.id, "parentId": c.parent_id}) for c in categories)
    return "".join(element("category", name, attributes) + "\n" for name, attributes in said)


def opened(name: str, attributes: dict[str, str]) -> str:
    """The start of an element that has children."""
    return element(name, "", attributes).removesuffix(f"</{name}>")


def _open(name: str, offer: Offer, **more: str) -> str:
    available = "true" if offer.is_available else "false"
    return opened(
        name, {"id": offer.id, **more, "available": available, "group_id": offer.group_id}
    )


def _params(offer: Offer) -> str:
    return "".join(element("param", text, {"name": name}) for name, text in offer.params.items())


def _yml_offer(shop: Shop, offer: Offer) -> str:
    del shop
    parts = [
        _open("offer", offer), element("name", offer.name), optional("url", offer.url),
        element("price", offer.price), optional("oldprice", offer.old_price),
        element("currencyId", offer.currency), element("categoryId", offer.category_id),
        *(element("picture", p) for p in offer.pictures),
        optional("vendor", offer.vendor), optional("vendorCode", offer.vendor_code),
        optional("description", offer.description), optional("sales_notes", offer.sales_notes),
        optional("country_of_origin", offer.country),
        *(element("barcode", b) for b in offer.barcodes), _params(offer),
        optional("weight", offer.weight), optional("min-quantity", offer.minimum_quantity),
        optional("count", offer.quantity), "</offer>\n",
    ]  # fmt: skip
    return "".join(parts)


def _more_yml(offer: Offer) -> More:
    if len(offer.sales_notes) > SALES_NOTES_MAX:
        expected = f"at most {SALES_NOTES_MAX} characters"
        yield "too-long", expected, offer.sales_notes, "sales_notes"


def _rozetka_offer(shop: Shop, offer: Offer) -> str:
    del shop
    parts = [
        _open("offer", offer), element("name", offer.name), element("name_ua", offer.name_ua),
        optional("url", offer.url), element("price", offer.price),
        optional("price_old", offer.old_price), element("currencyId", offer.currency),
        element("categoryId", offer.category_id),
        *(element("picture", p) for p in offer.pictures), element("vendor", offer.vendor),
        optional("article", offer.vendor_code), element("state", offer.state),
        element("stock_quantity", offer.quantity), optional("description", offer.description),
        element("description_ua", offer.description_ua),
        optional("country_of_origin", offer.country), _params(offer), "</offer>\n",
    ]  # fmt: skip
    return "".join(parts)


def _more_rozetka(offer: Offer) -> More:
    if offer.state not in _STATES:
        yield "state", f"one of {', '.join(_STATES)}", offer.state, "state"
    for name in ("name", "name_ua", "description", "description_ua"):
        bad = [c for c in getattr(offer, name) if unicodedata.category(c)[0] == "C"]
        if any(c not in "\n\r\t" for c in bad):
            yield "unprintable", "printable characters", ascii(bad[0]), name
    if "." in offer.quantity:
        yield "number-malformed", "a whole number", offer.quantity, "quantity"


def _prom_head(shop: Shop, categories: list[Category]) -> str:
    head = f"{_XML}<shop>" + element("name", shop.name) + optional("company", shop.company)
    head += optional("url", shop.url) + "<currencies>" + _currencies(shop) + "</currencies>"
    return f"{head}<catalog>\n{_categories(categories)}</catalog><items>\n"


def _prom_offer(shop: Shop, offer: Offer) -> str:
    del shop
    parts = [
        _open("item", offer, selling_type="r"), element("name", offer.name),
        optional("name_ua", offer.name_ua), element("categoryId", offer.category_id),
        element("price", offer.price), optional("oldprice", offer.old_price),
        element("currencyId", offer.currency), optional("url", offer.url),
        *(element("image", p) for p in offer.pictures), optional("vendor", offer.vendor),
        optional("vendorCode", offer.vendor_code), optional("barcode", "".join(offer.barcodes[:1])),
        optional("country", offer.country), optional("description", offer.description),
        optional("description_ua", offer.description_ua), _params(offer),
        optional("quantity_in_stock", offer.quantity), "</item>\n",
    ]  # fmt: skip
    return "".join(parts)


YML = Dialect(
    head=_yml_head, offer=_yml_offer, tail="</offers></shop></yml_catalog>\n", name_max=150,
    more=_more_yml,
)  # fmt: skip
ROZETKA = Dialect(
    head=_yml_head, offer=_rozetka_offer, tail="</offers></shop></yml_catalog>\n",
    needs=("quantity", "vendor", "pictures", "name_ua", "description_ua"), pictures_max=15,
    currency="UAH", more=_more_rozetka,
)  # fmt: skip
PROM = Dialect(
    head=_prom_head, offer=_prom_offer, tail="</items></shop>\n", id_max=25, pictures_max=10
)
