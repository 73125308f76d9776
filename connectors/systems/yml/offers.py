"""One offer of a feed, of any dialect: its product, its prices, its stock."""

from __future__ import annotations

from collections.abc import Callable, Container
from decimal import Decimal
from typing import Any

from msgspec.json import encode

from connectors.formats.staging import Staging, controls_in, number
from connectors.formats.xml import LOCAL, XmlFile
from connectors.sdk.contract import Fault, Place, Value

_YES = frozenset({"true", "yes", "1", "in stock", "в наявності", "в наличии", "available"})
_NO = frozenset({"false", "no", "0", "нет", "немає", "нет в наличии", "немає в наявності"})
_TEXTS = {
    "name": "name", "name_ru": "name", "url": "link", "vendor": "brand", "brand": "brand",
    "vendorCode": "sku", "article": "sku", "code": "code", "description": "description",
    "country_of_origin": "country", "country": "country", "manufacturer": "maker",
}  # fmt: skip
_AMOUNTS = {"price": "", "priceRUAH": "UAH", "priceRUSD": "USD"}
_OLD_AMOUNTS = frozenset({"oldprice", "price_old", "old_price"})
_QUANTITIES = frozenset({"stock_quantity", "quantity_in_stock", "count", "quantity"})
# What is about showing, bidding and delivering, not about the thing.
_PASSED = frozenset({
    "delivery", "pickup", "store", "delivery-options", "pickup-options", "cpa", "bid", "cbid", "rec",
    "local_delivery_cost", "portal_category_id", "portal_category_url",
})  # fmt: skip


class Feed(Staging):
    """The state of one reading."""

    def __init__(self, format_: str, price_type: str) -> None:
        super().__init__()
        self.format = format_
        self.price_type = price_type
        self.currency = {"kaspi": "KZT", "hotline": "UAH"}.get(format_, "")
        self.facts: dict[str, str] = {}
        self.blocks: set[str] = set()

    def take_currency(self, element: Any) -> None:
        """A currency of the feed and its rate, a fact of it."""
        id_, rate = element.get("id") or element.get("code"), element.get("rate")
        if id_ and len(self.facts) < 100:
            self.facts[f"rate {currency_of(id_)}"] = rate or ""


class Draft:
    """An offer as it is gathered."""

    def __init__(self, feed: Feed, place: Place) -> None:
        self.feed = feed
        self.place = place
        self.values: dict[str, Value] = {}
        self.lists: dict[str, list[str]] = {}
        self.properties: dict[str, str] = {}
        self.prices: list[tuple[str, str, str]] = []  # price type, amount as written, currency
        self.old = self.least = self.currency = ""
        self.stock: list[tuple[str, str]] = []
        self.prefix: dict[str, str] = {}
        self.faults: list[Fault] = []

    def add_property(self, name: str, text: str) -> None:
        """One more property; repeated ones are lines of one."""
        found = self.properties.get(name)
        self.properties[name] = f"{found}\n{text}" if found else text


def currency_of(text: str) -> str:
    """The currency code; RUR is the name that the format has for RUB."""
    code = text.strip().upper()
    return "RUB" if code in ("RUR", "RUB") else code


def read_offer(file: XmlFile, element: Any, feed: Feed, categories: Container[str]) -> None:
    """One offer (or item): a row of its product, of each price, of each place of stock."""
    draft = Draft(feed, file.place_of(element))
    id_ = (element.get("id") or element.get("sku") or "").strip()
    for child in element:
        name = LOCAL[child.tag]
        text = (child.text or "").strip()
        if (read := _PARTS.get(name)) is not None:
            read(draft, child)
        elif name == "id":
            id_ = id_ or text
        elif not text or name in _PASSED:
            continue
        elif name in _TEXTS:
            draft.values.setdefault(_TEXTS[name], text)
        elif name in _AMOUNTS:
            if child.get("from") in ("true", "1"):
                feed.warn("price-from", "a price, not the lowest of several", id_, draft.place)
            draft.prices.append((feed.price_type, text, _AMOUNTS[name]))
        elif name in _OLD_AMOUNTS:
            draft.old = text
        elif name in _QUANTITIES:
            draft.stock.append(("", text))
        else:
            draft.add_property(name, text)
    feed.records["offers"] += 1
    _finish(draft, element)
    _file_under(draft, id_, categories)
    draft.faults += controls_in(file, draft.values, draft.place)
    _stage(draft, id_)


def _finish(draft: Draft, element: Any) -> None:
    values = draft.values
    if "name" not in values:
        parts = (draft.prefix.get(n, "") for n in ("typePrefix", "vendor", "model", "title"))
        if name := " ".join(p for p in parts if p):
            values["name"] = name
        else:
            draft.faults.append(Fault("missing-name", "a name", "", draft.place))
    available = yes_no(element.get("available"))
    if available is not None:
        values.setdefault("is_available", available)
    if yes_no(element.get("deleted")) or draft.properties.pop("disabled", "") in ("true", "1"):
        values["is_deleted"] = True
    if group := (element.get("group_id") or "").strip():
        values["group_id"] = group
    for name, texts in draft.lists.items():
        if name == "barcodes":
            values["barcode"] = texts[0]
        if name != "barcodes" or len(texts) > 1:
            values[name] = "\n".join(texts)
    if draft.properties:
        values["properties"] = encode(draft.properties).decode()


