"""The lists of a package: groups, properties, units, price types, warehouses."""

from __future__ import annotations

from typing import Any

from connectors.formats.staging import controls_in
from connectors.formats.xml import LOCAL, XmlFile
from connectors.sdk.contract import Fault, Value
from connectors.systems.commerceml.stream import Package
from connectors.systems.commerceml.words import (
    attributes_of,
    children_of,
    is_removed,
    text_of,
    texts_of,
    yes_no,
)


def read_group(file: XmlFile, element: Any, package: Package) -> None:
    """Группа: its parent is the group around it, or the one it names."""
    texts = texts_of(element)
    values: dict[str, Value] = {}
    if name := texts.get("Наименование"):
        values["name"] = name
    place = file.place_of(element)
    above = _group_above(element)
    parent = texts_of(above).get("Ид") if above is not None else None
    if above is not None and not parent:
        package.warn("parent-missing", "the id of a group before its groups", name or "", place)
    parent = parent or texts.get("ИдРодителя") or texts.get("Родитель")
    id_ = texts.get("Ид", "")
    if parent and parent != id_:
        values["parent_id"] = parent
    elif parent:
        package.warn("group-loop", "a group above another", id_, place)
    _stage(file, package, element, "category", id_, values)
    package.categories.add(id_)
    package.list_in(package.categories, place)


def read_categories(file: XmlFile, element: Any, package: Package) -> None:
    """Категории: sorts of goods, which goods without groups are filed under."""
    for child in element:
        texts = texts_of(child)
        values: dict[str, Value] = (
            {"name": texts["Наименование"]} if "Наименование" in texts else {}
        )
        _stage(file, package, child, "category", texts.get("Ид", ""), values)
        package.categories.add(texts.get("Ид", ""))
    package.list_in(package.categories, file.place_of(element))


def read_property(file: XmlFile, element: Any, package: Package) -> None:
    """Свойство: its name by its id, and the words of its values by theirs. No row."""
    children = children_of(element)
    id_ = text_of(children["Ид"]) if "Ид" in children else ""
    name = text_of(children["Наименование"]) if "Наименование" in children else ""
    if id_ and name:
        package.property_names[id_] = name
    package.records["properties"] += 1
    for variant in children.get("ВариантыЗначений", ()):
        texts = texts_of(variant)
        value_id = texts.get("ИдЗначения") or texts.get("Ид")
        if value_id and "Значение" in texts:
            package.property_values[value_id] = texts["Значение"]
    place = file.place_of(element)
    package.list_in(package.property_values, place)
    package.list_in(package.property_names, place)


def read_units(file: XmlFile, element: Any, package: Package) -> None:
    """ЕдиницыИзмерения: units by code, as children or attributes."""
    for child in element:
        texts = attributes_of(child) | texts_of(child)
        code = texts.get("Код") or texts.get("Ид", "")
        full = texts.get("НаименованиеПолное")
        short = texts.get("НаименованиеКраткое") or texts.get("МеждународноеСокращение")
        name = short or full or text_of(child)
        values: dict[str, Value] = {"name": name} if name else {}
        if code:
            values["code"] = code
            package.units[code] = name
        if full:
            values["full_name"] = full
        id_ = texts.get("Ид") or code or name
        if id_ and name:
            package.units.setdefault(id_, name)
        _stage(file, package, child, "unit", id_, values)
    package.list_in(package.units, file.place_of(element))


def read_price_types(file: XmlFile, element: Any, package: Package) -> None:
    """ТипыЦен: price types with their currency; prices without one take it from here."""
    for child in element:
        texts = texts_of(child)
        id_ = texts.get("Ид", "")
        values: dict[str, Value] = {}
        if name := texts.get("Наименование"):
            values["name"] = name
        if currency := texts.get("Валюта"):
            values["currency"] = currency
            package.currencies[id_] = currency
        tax = next((c for c in child if LOCAL[c.tag] == "Налог"), None)
        included = yes_no(texts_of(tax).get("УчтеноВСумме")) if tax is not None else None
        if included is not None:
            values["tax_included"] = included
        package.price_types.add(id_)
        _stage(file, package, child, "price_type", id_, values)
    package.list_in(package.price_types, file.place_of(element))


def read_warehouses(file: XmlFile, element: Any, package: Package) -> None:
    """Склады: warehouses with their address."""
    for child in element:
        children = children_of(child)
        texts = attributes_of(child) | texts_of(child)
        id_ = texts.get("Ид") or texts.get("ИдСклада", "")
        values: dict[str, Value] = {}
        if name := texts.get("Наименование") or text_of(child):
            values["name"] = name
        if "Адрес" in children:
            address = texts_of(children["Адрес"]).get("Представление") or text_of(children["Адрес"])
            if address:
                values["address"] = address
        package.warehouses.add(id_)
        _stage(file, package, child, "warehouse", id_, values)
    package.list_in(package.warehouses, file.place_of(element))


def _group_above(element: Any) -> Any:
    above = element.getparent()
    above = above.getparent() if above is not None else None
    return above if above is not None and LOCAL[above.tag] == "Группа" else None


def _stage(
    file: XmlFile, package: Package, element: Any, entity: str, id_: str, values: dict[str, Value]
) -> None:
    place = file.place_of(element)
    removed = is_removed(element, texts_of(element))
    if removed is not None and entity != "unit":
        values["is_deleted"] = removed
    faults = controls_in(file, values, place)
    if not values.get("name") and not removed:
        faults.append(Fault("missing-name", "a name", id_, place))
    if package.is_new(place, entity, id_, tuple(values.items()), faults):
        package.stage(place, entity, id_, values, faults)
