"""Товар of a catalogue. One walk over its children; what is empty stays absent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.json import encode

from connectors.formats.staging import controls_in, number
from connectors.formats.xml import LOCAL, XmlFile
from connectors.sdk.contract import Fault, Place, Value
from connectors.systems.commerceml.stream import Package
from connectors.systems.commerceml.words import (
    REMOVED,
    attributes_of,
    is_yes,
    texts_of,
    yes_no,
)

PLAIN = {
    "Артикул": "sku",
    "Код": "code",
    "Наименование": "name",
    "ПолноеНаименование": "full_name",
    "Страна": "country",
    "ТорговаяМарка": "brand",
    "Описание": "description",
}
_REQUISITES = {
    "ПолноеНаименование": "full_name",
    "Полное наименование": "full_name",
    "ТипНоменклатуры": "kind",
    "ОписаниеВФорматеHTML": "description",
}
VALUE_PARTS = frozenset({"Значение", "ИдЗначения"})
_encode = encode


class Draft:
    """A record as it is gathered: its values, its properties, what is wrong in it."""

    __slots__ = (
        "faults",
        "groups",
        "id",
        "lists",
        "package",
        "place",
        "properties",
        "sort",
        "values",
    )

    def __init__(self, package: Package, place: Place) -> None:
        self.package = package
        self.place = place
        self.id = ""
        self.sort = ""
        self.values: dict[str, Value] = {}
        self.groups: list[str] = []
        self.lists: dict[str, list[str]] = {}
        self.properties: dict[str, str] = {}
        self.faults: list[Fault] = []

    def add(self, name: str, text: str) -> None:
        """One more text of a list."""
        self.lists.setdefault(name, []).append(text)

    def add_property(self, name: str, id_: str, text: str) -> None:
        """One more property; an equal name of another id is told apart by the id."""
        properties = self.properties
        if name not in properties:
            properties[name] = text
        elif id_ and id_ != name:
            properties[f"{name} ({id_})"] = text
        else:
            properties[name] = f"{properties[name]}\n{text}"

    def finished(self) -> dict[str, Value]:
        """The values, lists and properties put in."""
        values = self.values
        for name, texts in self.lists.items():
            values[name] = "\n".join(texts)
        if self.properties:
            values["properties"] = _encode(self.properties).decode()
        return values


def read_product(file: XmlFile, element: Any, package: Package) -> None:
    """One Товар: a row of a product, or of a variant where its id has a '#'."""
    draft = Draft(package, file.place_of(element))
    status = element.get("Статус")
    if status and status.strip().casefold() in REMOVED:
        draft.values["is_deleted"] = True
    for child in element:
        name = LOCAL[child.tag]
        text = child.text
        if name in PLAIN:
            if text and (text := text.strip()):
                draft.values[PLAIN[name]] = text
        elif name == "Ид":
            draft.id = (text or "").strip()
        elif (read := _PARTS.get(name)) is not None:
            read(draft, child)
    finish_product(file, draft)


def finish_product(file: XmlFile, draft: Draft) -> None:
    """Stage what was gathered of a Товар."""
    draft.package.records["goods"] += 1
    _file_under(draft)
    if file.has_controls:
        draft.faults += controls_in(file, draft.values, draft.place)
    _stage(draft)


def _stage(draft: Draft) -> None:
    package, id_ = draft.package, draft.id
    values = draft.finished()
    if not package.is_new(draft.place, "product", id_, tuple(values.items()), draft.faults):
        return
    product, mark, variant = id_.partition("#")
    if mark and variant and variant != product:
        kept = {k: v for k, v in values.items() if k in VARIANT_FIELDS}
        package.stage(draft.place, "variant", id_, {"product_id": product, **kept}, draft.faults)
    else:
        package.stage(draft.place, "product", product or id_, values, draft.faults)


VARIANT_FIELDS = frozenset(
    {"name", "sku", "barcode", "barcodes", "properties", "images", "is_deleted"}
)


def _file_under(draft: Draft) -> None:
    groups = draft.groups or ([draft.sort] if draft.sort else [])
    if not groups:
        return
    draft.values["category_id"] = groups[0]
    if len(groups) > 1:
        draft.values["category_ids"] = "\n".join(groups)
    known = draft.package.categories
    if known and groups[0] not in known:
        expected = "groups that the package lists"
        draft.package.warn("unknown-category", expected, groups[0], draft.place)


def _groups(draft: Draft, element: Any) -> None:
    draft.groups += [t for c in element if (t := (c.text or "").strip())]


def _sort(draft: Draft, element: Any) -> None:
    draft.sort = (element.text or "").strip() or texts_of(element).get("Ид", "")


def read_unit(draft: Draft, element: Any) -> None:
    """БазоваяЕдиница: a text, a code, or both in attributes; 3.x writes the code as the text."""
    said = attributes_of(element)
    name = next((said[n] for n in UNIT_NAMES if said.get(n)), "")
    put_unit(draft, (element.text or "").strip(), said.get("Код", ""), name)


UNIT_NAMES = ("НаименованиеКраткое", "НаименованиеПолное", "МеждународноеСокращение")


def put_unit(draft: Draft, text: str, code: str, name: str) -> None:
    """A unit by its text, its code and the best name of its attributes."""
    units = draft.package.units
    if not code and text.isdigit():
        code, text = text, units.get(text, "")
    if code:
        draft.values["unit_code"] = code
    if name := text or name or units.get(code, ""):
        draft.values["unit"] = name


def read_barcode(draft: Draft, element: Any) -> None:
    """Штрихкод, once or several times."""
    if text := (element.text or "").strip():
        put_barcode(draft, text)


def put_barcode(draft: Draft, text: str) -> None:
    """The first is the barcode; when there are others, all of them are a list."""
    if "barcode" not in draft.values:
        draft.values["barcode"] = text
    elif draft.values["barcode"] != text:
        if "barcodes" not in draft.lists:
            draft.add("barcodes", str(draft.values["barcode"]))
        draft.add("barcodes", text)


def read_image(draft: Draft, element: Any) -> None:
    """Картинка: the name of a file of the package."""
    if text := (element.text or "").strip():
        put_image(draft, text)


def put_image(draft: Draft, text: str) -> None:
    """One picture more; told of when the package has pictures and not this one."""
    name = text.replace("\\", "/")
    draft.add("images", name)
    images = draft.package.images
    if images and name.rpartition("/")[2] not in images:
        expected = "pictures that the package brings"
        draft.package.warn("image-missing", expected, text, draft.place)


def _properties(draft: Draft, element: Any) -> None:
    for entry in element:
        id_ = name = ""
        values = []
        for part in entry:
            tag, text = LOCAL[part.tag], (part.text or "").strip()
            if tag == "Ид":
                id_ = text
            elif tag == "Наименование":
                name = text
            elif tag in VALUE_PARTS:
                values.append(text)
        put_property(draft, id_, name, values)


def put_property(draft: Draft, id_: str, name: str, values: list[str]) -> None:
    """ЗначенияСвойства: its values by their words, under the name that the classifier gives."""
    words = draft.package.property_values
    text = "\n".join([words.get(value, value) for value in values if value])
    if text:
        draft.add_property(draft.package.property_names.get(id_) or name or id_, id_, text)


def put_word(draft: Draft, id_: str, name: str, value: str) -> None:
    """The same of the one value that nearly all have."""
    package = draft.package
    named = package.property_names.get(id_) or name or id_
    text = package.property_values.get(value, value)
    if named in draft.properties:
        draft.add_property(named, id_, text)
    else:
        draft.properties[named] = text


def read_characteristics(draft: Draft, element: Any) -> None:
    """ХарактеристикиТовара: names and values, with an id or without."""
    for entry in element:
        texts = texts_of(entry)
        value = texts.get("Значение")
        id_ = texts.get("Ид", "")
        name = texts.get("Наименование") or draft.package.property_names.get(id_) or id_
        if value and name:
            draft.add_property(name, id_, draft.package.property_values.get(value, value))


def read_requisites(draft: Draft, element: Any) -> None:
    """ЗначенияРеквизитов: those with a field of their own go there, the rest is a property."""
    for entry in element:
        put_requisite(draft, [(LOCAL[part.tag], (part.text or "").strip()) for part in entry])


def put_requisite(draft: Draft, parts: list[tuple[str, str]]) -> None:
    """ЗначениеРеквизита by the names and texts of its parts."""
    values = draft.values
    name = ""
    texts = []
    for tag, text in parts:
        if text and tag == "Наименование":
            name = text
        elif text:
            texts.append(text)
    if not name or not texts:
        return
    text = "\n".join(texts)
    if name in _REQUISITES:
        values.setdefault(_REQUISITES[name], text)
    elif name == "Штрихкод":
        for code in texts:
            put_barcode(draft, code)
    elif name == "Вес":
        put_weight(draft, text)
    elif name == "ПометкаУдаления":
        values["is_deleted"] = is_yes(text)
    elif name == "Статус" and text.casefold() in REMOVED:
        values["is_deleted"] = True
    else:
        draft.add_property(name, "", text)


def read_tax(draft: Draft, element: Any) -> None:
    """СтавкиНалогов: the rate as it is written ('20', '20%', 'Без НДС')."""
    for entry in element:
        texts = texts_of(entry)
        put_tax(draft, texts.get("Наименование", ""), texts.get("Ставка", ""))


def put_tax(draft: Draft, name: str, rate: str) -> None:
    """СтавкаНалога by its name and rate."""
    if rate and (not name or name.casefold() == "ндс"):
        draft.values.setdefault("tax", rate)


def _weight(draft: Draft, element: Any) -> None:
    if text := (element.text or "").strip():
        put_weight(draft, text)


def put_weight(draft: Draft, text: str) -> None:
    """A weight in kilograms."""
    found = number(text, draft.place, "Вес", draft.faults)
    if found is not None:
        draft.values.setdefault("weight", found)


def _maker(draft: Draft, element: Any) -> None:
    name = texts_of(element).get("Наименование") or (element.text or "").strip()
    if name:
        draft.values["maker"] = name


def read_mark(draft: Draft, element: Any) -> None:
    """ПометкаУдаления."""
    put_mark(draft, element.text or "")


def put_mark(draft: Draft, text: str) -> None:
    """The mark of deletion by its word."""
    removed = yes_no(text)
    if removed is not None:
        draft.values["is_deleted"] = removed or draft.values.get("is_deleted") is True


def _status(draft: Draft, element: Any) -> None:
    put_status(draft, (element.text or "").strip())


def put_status(draft: Draft, text: str) -> None:
    """Статус, which knows the one word."""
    if text.casefold() in REMOVED:
        draft.values["is_deleted"] = True


def _components(draft: Draft, element: Any) -> None:
    found: dict[str, str] = {}
    for entry in element:
        texts = texts_of(entry)
        if id_ := texts.get("Ид"):
            quantity = texts.get("Количество", "1")
            found[id_] = number(quantity, draft.place, "Комплектующие", draft.faults) or ""
    if found:
        draft.values["components"] = _encode(found).decode()


def _analogs(draft: Draft, element: Any) -> None:
    for entry in element:
        if id_ := texts_of(entry).get("Ид") or (entry.text or "").strip():
            draft.add("analogs", id_)


_PARTS: dict[str, Callable[[Draft, Any], None]] = {
    "БазоваяЕдиница": read_unit,
    "Группы": _groups,
    "Категория": _sort,
    "Штрихкод": read_barcode,
    "Картинка": read_image,
    "ОсновнаяКартинка": read_image,
    "ЗначенияСвойств": _properties,
    "ХарактеристикиТовара": read_characteristics,
    "ЗначенияРеквизитов": read_requisites,
    "СтавкиНалогов": read_tax,
    "Вес": _weight,
    "Изготовитель": _maker,
    "ПометкаУдаления": read_mark,
    "Статус": _status,
    "Комплектующие": _components,
    "Аналоги": _analogs,
}
