"""Readers of records of known shapes: which group of a match goes to which part of a record.

The same functions take the texts that take them from elements (`put_…` of goods and offers); a
shape with a part that is not listed here is left to the parser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from connectors.formats.xml import XmlFile
from connectors.formats.xml_templates import Groups, Node, Reader, Shapes
from connectors.sdk.contract import Place
from connectors.systems.commerceml import goods, offers
from connectors.systems.commerceml.stream import Package

_Step = Callable[[Any, Groups], None]
_Steps = tuple[int, list[tuple[str, int]], list[_Step]]
_D = TypeVar("_D", bound=goods.Draft)
_PRODUCT_PLAIN = goods.PLAIN
_OFFER_PLAIN = {"Наименование": "name", "Артикул": "sku", "Код": "code"}
# Parts that nobody reads are passed over in a match too.
_PRODUCT_PARTS = frozenset(
    {"Ид", "Штрихкод", "Картинка", "БазоваяЕдиница", "Группы", "Категория", "ЗначенияСвойств",
     "ЗначенияРеквизитов", "СтавкиНалогов", "Вес", "ПометкаУдаления", "Статус", *_PRODUCT_PLAIN}
)  # fmt: skip
_OFFER_PARTS = frozenset(
    {"Ид", "Штрихкод", "Картинка", "БазоваяЕдиница", "ЗначенияРеквизитов", "СтавкиНалогов",
     "ПометкаУдаления", "Цены", "Количество", "Склад", "Остатки", *_OFFER_PLAIN}
)  # fmt: skip
_PRODUCT_OTHERS = frozenset(
    {"ХарактеристикиТовара", "Комплектующие", "Аналоги", "Изготовитель", "ОсновнаяКартинка"}
)
_OFFER_OTHERS = frozenset({"ХарактеристикиТовара", "ИдХарактеристики", "КодЕдиницыИзмерения"})


def shapes_of(file: XmlFile, package: Package, tags: frozenset[str]) -> dict[str, Shapes]:
    """The sorts of record of a document that may be taken by shape."""

    def product(node: Node) -> Reader | None:
        steps = _steps(node, _PRODUCT_PLAIN, _PRODUCT_OTHERS)
        return steps and _reader(steps, goods.Draft, goods.finish_product, (file, package))

    def offer(node: Node) -> Reader | None:
        steps = _steps(node, _OFFER_PLAIN, _OFFER_OTHERS)
        return steps and _reader(steps, offers.Offer, offers.finish_offer, (file, package))

    planners = {"Товар": (product, _PRODUCT_PARTS), "Предложение": (offer, _OFFER_PARTS)}
    return {tag: Shapes(*found) for tag, found in planners.items() if tag in tags}


def _reader(
    steps: _Steps, make: Callable[[Package, Place], _D], finish: Callable[[XmlFile, _D], None],
    known: tuple[XmlFile, Package],
) -> Reader:  # fmt: skip
    """What takes a record from its groups: fields that stand alone, then the other parts."""
    id_, plain, others = steps
    file, package = known

    def read(groups: Groups, place: Place) -> None:
        draft = make(package, place)
        values = draft.values
        draft.id = groups[id_]
        for target, group in plain:
            if text := groups[group]:
                values[target] = text
        for step in others:
            step(draft, groups)
        finish(file, draft)

    return read


def _steps(root: Node, plain: dict[str, str], left: frozenset[str]) -> _Steps | None:
    """The group of the id, fields with their groups, and what is done for the other parts."""
    ids = [node.text for node in root.children if node.name == "Ид"]
    if len(ids) != 1 or ids[0] < 0 or any(node.name in left for node in root.children):
        return None
    found: list[tuple[str, int]] = []
    others: list[_Step] = []
    for node in root.children:
        if node.name in plain:
            if node.text < 0:
                return None
            found.append((plain[node.name], node.text))
        elif node.name in _LEAVES:
            if node.text < 0:
                return None
            others.append(_leaf(_LEAVES[node.name], node.text))
        elif (special := _SPECIAL.get(node.name)) is not None:
            step = special(node)
            if step is None:
                return None
            others += step
    return ids[0], found, others


def _leaf(put: Callable[[Any, str], None], group: int) -> _Step:
    def step(draft: Any, groups: Groups) -> None:
        if text := groups[group]:
            put(draft, text)

    return step


def _parts_of(entry: Node) -> dict[str, int]:
    """The first leaf of each name in an entry."""
    found: dict[str, int] = {}
    for node in entry.children:
        if node.text >= 0:
            found.setdefault(node.name, node.text)
    return found


def _requisites(node: Node) -> list[_Step] | None:
    return [_requisite(entry) for entry in node.children]


def _requisite(entry: Node) -> _Step:
    parts = [(n.name, n.text) for n in entry.children if n.text >= 0]

    def step(draft: goods.Draft, groups: Groups) -> None:
        goods.put_requisite(draft, [(name, groups[group]) for name, group in parts])

    return step


def _properties(node: Node) -> list[_Step] | None:
    return [_property(entry) for entry in node.children]


def _property(entry: Node) -> _Step:
    parts = _parts_of(entry)
    id_, name = parts.get("Ид", -1), parts.get("Наименование", -1)
    values = [n.text for n in entry.children if n.name in goods.VALUE_PARTS]
    if len(values) == 1:
        (value,) = values

        def one(draft: goods.Draft, groups: Groups) -> None:
            if text := groups[value]:
                goods.put_word(draft, groups[id_], groups[name], text)

        return one

    def step(draft: goods.Draft, groups: Groups) -> None:
        goods.put_property(draft, groups[id_], groups[name], [groups[v] for v in values])

    return step


def _taxes(node: Node) -> list[_Step] | None:
    return [_tax(_parts_of(entry)) for entry in node.children]


def _tax(parts: dict[str, int]) -> _Step:
    name, rate = parts.get("Наименование", -1), parts.get("Ставка", -1)
    return lambda draft, groups: goods.put_tax(draft, groups[name], groups[rate])


def _put_group(draft: goods.Draft, text: str) -> None:
    draft.groups.append(text)


def _put_sort(draft: goods.Draft, text: str) -> None:
    draft.sort = text


def _unit(node: Node) -> list[_Step] | None:
    if node.children:
        # Пересчет and the like: packages of the unit, which nobody reads.
        return [_unit_step(-1, node.attributes)]
    return [_unit_step(node.text, node.attributes)]


def _unit_step(text: int, attributes: dict[str, int]) -> _Step:
    code = attributes.get("Код", -1)
    names = [attributes[n] for n in goods.UNIT_NAMES if n in attributes]

    def step(draft: goods.Draft, groups: Groups) -> None:
        name = ""
        for group in names:
            if name := groups[group]:
                break
        goods.put_unit(draft, groups[text], groups[code], name)

    return step


def _groups(node: Node) -> list[_Step] | None:
    if any(child.text < 0 for child in node.children):
        return None
    return [_leaf(_put_group, child.text) for child in node.children]


def _prices(node: Node) -> list[_Step] | None:
    return [_price(_parts_of(price)) for price in node.children]


def _price(parts: dict[str, int]) -> _Step:
    type_, amount, currency, unit, factor, least = (parts.get(n, -1) for n in offers.PRICE_PARTS)

    def step(offer: offers.Offer, g: Groups) -> None:
        offers.put_price(offer, (g[type_], g[amount], g[currency], g[unit], g[factor], g[least]))

    return step


def _warehouse(node: Node) -> list[_Step] | None:
    """Склад with attributes; with children it is left to the parser."""
    if node.children or "ИдСклада" not in node.attributes:
        return None
    return [_stock(node.attributes["ИдСклада"], node.attributes.get("КоличествоНаСкладе", -1))]


def _rests(node: Node) -> list[_Step] | None:
    """Остатки of warehouses, each with its id and quantity."""
    found: list[_Step] = []
    for rest in node.children:
        if [c.name for c in rest.children] != ["Склад"] or rest.children[0].attributes:
            return None
        if [c.name for c in rest.children[0].children] != ["Ид", "Количество"]:
            return None
        warehouse, quantity = rest.children[0].children
        found.append(_stock(warehouse.text, quantity.text))
    return found


def _stock(warehouse: int, quantity: int) -> _Step:
    return lambda offer, groups: offers.put_stock(offer, groups[warehouse], groups[quantity])


_LEAVES: dict[str, Callable[[Any, str], None]] = {
    "Штрихкод": goods.put_barcode,
    "Картинка": goods.put_image,
    "Категория": _put_sort,
    "Вес": goods.put_weight,
    "ПометкаУдаления": goods.put_mark,
    "Статус": goods.put_status,
    "Количество": offers.put_total,
}
_SPECIAL: dict[str, Callable[[Node], list[_Step] | None]] = {
    "БазоваяЕдиница": _unit,
    "Группы": _groups,
    "ЗначенияСвойств": _properties,
    "ЗначенияРеквизитов": _requisites,
    "СтавкиНалогов": _taxes,
    "Цены": _prices,
    "Склад": _warehouse,
    "Остатки": _rests,
}
