"""Orders of marketplaces come whole and once, whatever their APIs do on the way."""

import asyncio
import itertools
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from connectors.formats.captured import Head, Page, write_capture
from connectors.markets import kaspi, ozon, prom, rozetka, wildberries, yandex_market
from connectors.sdk.contract import Refused
from connectors.sdk.reading import read_whole
from connectors.sdk.retry import Policy, Trouble
from connectors.systems.kaspi import CONNECTOR as KASPI
from connectors.systems.ozon import CONNECTOR as OZON
from connectors.systems.prom import CONNECTOR as PROM
from connectors.systems.rozetka import CONNECTOR as ROZETKA
from connectors.systems.wildberries import CONNECTOR as WILDBERRIES
from connectors.systems.yandex_market import CONNECTOR as YANDEX
from connectors.transports.capture import Capture
from connectors.transports.fetch import fetch
from tests.connectors.markets_server import AFTER, BEFORE, LISTS, Shop, run_market
from tests.connectors.markets_more import speak_kaspi, speak_prom, speak_rozetka
from tests.connectors.markets_words import speak_ozon, speak_wildberries, speak_yandex

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
POLICY = Policy(tries=12, first_s=0.01, most_s=0.05, deadline_s=1_000_000.0)
_count = itertools.count()


# A counter-example is looked for in the long form; here it is only shown.
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)


class Clock:
    """Time that passes by being slept through."""

    def __init__(self):
        self.at = 0.0

    def __call__(self):
        return self.at

    def sleep(self, seconds):
        self.at += seconds


def open_shop(system, base, secrets, **more):
    """The place of a shop, and what asks it, on time that passes at once."""
    clock = Clock()
    fast = {"policy": POLICY, "sleep": clock.sleep, "now": clock}
    common = {"secrets_file": str(secrets), "base": base, "allowed": ("127.0.0.1",), **more}
    # Limits are those of an account: each look of a test has one of its own.
    name = f"{system}{next(_count)}"
    if system == "ozon":
        place = ozon.OzonPlace(client_id="77", warehouse_id=22, **common)
        api = ozon.open_api(place, **fast)
        api._account = name
        return place, api, ozon.OzonPages
    if system == "yandex_market":
        place = yandex_market.YandexPlace(campaign_id=5, business_id=9, **common)
        api = yandex_market.open_api(place, **fast)
        api._account = name
        return place, api, yandex_market.YandexPages
    if system == "rozetka":
        place = rozetka.RozetkaPlace(account="us", **common)
        api = rozetka.Rozetka(place, **fast)
        api._account = api._api._account = name
        return place, api, rozetka.RozetkaPages
    if system in ("prom", "kaspi"):
        talks, sort = (prom, prom.PromPlace) if system == "prom" else (kaspi, kaspi.KaspiPlace)
        place = sort(account="us", **common)
        api = talks.open_api(place, **fast)
        api._account = name
        return place, api, prom.PromPages if system == "prom" else kaspi.KaspiPages
    place = wildberries.WildberriesPlace(account="us", warehouse_ids=(31,), **common)
    api = wildberries.Wildberries(place, **fast)
    for one in api._apis.values():
        one._account = name
    return place, api, wildberries.WildberriesPages


SYSTEMS = {
    "ozon": (speak_ozon, OZON, "delivering"),
    "yandex_market": (speak_yandex, YANDEX, "DELIVERY"),
    "wildberries": (speak_wildberries, WILDBERRIES, "sorted"),
}
CURRENCY = {"rozetka": "UAH", "prom": "UAH", "kaspi": "KZT"}
IN = SYSTEMS | {
    "rozetka": (speak_rozetka, ROZETKA, "1"),
    "prom": (speak_prom, PROM, "received"),
    "kaspi": (speak_kaspi, KASPI, "ACCEPTED_BY_MERCHANT"),
}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    path = tmp_path_factory.mktemp("secrets") / "secrets"
    path.write_text("api_key = k\ntoken = t\nusername = u\npassword = p\n")
    path.chmod(0o600)
    return path


