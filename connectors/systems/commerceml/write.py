"""Orders to 1C: sale documents of CommerceML 2.08, UTF-8 without mark, each in a Контейнер.

Goods go back under the very id that 1C gave them: `id#id` of a product without variants would
break it there. Delivery is a line of service under `ORDER_DELIVERY`. What the format cannot say is
refused before a byte of it is written (`faults_of_order`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation

import msgspec

from connectors.formats.amounts import plain_decimal
from connectors.formats.xml_write import element, optional
from connectors.sdk.contract import Fault, Place, Refused

NAMESPACE = "urn:1C.ru:commerceml_2"
VERSION = "2.08"
DELIVERY = "ORDER_DELIVERY"
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = re.compile(r"\d\d:\d\d:\d\d")


class Buyer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who ordered. `id`: as 1C gave it, or ours."""

    id: str
    name: str
    full_name: str = ""
    tax_id: str = ""
    address: str = ""
    phone: str = ""
    email: str = ""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was ordered. `id`: `product` or `product#variant`, as it came from 1C."""

    id: str
    name: str
    quantity: str
    price: str
    amount: str
    unit_code: str = "796"
    unit: str = "шт"
    tax: str = ""
    tax_amount: str = ""
    is_service: bool = False


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One order. `number` bears the prefix of the node; `requisites`: status, payment, delivery
    under the names that 1C reads ('Статус заказа', 'Заказ оплачен', 'Метод оплаты').
    """

    id: str
    number: str
    date: str
    time: str
    currency: str
    amount: str
    buyer: Buyer
    lines: tuple[Line, ...]
    rate: str = "1"
    delivery: str = ""
    comment: str = ""
    is_cancelled: bool = False
    requisites: dict[str, str] = {}


def write_orders(orders: Iterable[Order], made_at: str) -> Iterator[bytes]:
    """The file in pieces, one for each order. `made_at`: local time, ISO 8601 without a zone.

    Raises Refused with the first fault of an order that cannot be sent: callers that want all of
    them ask `faults_of_order` first.
    """
    yield (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<КоммерческаяИнформация xmlns="{NAMESPACE}" ВерсияСхемы="{VERSION}" '
        f'ДатаФормирования="{made_at}">\n'
    ).encode()
    for order in orders:
        for fault in faults_of_order(order):
            raise Refused(fault)
        yield "".join(_document(order)).encode()
    yield "</КоммерческаяИнформация>\n".encode()


def faults_of_order(order: Order) -> list[Fault]:
    """Everything that keeps an order from being sent, each with the field it is in."""
    found: list[Fault] = []

    def fault(code: str, expected: str, said: str, where: str) -> None:
        found.append(Fault(code, expected, said[:60], Place(order.id, column=where)))

    for name, text in (("id", order.id), ("number", order.number), ("currency", order.currency),
                       ("buyer.id", order.buyer.id), ("buyer.name", order.buyer.name)):  # fmt: skip
        if not text.strip():
            fault("missing", "a text", text, name)
    if not _DATE.fullmatch(order.date):
        fault("malformed-date", "YYYY-MM-DD", order.date, "date")
    if not _TIME.fullmatch(order.time):
        fault("malformed-time", "HH:MM:SS", order.time, "time")
    if not order.lines:
        fault("missing", "a line", "none", "lines")
    total = Decimal(0)
    for place, line in enumerate(order.lines):
        product, mark, variant = line.id.partition("#")
        if not line.id.strip() or not line.name.strip() or (mark and product == variant):
            fault("malformed-id", "the id that 1C gave, and a name", line.id, f"lines[{place}]")
        for name in ("quantity", "price", "amount"):
            amount = _number(getattr(line, name))
            if amount is None or (amount < 0 or (name == "quantity" and not amount)):
                fault(
                    "number-malformed",
                    "a plain decimal above 0",
                    getattr(line, name),
                    f"lines[{place}].{name}",
                )
            elif name == "amount":
                total += amount
    total += _number(order.delivery) or Decimal(0) if order.delivery else Decimal(0)
    if not found and _number(order.amount) != total:
        fault("total-differs", f"the sum of the lines, {total:f}", order.amount, "amount")
    return found


def _document(order: Order) -> Iterator[str]:
    yield "<Контейнер><Документ>"
    yield element("Ид", order.id) + element("Номер", order.number)
    yield element("Дата", order.date) + element("ХозОперация", "Заказ товара")
    yield element("Роль", "Продавец") + element("Валюта", order.currency)
    yield element("Курс", order.rate) + element("Сумма", order.amount)
    yield from _buyer(order.buyer)
    yield element("Время", order.time) + optional("Комментарий", order.comment)
    yield "<Товары>"
    for line in order.lines:
        yield from _line(line)
    if order.delivery:
        sum_ = order.delivery
        yield from _line(Line(DELIVERY, "Доставка заказа", "1", sum_, sum_, is_service=True))
    yield "</Товары><ЗначенияРеквизитов>"
    for name, text in (
        order.requisites | {"Отменен": "true" if order.is_cancelled else "false"}
    ).items():
        yield _requisite(name, text)
    yield "</ЗначенияРеквизитов></Документ></Контейнер>\n"


def _buyer(buyer: Buyer) -> Iterator[str]:
    yield (
        "<Контрагенты><Контрагент>" + element("Ид", buyer.id) + element("Наименование", buyer.name)
    )
    yield element("Роль", "Покупатель") + element(
        "ПолноеНаименование", buyer.full_name or buyer.name
    )
    yield optional("ИНН", buyer.tax_id)
    if buyer.address:
        yield f"<АдресРегистрации>{element('Представление', buyer.address)}</АдресРегистрации>"
    contacts = [("Телефон рабочий", buyer.phone), ("Почта", buyer.email)]
    if any(value for _, value in contacts):
        yield "<Контакты>"
        for sort, value in contacts:
            if value:
                yield f"<Контакт>{element('Тип', sort)}{element('Значение', value)}</Контакт>"
        yield "</Контакты>"
    yield "</Контрагент></Контрагенты>"


def _line(line: Line) -> Iterator[str]:
    sort = "Услуга" if line.is_service else "Товар"
    yield "<Товар>" + element("Ид", line.id) + element("Наименование", line.name)
    yield element("БазоваяЕдиница", line.unit, {"Код": line.unit_code})
    if line.tax:
        yield f"<СтавкиНалогов><СтавкаНалога>{element('Наименование', 'НДС')}"
        yield f"{element('Ставка', line.tax)}</СтавкаНалога></СтавкиНалогов>"
    yield element("ЦенаЗаЕдиницу", line.price) + element("Количество", line.quantity)
    yield element("Сумма", line.amount)
    if line.tax_amount:
        yield f"<Налоги><Налог>{element('Наименование', 'НДС')}{element('УчтеноВСумме', 'true')}"
        yield f"{element('Сумма', line.tax_amount)}</Налог></Налоги>"
    yield "<ЗначенияРеквизитов>" + _requisite("ВидНоменклатуры", sort)
    yield _requisite("ТипНоменклатуры", sort) + "</ЗначенияРеквизитов></Товар>"


def _requisite(name: str, text: str) -> str:
    said = element("Наименование", name) + element("Значение", text)
    return f"<ЗначениеРеквизита>{said}</ЗначениеРеквизита>"


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text) if plain_decimal(text) == text else None
    except (ValueError, InvalidOperation):
        return None
