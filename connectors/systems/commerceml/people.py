"""Контрагент: of a file of its own, or of a document."""

from __future__ import annotations

from typing import Any

from connectors.formats.staging import controls_in, told_of
from connectors.formats.xml import LOCAL, XmlFile
from connectors.sdk.contract import Fault, Value
from connectors.systems.commerceml.stream import Package
from connectors.systems.commerceml.words import children_of, is_removed, text_of, texts_of

_ADDRESSES = ("Адрес", "АдресРегистрации", "ЮридическийАдрес")
_PHONES = ("телефон", "рабочий телефон", "мобильный телефон", "телефон рабочий", "phone")
_MAILS = ("почта", "электронная почта", "email", "e-mail", "mail")


def read_counterparty(file: XmlFile, element: Any, package: Package) -> None:
    """One Контрагент of its own file."""
    place = file.place_of(element)
    id_, values = describe(element)
    faults = controls_in(file, values, place)
    if "name" not in values and not values.get("is_deleted"):
        faults.append(Fault("missing-name", "a name", id_, place))
    package.records["counterparties"] += 1
    if package.is_new(place, "counterparty", id_, tuple(values.items()), faults):
        package.stage(place, "counterparty", id_, values, faults)


def read_party(file: XmlFile, element: Any, package: Package) -> tuple[str, str]:
    """One Контрагент of a document: staged when it is met first. Answers its id and its role.

    One that reads otherwise in another document is told of; what was met first stands.
    """
    place = file.place_of(element)
    id_, values = describe(element)
    role = str(values.get("role", ""))
    content = tuple((k, v) for k, v in values.items() if k != "role")
    told = told_of(content)
    before = package.seen.put(hash(("counterparty", id_)), told)
    if id_ and before is None:
        faults = controls_in(file, values, place)
        if "name" not in values:
            faults.append(Fault("missing-name", "a name", id_, place))
        package.stage(place, "counterparty", id_, values, faults)
    elif before not in (None, told):
        expected = "one description of a counterparty (the first one is taken)"
        package.warn("counterparty-differs", expected, id_, place)
    return id_, role


def describe(element: Any) -> tuple[str, dict[str, Value]]:
    """The id and the values of a Контрагент."""
    children = children_of(element)
    texts = texts_of(element)
    values: dict[str, Value] = {}
    full = texts.get("ОфициальноеНаименование") or texts.get("ПолноеНаименование")
    parts = [texts[n] for n in ("Фамилия", "Имя", "Отчество") if n in texts]
    found: dict[str, Value | None] = {
        "name": texts.get("Наименование") or full or " ".join(parts) or None,
        "full_name": full,
        "tax_id": texts.get("ИНН"),
        "registration_code": texts.get("КПП") or texts.get("КодПоОКПО") or texts.get("ОКПО"),
        "role": texts.get("Роль"),
        "address": _address(children),
        "account": _account(children),
        "is_deleted": is_removed(element, texts),
        "is_person": True if parts else None,
    }
    found["phone"], found["email"] = _contacts(children)
    values.update({k: v for k, v in found.items() if v is not None})
    return texts.get("Ид", ""), values


def _address(children: dict[str, Any]) -> str | None:
    for name in _ADDRESSES:
        if (element := children.get(name)) is None:
            continue
        if shown := texts_of(element).get("Представление") or text_of(element):
            return shown
        fields = [texts_of(f).get("Значение", "") for f in element]
        if shown := ", ".join(f for f in fields if f):
            return shown
    return None


def _account(children: dict[str, Any]) -> str | None:
    for account in children.get("РасчетныеСчета", ()):
        if number := texts_of(account).get("НомерСчета"):
            return number
    return None


def _contacts(children: dict[str, Any]) -> tuple[str | None, str | None]:
    phone = email = None
    for contact in children.get("Контакты", ()):
        texts = texts_of(contact)
        sort = (texts.get("Тип") or texts.get("КонтактВид") or LOCAL[contact.tag]).casefold()
        value = texts.get("Значение") or text_of(contact)
        if not value:
            continue
        if "@" in value or sort in _MAILS:
            email = email or value
        elif sort in _PHONES or "телефон" in sort:
            phone = phone or value
    return phone, email
