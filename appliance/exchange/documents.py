"""Orders as CommerceML 2.08 documents, each in a container of its own, as 1C's exchange with a
web site reads them (research/connectors 2, "Orders out").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from zoneinfo import ZoneInfo

from appliance.exchange.orders import Buyer, Line, Order
from appliance.kernel.context import Ctx
from appliance.price_lists.commerceml import (
    NAMESPACE,
    VERSION,
    element,
    measure_element,
    plain_quantity,
)
from appliance.price_lists.rows import written

_STATES = {
    "new": "Новый", "reserved": "Зарезервирован", "shipped": "Отгружен", "closed": "Закрыт",
    "cancelled": "Отменён",
}  # fmt: skip
_CONTACTS = {"phone": "Телефон рабочий", "email": "Почта"}


def write_orders(ctx: Ctx, orders: Iterable[Order]) -> str:
    """The whole answer to `mode=query`."""
    zone = ZoneInfo(ctx.tz)
    made = ctx.at.astimezone(zone).isoformat(timespec="seconds")
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<КоммерческаяИнформация xmlns="{NAMESPACE}" ВерсияСхемы="{VERSION}" '
        f'ДатаФормирования="{made}">'
    )
    told = "\n".join("".join(_document(order, zone)) for order in orders)
    return f"{head}{told}</КоммерческаяИнформация>\n"


def _document(order: Order, zone: ZoneInfo) -> Iterator[str]:
    at = order.at.astimezone(zone)
    yield "<Контейнер><Документ>" + element("Ид", order.id) + element("Номер", order.number)
    yield element("Дата", at.date().isoformat()) + element("ХозОперация", "Заказ товара")
    yield element("Роль", "Продавец") + element("Валюта", order.currency) + element("Курс", "1")
    yield element("Сумма", written(order.amount))
    if order.buyer is not None:
        yield "<Контрагенты>" + "".join(_buyer(order.buyer)) + "</Контрагенты>"
    yield element("Время", at.time().isoformat(timespec="seconds"))
    if order.delivery:
        yield element("Комментарий", f"Доставка: {order.delivery}", 1_000)
    yield "<Товары>" + "".join("".join(_line(line)) for line in order.lines) + "</Товары>"
    yield "<ЗначенияРеквизитов>" + _detail("Статус заказа", _STATES.get(order.state, order.state))
    yield _detail("Отменен", "true" if order.state == "cancelled" else "false")
    if order.due:
        yield _detail("Дата отгрузки", order.due)
    yield "</ЗначенияРеквизитов></Документ></Контейнер>"


def _buyer(buyer: Buyer) -> Iterator[str]:
    fields = buyer.fields
    yield "<Контрагент>" + element("Ид", buyer.id) + element("Наименование", fields.get("name", ""))
    yield element("Роль", "Покупатель")
    yield element("ПолноеНаименование", fields.get("legal_name") or fields.get("name", ""))
    if "tax_id" in fields:
        yield element("ИНН", fields["tax_id"])
    if "address" in fields:
        yield "<АдресРегистрации>" + element("Представление", fields["address"], 500)
        yield "</АдресРегистрации>"
    contacts = [(sort, fields[name]) for name, sort in _CONTACTS.items() if name in fields]
    if contacts:
        yield "<Контакты>"
        for sort, value in contacts:
            yield f"<Контакт>{element('Тип', sort)}{element('Значение', value)}</Контакт>"
        yield "</Контакты>"
    yield "</Контрагент>"


def _line(line: Line) -> Iterator[str]:
    yield "<Товар>" + element("Ид", line.product_id)
    if line.sku:
        yield element("Артикул", line.sku)
    yield element("Наименование", line.name) + measure_element(line.measure)
    if line.tax_rate is not None:
        yield "<СтавкиНалогов><СтавкаНалога>" + element("Наименование", "НДС")
        yield element("Ставка", plain_quantity(line.tax_rate)) + "</СтавкаНалога></СтавкиНалогов>"
    yield element("ЦенаЗаЕдиницу", written(line.price))
    yield element("Количество", plain_quantity(line.quantity))
    yield element("Сумма", written(line.amount)) + "<ЗначенияРеквизитов>"
    yield _detail("ВидНоменклатуры", "Товар") + _detail("ТипНоменклатуры", "Товар")
    yield "</ЗначенияРеквизитов></Товар>"


def _detail(name: str, value: str) -> str:
    return (
        f"<ЗначениеРеквизита>{element('Наименование', name)}{element('Значение', value)}"
        "</ЗначениеРеквизита>"
    )
