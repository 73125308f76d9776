"""Предложение: a product or a variant of it, its prices, its stock in all three forms.

An offer of a product that the catalogue of the same package describes says nothing new of it, so
it gives no row of the product; what it says alone (an offers package without a catalogue) does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from connectors.formats.staging import controls_in, number
from connectors.formats.xml import LOCAL, XmlFile
from connectors.sdk.contract import Fault, Place, Value
from connectors.systems.commerceml.goods import (
    VARIANT_FIELDS,
    Draft,
    read_barcode,
    read_characteristics,
    read_image,
    read_mark,
    read_requisites,
    read_tax,
    read_unit,
)
from connectors.systems.commerceml.stream import Package
from connectors.systems.commerceml.words import REMOVED, attributes_of, texts_of


class Offer(Draft):
    """An offer as it is gathered: prices and stock stand beside what it says of its product."""

    __slots__ = ("characteristic", "prices", "stock", "total", "unit")

    def __init__(self, package: Package, place: Place) -> None:
        super().__init__(package, place)
        self.characteristic = ""
        self.unit = ""
        self.prices: list[tuple[dict[str, Value], list[Fault]]] = []
        self.stock: list[tuple[str, str, list[Fault]]] = []
        self.total: tuple[str, list[Fault]] | None = None


def read_offer(file: XmlFile, element: Any, package: Package) -> None:
    """One Предложение: its rows of a product or variant, of prices, of stock."""
    offer = Offer(package, file.place_of(element))
    values = offer.values
    status = element.get("Статус")
    if status and status.strip().casefold() in REMOVED:
        values["is_deleted"] = True
    for child in element:
        name = LOCAL[child.tag]
        if name == "Ид":
            offer.id = (child.text or "").strip()
        elif name == "Цены":
            for price in child:
                _read_price(offer, price)
        elif (read := _PARTS.get(name)) is not None:
            read(offer, child)
    finish_offer(file, offer)


def finish_offer(file: XmlFile, offer: Offer) -> None:
    """Stage what was gathered of a Предложение."""
    offer.package.records["offers"] += 1
    if offer.characteristic and "#" not in offer.id:
        offer.id = f"{offer.id}#{offer.characteristic}"
    if file.has_controls:
        offer.faults += controls_in(file, offer.values, offer.place)
    _stage(offer)


def _stage(offer: Offer) -> None:
    product, _, variant = offer.id.partition("#")
    if variant == product:
        variant = ""
    values = offer.finished()
    subject: dict[str, Value] = {"product_id": product}
    if variant:
        subject["variant_id"] = offer.id
        kept = {k: v for k, v in values.items() if k in VARIANT_FIELDS}
        if kept or offer.faults:
            _stage_described(offer, "variant", offer.id, {"product_id": product, **kept})
    elif values or offer.faults:
        _stage_described(offer, "product", product, values)
    if offer.prices or offer.stock or offer.total is not None:
        _stage_amounts(offer, subject)


def _stage_amounts(offer: Offer, subject: dict[str, Value]) -> None:
    """Prices and stock. A set of files gives them apart, so each sort of offer is one of its own."""
    content = (
        tuple([tuple(values.items()) for values, _ in offer.prices]),
        tuple([(warehouse, quantity) for warehouse, quantity, _ in offer.stock]),
        offer.total and offer.total[0],
    )
    sort = (
        "offer"
        if offer.prices and (offer.stock or offer.total)
        else ("price of an offer" if offer.prices else "stock of an offer")
    )
    shared: list[Fault] = []
    if offer.package.is_new(offer.place, sort, offer.id, content, shared):
        _stage_prices(offer, subject, shared)
        _stage_stock(offer, subject, shared)


def _stage_described(offer: Offer, entity: str, key: str, values: dict[str, Value]) -> None:
    """What an offer says of its product, if nothing of this package said it before.

    A set of files says it several times in several words: that is no fault.
    """
    package = offer.package
    if package.seen.put(hash(("product", key)), 0) is None:
        package.stage(offer.place, entity, key, values, offer.faults)


def _stage_prices(offer: Offer, subject: dict[str, Value], shared: list[Fault]) -> None:
    package, place = offer.package, offer.place
    for values, faults in offer.prices:
        type_ = values.get("price_type_id", "")
        key = f"{offer.id}|{type_}"
        least = values.get("minimum_quantity")
        if least:
            key = f"{key}|{least}"
        package.stage(place, "price", key, subject | values, faults + shared if shared else faults)


def _stage_stock(offer: Offer, subject: dict[str, Value], shared: list[Fault]) -> None:
    package, place = offer.package, offer.place
    if offer.stock:
        _compare_total(offer)
        for warehouse, quantity, faults in offer.stock:
            row = {**subject, "warehouse_id": warehouse, "quantity": quantity}
            if not quantity:
                del row["quantity"]
            told = faults + shared if shared else faults
            package.stage(place, "stock", f"{offer.id}|{warehouse}", row, told)
    elif offer.total is not None:
        quantity, faults = offer.total
        row = {**subject, "quantity": quantity} if quantity else dict(subject)
        package.stage(place, "stock", offer.id, row, faults + shared)


def _compare_total(offer: Offer) -> None:
    """Warehouses win over the total; a difference is told."""
    if offer.total is None or offer.total[1] or any(f for _, _, f in offer.stock):
        return
    total = offer.total[0]
    parts = [quantity for _, quantity, _ in offer.stock]
    if len(parts) == 1 and parts[0] == total:
        return
    if sum(map(_exact, parts)) != _exact(total):
        expected = "warehouses that make the total"
        offer.package.warn("stock-differs", expected, f"{total} of {offer.id}", offer.place)


def _exact(text: str) -> int:
    whole, _, rest = text.partition(".")
    return int(f"{whole}{rest:0<12}")


def _read_price(offer: Offer, element: Any) -> None:
    texts = texts_of(element)
    put_price(offer, [texts.get(name, "") for name in PRICE_PARTS])


PRICE_PARTS = ("ИдТипаЦены", "ЦенаЗаЕдиницу", "Валюта", "Единица", "Коэффициент", "МинКоличество")


def put_price(offer: Offer, parts: Sequence[str]) -> None:
    """Цена by the texts of its parts (PRICE_PARTS), empty where there is none."""
    type_, amount, currency, unit, factor, least = parts
    package, place = offer.package, offer.place
    values: dict[str, Value] = {}
    faults: list[Fault] = []
    if type_:
        values["price_type_id"] = type_
        if type_ not in package.price_types:
            package.refer(package.price_types, type_, "price types that the package lists", place)
    else:
        faults.append(Fault("missing", "ИдТипаЦены", "", place))
    if not amount:
        faults.append(Fault("missing", "ЦенаЗаЕдиницу", "", place))
    elif (found := number(amount, place, "ЦенаЗаЕдиницу", faults)) is not None:
        values["amount"] = found
        if found[0] in "-0" and not _is_priced(offer, found, faults):
            return
    if currency := currency or package.currencies.get(type_, ""):
        values["currency"] = currency
    if unit := unit or offer.unit:
        values["unit"] = unit
    if factor and (found := number(factor, place, "Коэффициент", faults)) is not None:
        values["factor"] = found
    if least and (found := number(least, place, "МинКоличество", faults)) is not None:
        values["minimum_quantity"] = found
    offer.prices.append((values, faults))


def _is_priced(offer: Offer, amount: str, faults: list[Fault]) -> bool:
    """What is to be done with a price that is not above 0: left out and told, or at fault."""
    package, place = offer.package, offer.place
    if not amount.strip("-0."):
        if package.zero_is_none:
            expected = "a price above 0 (0 is read as none)"
            package.warn("zero-price", expected, offer.id, place)
            return False
        faults.append(Fault("zero-price", "a price above 0", amount, place))
    elif amount.startswith("-"):
        faults.append(Fault("negative-price", "a price above 0", amount, place))
    return True


def _quantity(offer: Offer, element: Any) -> None:
    if text := (element.text or "").strip():
        put_total(offer, text)


def put_total(offer: Offer, text: str) -> None:
    """Количество: the total of all warehouses."""
    if text:
        faults: list[Fault] = []
        offer.total = number(text, offer.place, "Количество", faults) or "", faults


def _warehouse(offer: Offer, element: Any) -> None:
    """Склад with attributes (to 2.08), or with children."""
    said = attributes_of(element)
    if not said.get("ИдСклада"):
        said |= texts_of(element)
    _put_said(offer, said)


def _rests(offer: Offer, element: Any) -> None:
    """Остатки (2.09 and later): by warehouse, or one total."""
    for rest in element:
        said = texts_of(rest)
        inner = [c for c in rest if LOCAL[c.tag] == "Склад"]
        for warehouse in inner:
            _put_said(offer, said | attributes_of(warehouse) | texts_of(warehouse))
        if not inner and "Количество" in said:
            put_total(offer, said["Количество"])


def _put_said(offer: Offer, said: dict[str, str]) -> None:
    warehouse = said.get("ИдСклада") or said.get("Ид", "")
    put_stock(offer, warehouse, said.get("КоличествоНаСкладе") or said.get("Количество", ""))


def put_stock(offer: Offer, warehouse: str, written: str) -> None:
    """The quantity of one warehouse; without a quantity nothing is said."""
    if not written:
        return
    place, package = offer.place, offer.package
    faults: list[Fault] = []
    quantity = number(written, place, "Склад", faults) or ""
    if offer.stock and any(w == warehouse for w, _, _ in offer.stock):
        expected = "one quantity of a warehouse"
        faults.append(Fault("duplicate-warehouse", expected, warehouse, place))
    if not warehouse:
        faults.append(Fault("missing-id", "the id of a warehouse", "", place))
    elif warehouse not in package.warehouses:
        package.refer(package.warehouses, warehouse, "warehouses that the package lists", place)
    offer.stock.append((warehouse, quantity, faults))


def _named(target: str) -> Any:
    def read(offer: Offer, element: Any) -> None:
        if text := (element.text or "").strip():
            offer.values[target] = text

    return read


def _characteristic(offer: Offer, element: Any) -> None:
    offer.characteristic = (element.text or "").strip()


def _unit_code(offer: Offer, element: Any) -> None:
    offer.unit = (element.text or "").strip()


_PARTS: dict[str, Any] = {
    "Наименование": _named("name"),
    "Артикул": _named("sku"),
    "Код": _named("code"),
    "Штрихкод": read_barcode,
    "БазоваяЕдиница": read_unit,
    "Картинка": read_image,
    "ХарактеристикиТовара": read_characteristics,
    "ЗначенияРеквизитов": read_requisites,
    "СтавкиНалогов": read_tax,
    "ПометкаУдаления": read_mark,
    "Количество": _quantity,
    "Склад": _warehouse,
    "Остатки": _rests,
    "ИдХарактеристики": _characteristic,
    "КодЕдиницыИзмерения": _unit_code,
}