def _file_under(draft: Draft, id_: str, categories: Container[str]) -> None:
    groups = draft.lists.pop("groups", None)
    draft.values.pop("groups", None)
    if not groups:
        return
    draft.values["category_id"] = groups[0]
    if len(groups) > 1:
        draft.values["category_ids"] = "\n".join(groups)
    if groups[0] not in categories:
        expected = "categories that the feed lists"
        draft.feed.warn("unknown-category", expected, f"{groups[0]} of {id_}", draft.place)


def _stage(draft: Draft, id_: str) -> None:
    feed, place, faults = draft.feed, draft.place, draft.faults
    content = (tuple(draft.values.items()), tuple(draft.prices), draft.old, tuple(draft.stock))
    if not feed.is_new(place, "offer", id_, content, faults):
        return
    shared = [f for f in faults if f.code == "duplicate-id"]
    feed.stage(place, "product", id_, draft.values, faults)
    for type_, amount, currency in draft.prices:
        values, found = _price(draft, id_, amount)
        code = currency or draft.currency or feed.currency
        values |= {"product_id": id_, "price_type_id": type_}
        if code:
            values["currency"] = currency_of(code)
        key = f"{id_}|{type_}" + (f"|{currency}" if currency == "USD" else "")
        feed.stage(place, "price", key, values, found + shared)
    for warehouse, written in draft.stock:
        found = []
        values = {"product_id": id_}
        if warehouse:
            values["warehouse_id"] = warehouse
        if (quantity := number(written, place, "stock", found)) is not None:
            values["quantity"] = quantity
            if quantity.startswith("-"):
                found.append(Fault("negative-quantity", "a quantity from 0", quantity, place))
        key = f"{id_}|{warehouse}" if warehouse else id_
        feed.stage(place, "stock", key, values, found + shared)


def _price(draft: Draft, id_: str, written: str) -> tuple[dict[str, Value], list[Fault]]:
    place = draft.place
    faults: list[Fault] = []
    values: dict[str, Value] = {}
    if (amount := number(written, place, "price", faults)) is not None:
        values["amount"] = amount
        if amount.startswith("-") or not amount.strip("0."):
            faults.append(Fault("zero-price", "a price above 0", amount, place))
    if draft.least and (least := number(draft.least, place, "min-quantity", faults)) is not None:
        values["minimum_quantity"] = least
    if draft.old:
        unspoken: list[Fault] = []
        old = number(draft.old, place, "oldprice", unspoken)
        if old is None or amount is None or Decimal(old) <= Decimal(amount):
            expected = "an old price above the price (it is left out)"
            draft.feed.warn("old-price", expected, f"{draft.old[:40]} of {id_}", place)
        else:
            values["old_amount"] = old
    return values, faults


def yes_no(text: str | None) -> bool | None:
    """Yes, no, or None for a word that is neither."""
    word = (text or "").strip().casefold()
    return True if word in _YES else False if word in _NO else None


def _list(name: str) -> Callable[[Draft, Any], None]:
    def read(draft: Draft, element: Any) -> None:
        if text := (element.text or "").strip():
            draft.lists.setdefault(name, []).append(text)

    return read


def _piece(draft: Draft, element: Any) -> None:
    """What a name is made of; the vendor is a field as well, a lone model a name."""
    name = LOCAL[element.tag]
    text = (element.text or "").strip()
    if text:
        draft.prefix[name] = text
        if name == "vendor":
            draft.values["brand"] = text
        elif name != "typePrefix":
            draft.properties[name] = text


def _param(draft: Draft, element: Any) -> None:
    name = (element.get("name") or "").strip()
    text = " ".join(t for t in element.itertext()).strip()
    unit = (element.get("unit") or "").strip()
    if name and text:
        draft.add_property(name, f"{text} {unit}" if unit else text)


def _currency(draft: Draft, element: Any) -> None:
    draft.currency = (element.text or "").strip()


def _least(draft: Draft, element: Any) -> None:
    draft.least = (element.text or "").strip()


def _weight(draft: Draft, element: Any) -> None:
    if text := (element.text or "").strip():
        found = number(text, draft.place, "weight", draft.faults)
        if found is not None:
            draft.values["weight"] = found


def _stock_word(draft: Draft, element: Any) -> None:
    """Hotline says stock in words, Prom may say a number."""
    text = (element.text or "").strip()
    said = yes_no(text)
    if said is not None:
        draft.values["is_available"] = said
    elif text:
        draft.add_property("stock", text)


def _outlets(draft: Draft, element: Any) -> None:
    for outlet in element:
        if (written := outlet.get("instock")) is not None:
            draft.stock.append(((outlet.get("id") or "").strip(), written.strip()))


def _availabilities(draft: Draft, element: Any) -> None:
    """Kaspi: each store with its word and its count."""
    said = [yes_no(a.get("available")) for a in element]
    if True in said or False in said:
        draft.values["is_available"] = True in said
    for store in element:
        if (written := store.get("stockCount")) is not None:
            draft.stock.append(((store.get("storeId") or "").strip(), written.strip()))


def _city_prices(draft: Draft, element: Any) -> None:
    """Kaspi: a price for each city is a price type of its own."""
    for price in element:
        if text := (price.text or "").strip():
            draft.prices.append((f"city:{(price.get('cityId') or '').strip()}", text, ""))


_PARTS: dict[str, Callable[[Draft, Any], None]] = {
    "vendor": _piece, "model": _piece, "typePrefix": _piece, "title": _piece,
    "categoryId": _list("groups"), "picture": _list("images"), "image": _list("images"),
    "barcode": _list("barcodes"), "param": _param, "currencyId": _currency,
    "min-quantity": _least, "weight": _weight, "stock": _stock_word, "outlets": _outlets,
    "availabilities": _availabilities, "cityprices": _city_prices,
}  # fmt: skip
