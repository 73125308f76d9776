"""Orders as documents of 1C: written once whatever happens to the answers, never written over."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from appliance.base.ids import uuid7
from connectors.onec import due
from connectors.onec.client import Base
from connectors.onec.memory import Memory
from connectors.onec.due import Buyer, Line, Order
from connectors.onec.orders import Writer
from connectors.onec.place import OrdersWay
from connectors.sdk.retry import Policy, Trouble
from connectors.systems.onec_odata.profile import read_profile
from connectors.transports import rates
from tests.connectors.odata_server import (
    BUYERS,
    ORDERS,
    ZERO,
    Base1C,
    Refusal,
    fill,
    serve,
    small_trust,
)

QUICK = Policy(tries=3, first_s=0.01, most_s=0.02, deadline_s=10.0)
OUT = read_profile("trade11").orders


@pytest.fixture
def room(tmp_path):
    rates._BUCKETS.clear()
    base = Base1C()
    ids = fill(base)
    with serve(base) as address:
        found = Room(base, ids, address, tmp_path)
        yield found
        found.one.close()
    assert not base.sessions


class Room:
    """A base, and who writes into it."""

    def __init__(self, base, ids, address, folder):
        self.base, self.ids, self.folder = base, ids, folder
        self.one = Base(address, base.user, base.password, allowed=("127.0.0.1",), ca_file=small_trust(), policy=QUICK, rate=rates.Rate(5_000, 5_000))  # fmt: skip
        self.way = OrdersWay(constants={"Статус": "КОбеспечению"}, zone="Europe/Kyiv")
        self.forget()

    def forget(self, name="orders.sqlite"):
        self.writer = Writer(self.one, Memory(self.folder / name), OUT, self.way)

    def order(self, **more):
        first, red = self.ids["products"][0], self.ids["red"]
        lines = (
            Line(f"{first}#{red}", "Болт", "B0", Decimal(2), Decimal("12.00"), Decimal("24.00")),
            Line(self.ids["products"][1], "Болт", "B1", Decimal("1.5"), Decimal("10.10"), Decimal("15.15")),
        )  # fmt: skip
        at = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
        told = Order(str(uuid7()), "a" * 32, "UA-1", at, "new", "UAH", Decimal("39.15"), "Нова пошта",
            Buyer(self.ids["buyer"], {"name": "Іванов"}), lines)  # fmt: skip
        return msgspec.structs.replace(told, **more)

    def written(self):
        return {k: v for k, v in self.base.objects[ORDERS].items() if k != self.ids["order"]}

    def asked(self, method, ending):
        return [p for m, p, _, _ in self.base.asked if m == method and p.endswith(ending)]

    def on(self, method, ending, *mishaps):
        """What goes wrong with the next questions of one sort."""
        waiting = list(mishaps)

        def choose(asked, path):
            if asked == method and path.endswith(ending) and waiting:
                return waiting.pop(0)
            return None

        self.base.mishaps.extend([choose] * 200)


def test_a_document_has_what_the_order_says(room):
    order = room.order()
    assert room.writer.write(order) == "written"
    (held,) = room.written().values()
    assert held["Ref_Key"] == order.id and held["Posted"] is True
    assert (held["Date"], held["НомерПоДаннымКлиента"]) == ("2026-11-21T10:30:00", "UA-1")
    buyer = room.base.objects[BUYERS][room.ids["buyer"]]
    assert held["Контрагент_Key"] == room.ids["buyer"]
    assert (held["Партнер_Key"], held["Валюта_Key"]) == (buyer["Партнер_Key"], room.ids["currency"])
    assert (held["СуммаДокумента"], held["Статус"]) == (39.15, "КОбеспечению")
    assert held["Товары"] == [
        {"LineNumber": "1", "Номенклатура_Key": room.ids["products"][0], "Характеристика_Key": room.ids["red"],
         "Количество": 2, "Цена": 12, "Сумма": 24},
        {"LineNumber": "2", "Номенклатура_Key": room.ids["products"][1], "Характеристика_Key": ZERO,
         "Количество": 1.5, "Цена": 10.1, "Сумма": 15.15},
    ]  # fmt: skip
    # Once more: nothing is written, nothing posted.
    assert room.writer.write(order) == "written"
    assert len(room.asked("POST", ORDERS)) == len(room.asked("POST", "/Post")) == 1


@pytest.mark.parametrize("mishaps", [("lost",), ("drop",), ("cut",), ("html",), ("503", "lost"), ("503",)])  # fmt: skip
def test_an_order_is_there_once_whatever_became_of_the_answer(room, mishaps):
    order = room.order()
    room.on("POST", ORDERS, *mishaps)
    for _ in range(3):
        try:
            room.writer.write(order)
        except Trouble as trouble:
            assert not trouble.is_permanent, trouble
    assert list(room.written()) == [order.id] and room.written()[order.id]["Posted"]
    room.base.mishaps.clear()
    # A worker that has lost its memory finds it as it is.
    room.forget("other.sqlite")
    posts = len(room.asked("POST", ORDERS))
    assert room.writer.write(order) == "written" and len(room.asked("POST", ORDERS)) == posts


def test_a_posting_that_is_refused_leaves_it_unposted_and_alone_is_tried_again(room):
    order = room.order()

    def short(_document):
        raise Refusal("Недостаточно товара на складе")

    room.base.may_post = short
    for _ in range(2):
        with pytest.raises(Trouble, match="Недостаточно товара") as told:
            room.writer.write(order)
        assert told.value.is_permanent
    (held,) = room.written().values()
    assert held["Posted"] is False and len(room.asked("POST", ORDERS)) == 1
    room.base.may_post = lambda _document: None
    room.writer.write(order)
    assert room.written()[order.id]["Posted"] is True
    assert (len(room.asked("POST", ORDERS)), room.asked("PATCH", ")")) == (1, [])


def test_a_changed_order_is_changed_there_unless_somebody_was_there_before(room):
    order = room.order()
    room.writer.write(order)
    more = msgspec.structs.replace(order, version="b" * 32, lines=order.lines[:1], amount=Decimal(24))  # fmt: skip
    room.on("PATCH", ")", "lost")
    room.writer.write(more)
    held = room.written()[order.id]
    assert (len(held["Товары"]), held["СуммаДокумента"], held["Posted"]) == (1, 24, True)
    room.base.put(ORDERS, order.id, Комментарий="Клиент просил позвонить")
    again = msgspec.structs.replace(more, version="c" * 32, delivery="Самовивіз")
    with pytest.raises(Trouble, match="changed in 1C since") as told:
        room.writer.write(again)
    assert told.value.is_permanent
    assert room.written()[order.id]["Комментарий"] == "Клиент просил позвонить"
    del room.base.objects[ORDERS][order.id]
    with pytest.raises(Trouble, match="not there any more"):
        room.writer.write(again)
    assert room.written() == {}


def test_a_cancelled_order_is_unposted_and_marked(room):
    order = room.order()
    room.writer.write(order)
    cancelled = msgspec.structs.replace(order, version="b" * 32, state="cancelled")
    assert room.writer.write(cancelled) == "cancelled"
    held = room.written()[order.id]
    assert (held["Posted"], held["DeletionMark"]) == (False, True)
    never = msgspec.structs.replace(room.order(), state="cancelled")
    assert room.writer.write(never) == "nothing" and list(room.written()) == [order.id]


def test_what_1c_does_not_know_is_named_before_anything_is_written(room):
    order = room.order()
    stranger = Line(None, "Ковш", "K-1", Decimal(1), Decimal(1), Decimal(1))
    evil = msgspec.structs.replace(stranger, external_id="x') or (1 eq 1")
    cases = (
        ({"lines": (stranger,)}, "K-1"), ({"buyer": None}, "does not know its buyer"),
        ({"currency": "XAU"}, "no currency XAU"), ({"lines": (evil,)}, "is no id of 1C"),
    )  # fmt: skip
    for changes, said in cases:
        with pytest.raises(Trouble, match=said) as told:
            room.writer.write(msgspec.structs.replace(order, **changes))
        assert told.value.is_permanent
    assert room.written() == {} and room.asked("POST", ORDERS) == []
    room.way = msgspec.structs.replace(room.way, buyer=room.ids["buyer"])
    room.forget()
    room.writer.write(msgspec.structs.replace(order, buyer=Buyer(None, {"name": "Сидоренко", "phone": "+38067"})))  # fmt: skip
    assert room.written()[order.id]["Комментарий"] == "UA-1; Сидоренко; +38067; Нова пошта"


def test_a_base_that_gives_ids_of_its_own_gets_one_document_and_no_more(room):
    room.base.keeps_ids = False
    for order in (room.order(), room.order()):
        for _ in range(2):
            with pytest.raises(Trouble, match="id of its own") as told:
                room.writer.write(order)
            assert (told.value.code, told.value.is_permanent) == ("id-not-kept", True)
    assert len(room.written()) == 1


def test_orders_of_a_node_are_read_exactly():
    told = {"id": "i", "version": "v", "number": "", "at": "2026-11-21T08:30:00+00:00", "state": "new", "currency": "UAH",
        "amount": "39.150000", "due": "", "delivery": "", "buyer": None, "lines": []}  # fmt: skip
    (order,), after = due.read_orders(json.dumps({"orders": [told], "next": None}).encode())
    assert (order.amount, after) == (Decimal("39.150000"), "")
    with pytest.raises(Trouble, match="no answer of a node"):
        due.read_orders(b"<html>")