def order(system, number, hours, status=None):
    at = (NOW - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [(f"A{number % 3}", 1 if system == "wildberries" else 1 + number % 2, "499.90")]
    return {"id": number, "at": at, "status": status or IN[system][2], "lines": lines, "buyer": "Ірина Коваль"}  # fmt: skip


def look(system, base, secrets, folder, known=None, now=NOW, **more):
    """One look: what was captured, as a file, and where the next one begins."""
    if system == "rozetka":
        more.pop("page", None)
    place, api, pages = open_shop(system, base, secrets, **more)
    known = {} if known is None else known
    transport = Capture(pages(place, known, api, now=lambda: now), known)
    try:
        (entry,) = transport.entries().entries
        path = fetch(transport, entry, folder).path
        transport.finish(entry, is_failed=False)
        return path
    finally:
        transport.close()


def rows_of(system, path):
    source = IN[system][1].open(path)
    found = source.inspect({})
    return [r for f in source.read(found.proposal) if hasattr(f, "rows") and not isinstance(f.rows, int) for r in f.rows]  # fmt: skip


def orders_in(rows):
    """Orders with their lines as a shop has them; raises where something stands twice."""
    orders = {r.key: r.values for r in rows if r.entity == "order"}
    assert len(orders) == len([r for r in rows if r.entity == "order"])
    lines = [r.values for r in rows if r.entity == "order_line"]
    assert len({r.key for r in rows if r.entity == "order_line"}) == len(lines)
    assert not any(r.faults for r in rows)
    return {
        (key, v["properties"]): sorted((l["product_id"], Decimal(l["quantity"]), Decimal(l["price"])) for l in lines if l["order_id"] == key)
        for key, v in orders.items()
    }  # fmt: skip


def orders_of(shop, gone=False):
    return {
        (str(o["id"]), o["status"]): sorted((n, q, Decimal(p)) for n, q, p in o["lines"])
        for o in (shop.gone.values() if gone else shop.orders)
    }  # fmt: skip


def compared(rows):
    return {
        (key, msgspec.json.decode(properties)["system_status"]): lines
        for (key, properties), lines in orders_in(rows).items()
    }


@pytest.mark.parametrize("system", IN)
@settings(max_examples=6, deadline=None, phases=QUICK)
@given(
    count=st.integers(0, 9), page=st.integers(1, 4),
    faults=st.lists(st.sampled_from([*BEFORE, *AFTER, *LISTS]), max_size=9),
)  # fmt: skip
def test_what_is_staged_is_what_the_shop_has(
    system, secrets, tmp_path_factory, count, page, faults
):
    folder = tmp_path_factory.mktemp("in")
    shop = Shop([order(system, n, 40 - n) for n in range(1, count + 1)])
    shop.faults.extend(faults)
    shop.late.extend(order(system, 100 + n, 1) for n in range(3))
    with run_market(shop, IN[system][0]) as base:
        known = {}
        path = look(system, base, secrets, folder, known, page=page)
        # What came in behind the last page is found by the next look, which overlaps.
        first = compared(rows_of(system, path))
        gone = orders_of(shop, gone=True)
        assert all((orders_of(shop) | gone)[key] == lines for key, lines in first.items())
        shop.late.clear()
        path = look(system, base, secrets, folder, known, NOW + timedelta(hours=1), page=page)
        later = compared(rows_of(system, path))
        # What is not told again stays as it was.
        staged = first | {k: v or first.get(k) for k, v in later.items()}
        gone = orders_of(shop, gone=True)
        assert {k: v for k, v in staged.items() if k not in gone} == orders_of(shop)
        # Kaspi is asked for six states in each window of 14 days.
        assert shop.calls.total() <= 90 + 16 * (count + 3) // page + 2 * len(faults)


@pytest.mark.parametrize("system", IN)
def test_the_same_answers_are_the_same_file_and_a_changed_status_comes_again(
    system, secrets, tmp_path
):
    shop = Shop([order(system, n, 40 - n) for n in range(1, 6)])
    known = {}
    with run_market(shop, IN[system][0]) as base:
        first = look(system, base, secrets, tmp_path, known)
        again = look(system, base, secrets, tmp_path, known, NOW + timedelta(minutes=5))
        # Kaspi tells the lines of an order once, for each status that it gets.
        assert (again == first) == (system != "kaspi")
        assert look(system, base, secrets, tmp_path, known, NOW + timedelta(minutes=9)) == again
        done = {
            "ozon": "cancelled", "yandex_market": "CANCELLED", "wildberries": "canceled",
            "rozetka": "5", "prom": "canceled", "kaspi": "CANCELLED",
        }[system]  # fmt: skip
        shop.orders[2] |= {"status": done, "changed": "2026-11-24T10:00:00Z"}
        later = look(system, base, secrets, tmp_path, known, NOW + timedelta(days=3))
    (row,) = [r for r in rows_of(system, later) if r.entity == "order" and r.key == "3"]
    if system == "rozetka":
        assert row.values["is_shipped"] is True and row.values["status"] == "shipped"
        return
    assert row.values["is_cancelled"] is True and row.values["status"] == "cancelled"
    (row,) = [r for r in rows_of(system, first) if r.entity == "order" and r.key == "3"]
    assert (row.values["date"], row.values["currency"]) == (
        row.values["moment"][:10],
        CURRENCY.get(system, "RUB"),
    )
    assert datetime.fromisoformat(row.values["moment"]) == NOW - timedelta(hours=37)
    assert row.values["status"] in ("shipped", "processing") and "is_cancelled" not in row.values


@pytest.mark.parametrize("system", SYSTEMS)
def test_own_offers_prices_and_stocks_are_read_as_they_stand(system, secrets, tmp_path):
    names = [f"A{n}" for n in range(7)]
    shop = Shop(prices={n: "499.9" for n in names}, stocks=dict.fromkeys(names, 4))
    with run_market(shop, SYSTEMS[system][0]) as base:
        what = ("offers", "prices", "stocks")
        path = look(system, base, secrets, tmp_path, what=what, page=3)
    read = asyncio.run(read_whole(system, path, lambda f: rows.extend(f.rows))) if (rows := []) or True else None  # fmt: skip
    assert read.done.faulty == 0
    by = {e: {r.values.get("product_id", r.key): r.values for r in rows if r.entity == e} for e in ("product", "price", "stock")}  # fmt: skip
    assert set(by["product"]) == set(by["price"]) == set(by["stock"]) == set(names)
    assert {v["amount"] for v in by["price"].values()} == {"499.9"}
    assert {v["currency"] for v in by["price"].values()} == {"RUB"}
    assert {v["quantity"] for v in by["stock"].values()} == {"4"}
    assert all(v["sku"] == n and v["name"] == f"Товар {n}" for n, v in by["product"].items())


def test_cursors_that_lead_around_end_and_nothing_is_kept(secrets, tmp_path):
    shop = Shop([order("yandex_market", n, 5) for n in range(1, 5)])

    def speak(_):
        def answer(method, path, params, body):
            return 200, {"orders": [], "paging": {"nextPageToken": "again"}}, {}

        return answer

    with run_market(shop, speak) as base, pytest.raises(Trouble) as caught:
        look("yandex_market", base, secrets, tmp_path)
    assert caught.value.code == "cursor-loop" and shop.calls.total() <= 3
    assert list(tmp_path.iterdir()) == []

    def around(_):
        def answer(method, path, params, body):
            return 200, {"result": {"postings": [{"posting_number": "1"}], "has_next": True}}, {}

        return answer

    shop = Shop()
    with run_market(shop, around) as base, pytest.raises(Trouble) as caught:
        look("ozon", base, secrets, tmp_path)
    assert caught.value.code == "cursor-loop" and shop.calls.total() <= 10


def test_limits_are_kept_as_they_are_told(secrets, tmp_path):
    """420 with its date, 409 that counts as ten, code 8 within a 200."""
    said = iter([
        (420, {"errors": []}, {"X-RateLimit-Resource-Until": "Thu, 10 Jul 2031 00:42:42 GMT"}),
        (200, {"orders": []}, {}),
    ])  # fmt: skip
    with run_market(Shop(), lambda _: lambda *asked: next(said)) as base:
        place, api, pages = open_shop("yandex_market", base, secrets)
        list(pages(place, {}, api, now=lambda: NOW).ask())
        assert api._now() >= 3_600

    said = iter([(200, {"code": 8, "message": "limit"}, {}), (200, {"result": {}}, {}), (200, {"result": {}}, {})])  # fmt: skip
    with run_market(Shop(), lambda _: lambda *asked: next(said)) as base:
        path = look("ozon", base, secrets, tmp_path)
    assert rows_of("ozon", path) == []

    said = itertools.chain([(409, [], {})], itertools.repeat((200, {"orders": []}, {})))
    with run_market(Shop(), lambda _: lambda *asked: next(said)) as base:
        place, api, pages = open_shop("wildberries", base, secrets)
        bucket = api._apis[base]._bucket("orders")
        with pytest.raises(Trouble, match="http-409"):
            list(pages(place, {}, api, now=lambda: NOW).ask())
        assert bucket._tokens < 11
        list(pages(place, {}, api, now=lambda: NOW).ask())


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((401, {"message": "token"}, {}), "http-401"),
        ((200, {"orders": 5}, {}), "answer-unknown"),
        ((200, {"status": "ERROR", "errors": [{"code": "X"}]}, {}), "refused"),
    ],
)
def test_what_no_second_try_mends_is_told_at_once(secrets, tmp_path, answer, code):
    shop = Shop()
    with run_market(shop, lambda _: lambda *asked: answer) as base:
        if code == "answer-unknown":
            path = look("yandex_market", base, secrets, tmp_path)
            with pytest.raises(Refused, match=code):
                rows_of("yandex_market", path)
            return
        with pytest.raises(Trouble) as caught:
            look("yandex_market", base, secrets, tmp_path)
    assert (caught.value.code, caught.value.is_permanent, shop.calls.total()) == (code, True, 1)


