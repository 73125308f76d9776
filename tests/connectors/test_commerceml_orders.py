"""Orders out are what our own reader reads; what 1C could not take is refused before a byte."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from connectors.sdk.contract import Refused
from connectors.systems.commerceml.write import Buyer, Line, Order, faults_of_order, write_orders
from tests.connectors.test_commerceml import read

BUYER = Buyer(
    "b1",
    "Олена & Ко",
    tax_id="12345678",
    address="Київ, 1",
    phone="+380441234567",
    email="o@e.example",
)
LINE = Line("p1#v1", "Сандалі <38>", "2", "10.50", "21.00", tax="20", tax_amount="3.50")
ORDER = Order(
    id="o-1", number="N1-000007", date="2026-11-20", time="10:20:30", currency="UAH", amount="26.00",
    buyer=BUYER, lines=(LINE,), delivery="5.00", comment="Дзвонити",
    requisites={"Статус заказа": "Новий", "Заказ оплачен": "true", "Метод оплаты": "Картка"},
)  # fmt: skip
TEXTS = st.text(min_size=1, max_size=20).filter(lambda t: t.strip() and t.isprintable())


def written(tmp_path, *orders):
    path = tmp_path / "orders.xml"
    path.write_bytes(b"".join(write_orders(orders, "2026-11-20T11:00:00")))
    return read(path)


def test_an_order_is_read_back(tmp_path):
    rows, summary = written(tmp_path, ORDER, replace(ORDER, id="o-2", is_cancelled=True))
    assert (
        summary.entities == {"counterparty": 1, "order": 2, "order_line": 4}
        and not summary.warnings
    )
    party, order, line, delivery = rows[:4]
    assert party.values == {
        "name": "Олена & Ко", "full_name": "Олена & Ко", "tax_id": "12345678", "role": "Покупатель",
        "address": "Київ, 1", "phone": "+380441234567", "email": "o@e.example",
    }  # fmt: skip
    assert order.key == "o-1" and order.values == {
        "number": "N1-000007", "operation": "Заказ товара", "role": "Продавец", "currency": "UAH",
        "comment": "Дзвонити", "date": "2026-11-20", "moment": "2026-11-20T10:20:30", "rate": "1",
        "amount": "26.00", "status": "Новий", "is_paid": True, "is_cancelled": False,
        "counterparty_id": "b1", "properties": '{"Метод оплаты":"Картка"}',
    }  # fmt: skip
    assert line.values == {
        "order_id": "o-1", "product_id": "p1", "variant_id": "p1#v1", "name": "Сандалі <38>",
        "quantity": "2", "price": "10.50", "amount": "21.00", "unit": "шт", "tax": "20", "tax_amount": "3.50",
    }  # fmt: skip
    assert delivery.values["product_id"] == "ORDER_DELIVERY" and delivery.values["amount"] == "5.00"
    assert rows[4].values["is_cancelled"] is True


@given(st.lists(st.tuples(TEXTS, st.decimals(1, 9_999, places=2)), min_size=1, max_size=5), TEXTS)
def test_any_order_is_read_back(tmp_path_factory, goods, name):
    lines = tuple(Line(f"p{n}", text, "1", f"{a:f}", f"{a:f}") for n, (text, a) in enumerate(goods))
    total = sum((a for _, a in goods), Decimal(0))
    order = replace(ORDER, lines=lines, delivery="", amount=f"{total:f}", buyer=Buyer("b", name))
    rows, summary = written(tmp_path_factory.mktemp("orders"), order)
    found = [r for r in rows if r.entity == "order_line"]
    assert [r.values["name"] for r in found] == [line.name.strip() for line in lines]
    assert [r.values["amount"] for r in found] == [line.amount for line in lines]
    assert not summary.warnings and not [f for r in rows for f in r.faults]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"amount": "26.01"}, "total-differs"), ({"number": " "}, "missing"), ({"lines": ()}, "missing"),
        ({"lines": (replace(LINE, id="p#p"),)}, "malformed-id"), ({"date": "20.11.2026"}, "malformed-date"),
        ({"lines": (replace(LINE, quantity="0"),)}, "number-malformed"),
        ({"lines": (replace(LINE, price="1,5"),)}, "number-malformed"),
    ],
)  # fmt: skip
def test_orders_that_cannot_be_sent(change, code):
    order = replace(ORDER, **change)
    assert [f.code for f in faults_of_order(order)] == [code]
    with pytest.raises(Refused, match=code):
        list(write_orders([order], "2026-11-20T11:00:00"))


def test_what_1c_says_of_an_order(tmp_path):
    def document(id_, operation, amount, *inner, date="2026-11-20"):
        return (
            f"<{inner[0]}><Ид>{id_}</Ид><Номер>{id_}</Номер><Дата>{date}</Дата>"
            f"<ХозОперация>{operation}</ХозОперация><Валюта>UAH</Валюта><Сумма>{amount}</Сумма>"
            + "".join(inner[1:]) + f"</{inner[0]}>"
        )  # fmt: skip

    def said(**pairs):
        return "<ЗначенияРеквизитов>" + "".join(
            f"<ЗначениеРеквизита><Наименование>{n.replace('_', ' ')}</Наименование><Значение>{v}</Значение></ЗначениеРеквизита>"
            for n, v in pairs.items()
        ) + "</ЗначенияРеквизитов>"  # fmt: skip

    below = "ПодчиненныйДокумент"
    order = document(
        "o1", "Заказ товара", "20.00", "Документ", "<Номер1С>ЗК-7</Номер1С><Дата1С>2026-11-21</Дата1С>",
        said(Проведен="true", ПометкаУдаления="false", Статус_заказа="Отгружен",
             Номер_оплаты_по_1С="П-3", Дата_оплаты_по_1С="2026-11-22"),
        "<ПодчиненныеДокументы>",
        document("p1", "Выплата безналичных денег", "12.50", below, said(Проведен="true"), date="2026-11-22"),
        document("p2", "Эквайринговая операция", "7.50", below, "<ПометкаУдаления>true</ПометкаУдаления>"),
        document("s0", "Отпуск товара", "20.00", below, "<ПометкаУдаления>true</ПометкаУдаления>", date="2026-11-01"),
        document("s1", "Отпуск товара", "20.00", below, date="2026-11-23"),
        "</ПодчиненныеДокументы>",
    )  # fmt: skip
    path = tmp_path / "orders.xml"
    path.write_text(f'<КоммерческаяИнформация ВерсияСхемы="2.08">{order}</КоммерческаяИнформация>')
    rows, summary = read(path)
    assert summary.entities == {"order": 3, "payment": 2} and not [
        f for r in rows for f in r.faults
    ]
    values = rows[0].values
    assert {n: values[n] for n in values if n not in ("number", "operation", "date")} == {
        "currency": "UAH", "amount": "20.00", "external_number": "ЗК-7", "external_date": "2026-11-21",
        "is_posted": True, "is_deleted": False, "status": "Отгружен", "payment_number": "П-3",
        "paid_date": "2026-11-22", "is_shipped": True, "shipment_number": "s1", "shipped_date": "2026-11-23",
    }  # fmt: skip
    paid, card = (r.values for r in rows if r.entity == "payment")
    assert paid == {
        "order_id": "o1", "method": "bank", "number": "p1", "operation": "Выплата безналичных денег",
        "currency": "UAH", "date": "2026-11-22", "amount": "12.50", "is_posted": True,
    }  # fmt: skip
    assert (card["method"], card["is_deleted"]) == ("card", True)
