"""Документ: orders of the site, and what 1C sends back of them, with subordinate documents.

Lines are checked against the total of their document; one that differs is told of. Requisites
that have a field of their own go there, the rest are properties.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from msgspec.json import encode

from connectors.formats.staging import controls_in, number
from connectors.formats.xml import LOCAL, XmlFile
from connectors.sdk.contract import Fault, Place, Value
from connectors.systems.commerceml.people import read_party
from connectors.systems.commerceml.stream import Package
from connectors.systems.commerceml.words import (
    attributes_of,
    children_of,
    date_of,
    is_removed,
    text_of,
    texts_of,
    yes_no,
)

_TEXTS = {
    "Номер": "number",
    "ХозОперация": "operation",
    "Роль": "role",
    "Валюта": "currency",
    "Комментарий": "comment",
    "Номер1С": "external_number",
}
_OF_PAYMENT = frozenset({"number", "operation", "currency", "comment", "external_number"})
_REQUISITES = {
    "Статус заказа": "status",
    "Статуса заказа ИД": "status",
    "Номер по 1С": "external_number",
    "Номер оплаты по 1С": "payment_number",
    "Номер платежного документа": "payment_number",
    "Номер отгрузки по 1С": "shipment_number",
}
_DATES = {
    "Дата по 1С": "external_date",
    "Дата оплаты по 1С": "paid_date",
    "Дата оплаты": "paid_date",
    "Дата отгрузки по 1С": "shipped_date",
}
_FLAGS = {
    "Проведен": "is_posted",
    "Оплачен": "is_paid",
    "Заказ оплачен": "is_paid",
    "Отгружен": "is_shipped",
    "Отменен": "is_cancelled",
    "Отменён": "is_cancelled",
    "ПометкаУдаления": "is_deleted",
}
# ХозОперация of what stands under an order: money by its way, and goods that left.
_PAYMENTS = {
    "выплата безналичных денег": "bank",
    "выплата наличных денег": "cash",
    "эквайринговая операция": "card",
}
_SHIPMENTS = frozenset({"отпуск товара", "реализация товаров"})
_SUBORDINATES = ("ПодчиненныеДокументы", "ПодчиненныйДокумент")
_BUYERS = ("покупатель", "получатель", "плательщик")


def read_document(file: XmlFile, element: Any, package: Package) -> None:
    """One Документ and the documents in it."""
    waiting: list[tuple[Any, str]] = [(element, "")]
    while waiting:
        document, parent = waiting.pop(0)
        operation = texts_of(document).get("ХозОперация", "").casefold()
        if parent and operation in _PAYMENTS:
            id_ = _read_payment(file, document, package, (parent, _PAYMENTS[operation]))
        else:
            id_ = _read_one(file, document, package, parent)
        waiting += [(child, id_) for child in _subordinates(document)]


def _subordinates(document: Any) -> list[Any]:
    found = children_of(document)
    return [
        child
        for name in _SUBORDINATES
        for child in found.get(name, ())
        if LOCAL[child.tag] in ("ПодчиненныйДокумент", "Документ")
    ]


def _read_payment(file: XmlFile, element: Any, package: Package, known: tuple[str, str]) -> str:
    """Money that was paid for an order: a document below it."""
    place, (order, method) = file.place_of(element), known
    children, texts = children_of(element), texts_of(element)
    faults: list[Fault] = []
    id_ = texts.get("Ид") or texts.get("Номер", "")
    values: dict[str, Value] = {"order_id": order, "method": method}
    values |= {t: texts[n] for n, t in _TEXTS.items() if n in texts and t in _OF_PAYMENT}
    _read_dates(values, texts, place, faults)
    if "Сумма" in texts and (found := number(texts["Сумма"], place, "Сумма", faults)) is not None:
        values["amount"] = found
    elif not faults:
        faults.append(Fault("missing", "Сумма", "", place))
    removed = is_removed(element, texts)
    if removed is not None:
        values["is_deleted"] = removed
    said: dict[str, Value] = {}
    _read_requisites(said, children, place, faults)
    _read_parties(file, children, package, values)
    values |= {n: said[n] for n in ("is_posted", "is_deleted", "external_number") if n in said}
    faults += controls_in(file, values, place)
    package.records["documents"] += 1
    if package.is_new(place, "payment", id_, tuple(values.items()), faults):
        package.stage(place, "payment", id_, values, faults)
    return id_


def _note_shipment(
    values: dict[str, Value], element: Any, place: Place, faults: list[Fault]
) -> None:
    """An order whose goods have left by a document below it is shipped, as its own words would say."""
    for below in _subordinates(element):
        texts = texts_of(below)
        said: dict[str, Value] = {}
        _read_requisites(said, children_of(below), place, [])
        is_none = (
            is_removed(below, texts) or said.get("is_deleted") or said.get("is_posted") is False
        )
        if texts.get("ХозОперация", "").casefold() not in _SHIPMENTS or is_none:
            continue
        values.setdefault("is_shipped", True)
        if number_ := texts.get("Номер1С") or texts.get("Номер"):
            values.setdefault("shipment_number", number_)
        if "Дата" in texts and (found := _date(texts["Дата"], "Дата", place, faults)):
            values.setdefault("shipped_date", found)


def _read_one(file: XmlFile, element: Any, package: Package, parent: str) -> str:
    place = file.place_of(element)
    children, texts = children_of(element), texts_of(element)
    faults: list[Fault] = []
    values: dict[str, Value] = {t: texts[n] for n, t in _TEXTS.items() if n in texts}
    id_ = texts.get("Ид") or texts.get("Номер", "")
    if parent:
        values["parent_id"] = parent
    _read_dates(values, texts, place, faults)
    for name, target in (("Курс", "rate"), ("Сумма", "amount")):
        if name in texts and (found := number(texts[name], place, name, faults)) is not None:
            values[target] = found
    removed = is_removed(element, texts)
    if removed is not None:
        values["is_deleted"] = removed
    _read_requisites(values, children, place, faults)
    _note_shipment(values, element, place, faults)
    _read_parties(file, children, package, values)
    faults += controls_in(file, values, place)
    lines = _read_lines(file, children, id_)
    package.records["documents"] += 1
    content = (tuple(values.items()), tuple(tuple(v.items()) for _, _, v, _ in lines))
    if not package.is_new(place, "order", id_, content, faults):
        return id_
    package.stage(place, "order", id_, values, faults)
    for line_place, key, line, line_faults in lines:
        package.stage(line_place, "order_line", key, line, line_faults)
    _compare_total(package, id_, values, lines, children, place)
    return id_


def _read_dates(
    values: dict[str, Value], texts: dict[str, str], place: Place, faults: list[Fault]
) -> None:
    for name, target in (("Дата", "date"), ("Дата1С", "external_date")):
        if name in texts and (found := _date(texts[name], name, place, faults)):
            values[target] = found
    time = texts.get("Время", "")
    if "date" in values and time[:8].replace(":", "").isdigit():
        values["moment"] = f"{values['date']}T{time[:8]}"


def _date(text: str, name: str, place: Place, faults: list[Fault]) -> str | None:
    try:
        return date_of(text)
    except ValueError:
        where = Place(place.sheet, place.row, name)
        faults.append(Fault("malformed-date", "a date", text[:40], where))
        return None


def _read_requisites(
    values: dict[str, Value], children: dict[str, Any], place: Place, faults: list[Fault]
) -> None:
    rest: dict[str, str] = {}
    for entry in children.get("ЗначенияРеквизитов", ()):
        texts = texts_of(entry)
        name, text = texts.get("Наименование"), texts.get("Значение")
        if not name or not text:
            continue
        if name in _FLAGS and (said := yes_no(text)) is not None:
            values[_FLAGS[name]] = said or values.get(_FLAGS[name]) is True
        elif name in _REQUISITES:
            values.setdefault(_REQUISITES[name], text)
        elif name in _DATES:
            if found := _date(text, name, place, faults):
                values.setdefault(_DATES[name], found)
        else:
            rest[name] = f"{rest[name]}\n{text}" if name in rest else text
    if rest:
        values["properties"] = encode(rest).decode()


def _read_parties(
    file: XmlFile, children: dict[str, Any], package: Package, values: dict[str, Value]
) -> None:
    parties = [
        read_party(file, party, package)
        for party in children.get("Контрагенты", ())
        if LOCAL[party.tag] == "Контрагент"
    ]
    buyers = [id_ for id_, role in parties if role.casefold() in _BUYERS]
    chosen = (buyers or [id_ for id_, _ in parties] or [""])[0]
    if chosen:
        values["counterparty_id"] = chosen


_Line = tuple[Place, str, dict[str, Value], list[Fault]]


def _read_lines(file: XmlFile, children: dict[str, Any], order: str) -> list[_Line]:
    found: list[_Line] = []
    times: dict[str, int] = {}
    for element in children.get("Товары", ()):
        if LOCAL[element.tag] != "Товар":
            continue
        place = file.place_of(element)
        faults: list[Fault] = []
        values = _line(element, place, faults)
        values["order_id"] = order
        id_ = str(values.get("variant_id") or values.get("product_id") or values.get("name", ""))
        found.append((place, _line_key(order, id_, times), values, faults))
        faults += controls_in(file, values, place)
    for element in children.get("ДопРасходы", ()):
        place = file.place_of(element)
        texts = texts_of(element)
        name = texts.get("Наименование") or texts.get("Вид") or LOCAL[element.tag]
        faults = []
        values = {"order_id": order, "name": name, "quantity": "1"}
        amount = number(texts.get("Сумма", "0"), place, "Сумма", faults)
        if amount is not None:
            values |= {"price": amount, "amount": amount}
        found.append((place, _line_key(order, name, times), values, faults))
    return found


def _line_key(order: str, id_: str, times: dict[str, int]) -> str:
    times[id_] = times.get(id_, 0) + 1
    return f"{order}|{id_}|{times[id_]}"


def _line(element: Any, place: Place, faults: list[Fault]) -> dict[str, Value]:
    children, texts = children_of(element), texts_of(element)
    values: dict[str, Value] = {}
    product, _, variant = texts.get("Ид", "").partition("#")
    if product:
        values["product_id"] = product
        if variant and variant != product:
            values["variant_id"] = texts["Ид"]
    if "Наименование" in texts:
        values["name"] = texts["Наименование"]
    for names, target in (
        (("Количество",), "quantity"),
        (("ЦенаЗаЕдиницу", "Цена"), "price"),
        (("Сумма",), "amount"),
        (("Коэффициент",), "factor"),
    ):
        written = next(((n, texts[n]) for n in names if n in texts), None)
        if written and (found := number(written[1], place, written[0], faults)) is not None:
            values[target] = found
    quantity = values.get("quantity")
    if isinstance(quantity, str) and quantity.startswith("-"):
        faults.append(Fault("negative-quantity", "a quantity above 0", quantity, place))
    elif quantity is None and not faults:
        faults.append(Fault("missing", "Количество", "", place))
    _read_line_unit(values, children, texts)
    if (taken := _sum_of(children.get("Скидки"), place, faults)) is not None:
        values["discount"] = taken
    if (tax := _sum_of(children.get("Налоги"), place, faults)) is not None:
        values["tax_amount"] = tax
    rates = [texts_of(t).get("Ставка") for n in _TAXES for t in children.get(n, ())]
    if rate := next((r for r in rates if r), None):
        values["tax"] = rate
    return values


_TAXES = ("СтавкиНалогов", "Налоги")


def _read_line_unit(
    values: dict[str, Value], children: dict[str, Any], texts: dict[str, str]
) -> None:
    unit = texts.get("Единица")
    if unit is None and (element := children.get("Единица")) is not None:
        inner = texts_of(element)
        unit = inner.get("НаименованиеКраткое") or inner.get("Код")
    if unit is None and (element := children.get("БазоваяЕдиница")) is not None:
        said = attributes_of(element)
        names = ("НаименованиеКраткое", "НаименованиеПолное", "Код")
        unit = text_of(element) or next((said[n] for n in names if said.get(n)), None)
    if unit:
        values["unit"] = unit


def _sum_of(elements: Any, place: Place, faults: list[Fault]) -> str | None:
    """The sum of the Сумма of entries, None when there is none."""
    total: Decimal | None = None
    for entry in () if elements is None else elements:
        if (text := texts_of(entry).get("Сумма")) is None:
            continue
        found = number(text, place, "Сумма", faults)
        if found is not None:
            total = (total or Decimal(0)) + Decimal(found)
    return f"{total:f}" if total is not None else None


def _compare_total(
    package: Package,
    id_: str,
    values: dict[str, Value],
    lines: list[_Line],
    children: dict[str, Any],
    place: Place,
) -> None:
    """The lines make the total, with or without the taxes that are not in their sums."""
    amounts = [v.get("amount") for _, _, v, _ in lines]
    total = values.get("amount")
    if not lines or total is None or None in amounts:
        return
    found = sum((Decimal(str(a)) for a in amounts), Decimal(0))
    unspoken: list[Fault] = []
    outside = Decimal(0)
    for tax in children.get("Налоги", ()):
        texts = texts_of(tax)
        if yes_no(texts.get("УчтеноВСумме")) is False and "Сумма" in texts:
            outside += Decimal(number(texts["Сумма"], place, "Налоги", unspoken) or 0)
    taken = Decimal(_sum_of(children.get("Скидки"), place, unspoken) or 0)
    wanted = Decimal(str(total))
    if wanted not in {found, found + outside, found - taken, found + outside - taken}:
        expected = "lines that make the total of their document"
        package.warn("total-differs", expected, f"{id_}: {total} of lines {found}", place)