def test_a_slow_trickle_ends_by_the_deadline_and_secrets_are_asked_to_be_shut(secrets, tmp_path):
    def speak(_):
        def answer(*asked):
            time.sleep(0.05)
            return 200, {"orders": [], "paging": {"nextPageToken": str(next(_count))}}, {}

        return answer

    with run_market(Shop(), speak) as base:
        place, api, pages = open_shop("yandex_market", base, secrets)
        transport = Capture(pages(place, {}, api, now=lambda: NOW), {})
        with pytest.raises(Trouble, match="timeout"):
            fetch(transport, transport.entries().entries[0], tmp_path, deadline_s=0.3)
    loose = Path(tmp_path / "loose")
    loose.write_text("api_key = k\n")
    loose.chmod(0o644)
    with pytest.raises(Trouble, match="chmod 600"):
        open_shop("ozon", "https://shop.example", loose)
    loose.chmod(0o600)
    with pytest.raises(Trouble, match="token"):
        open_shop("wildberries", "https://shop.example", loose)


def test_a_faulty_item_is_one_row_and_an_order_waits_whole(secrets, tmp_path):
    bad = [
        {"posting_number": "1", "status": "delivering", "products": [{"offer_id": "A", "price": 1e30, "quantity": 1}]},
        {"posting_number": "2", "status": "unheard", "in_process_at": "2026-13-01", "products": [{"offer_id": None, "quantity": -1}]},
        {"posting_number": "3", "status": 5},
        {"status": "delivering"},
        {"posting_number": "4", "status": "delivered", "products": [{"offer_id": "A", "price": "1.50", "quantity": 2, "name": "x\u0000"}]},
        {"posting_number": "5", "status": "delivered", "products": [{"offer_id": "A", "price": "1.50", "quantity": 2}]},
    ]  # fmt: skip
    with run_market(Shop(), lambda _: lambda *asked: (200, {"result": {"postings": bad}}, {})) as base:  # fmt: skip
        rows = rows_of("ozon", look("ozon", base, secrets, tmp_path))
    codes = {(r.entity, r.key): sorted(f.code for f in r.faults) for r in rows}
    assert codes == {
        ("order", "1"): ["number-malformed"], ("order_line", "1|A|1"): ["number-malformed"],
        ("order", "2"): ["malformed-date", "missing-id", "negative-quantity"],
        ("order_line", "2||1"): ["malformed-date", "missing-id", "negative-quantity"],
        ("order", "3"): ["answer-unknown"], ("order", ""): ["answer-unknown", "missing-id"],
        ("order", "4"): ["control-character"], ("order_line", "4|A|1"): ["control-character"],
        ("order", "5"): [], ("order_line", "5|A|1"): [],
    }  # fmt: skip


def test_what_is_nested_too_deep_is_refused_on_the_way_and_in_a_file(secrets, tmp_path):
    deep = b"[" * 50_000 + b"]" * 50_000
    for system in ("yandex_market", "wildberries", "kaspi"):
        path = tmp_path / system
        pages = [Page("orders", msgspec.Raw(b'{"x":' + deep + b"}"))]
        path.write_bytes(b"".join(write_capture(Head(system, {}), pages)))
        with pytest.raises(Refused, match="damaged"):
            rows_of(system, path)
