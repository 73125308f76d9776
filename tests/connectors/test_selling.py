"""Prices and stocks at a marketplace become those of the node, whatever happens in between."""

import asyncio
import itertools
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.markets.ozon_selling import OzonMarket
from connectors.markets.prom import PromMarket
from connectors.markets.rozetka import RozetkaMarket
from connectors.markets.selling import Limits, Wanted, send_apart
from connectors.markets.wildberries_selling import WildberriesMarket
from connectors.markets.yandex_selling import YandexMarket
from connectors.sdk.channels import Channel, Offer, Offers
from connectors.sdk.retry import Trouble
from connectors.work.ledger import Ledger
from connectors.work.pushing import look
from connectors.work.selling import Selling
from connectors.work.settings import Selling as Source
from tests.connectors.markets_server import AFTER, BEFORE, Shop, run_market
from tests.connectors.test_markets import IN, QUICK, Clock, open_shop, secrets

__all__ = ["secrets"]
SYSTEMS = {name: words for name, words in IN.items() if name != "kaspi"}
ROOT = Path(__file__).resolve().parents[2]
NAMES = ("A0", "A1", "A2", "A3")
SMALL = {
    "ozon": Limits(price=3, stock=2),
    "yandex_market": Limits(price=3, stock=2, read_back=frozenset({"price"})),
    "wildberries": Limits(price=3, stock=2, read_back=frozenset({"price", "stock"})),
}


class Killed(BaseException):
    """Whoever is killed runs no more code of ours."""


def open_market(system, base, secrets):
    place, api, _ = open_shop(system, base, secrets)
    if system in ("rozetka", "prom"):
        return (RozetkaMarket if system == "rozetka" else PromMarket)(api, SMALL["ozon"])
    if system == "wildberries":
        return WildberriesMarket(place, api, SMALL[system], sleep=lambda s: None)
    return (OzonMarket if system == "ozon" else YandexMarket)(place, api, SMALL[system])


def channel(system, **more):
    given = {"id": "c1", "system": system, "dry_run": False, "currency": "RUB", "max_change_share": Decimal("0.5")}  # fmt: skip
    return Channel(**{**given, **more})


def offer(sku, price="100", available=5, **more):
    price = None if price is None else Decimal(price)
    return Offer(sku=sku, price=price, available=Decimal(available), **more)


def sell(system, base, secrets, ledger, offers, now=None, **more):
    """One look at a channel that knows these offers."""
    market = open_market(system, base, secrets)
    clock = now or Clock()
    selling = Selling(channel(system, **more), market, ledger, worker="w", now=clock)
    try:
        selling.want(offers)
        report = selling.push()
        if not report.dry_run:
            selling.mark_told(report)
        return report
    finally:
        market.close()


def at(shop):
    return (
        {o: Decimal(str(p)) for o, p in shop.prices.items()},
        {o: Decimal(str(s)) for o, s in shop.stocks.items()},
    )  # fmt: skip


@pytest.fixture(params=SYSTEMS)
def system(request):
    return request.param


@pytest.mark.parametrize("name", SYSTEMS)
@settings(max_examples=6, deadline=None, phases=QUICK)
@given(
    looks=st.lists(
        st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(90, 110), st.integers(-1, 9))),
        min_size=1, max_size=4,
    ),
    faults=st.lists(st.sampled_from([*BEFORE, *AFTER]), max_size=8),
    kills=st.sets(st.integers(0, 6), max_size=2),
)  # fmt: skip
def test_the_shop_becomes_what_the_node_says(name, secrets, looks, faults, kills):
    shop = Shop(prices=dict.fromkeys(NAMES, 100), stocks=dict.fromkeys(NAMES, 0))
    shop.faults.extend(faults)
    ledger, meant, steps = Ledger(None), {}, itertools.count()
    with run_market(shop, SYSTEMS[name][0]) as base:
        for told in looks:
            meant |= told
            market = open_market(name, base, secrets)
            send = market.send

            def killing(*given):
                # Killed when it was sent and nobody has heard the answer.
                outcomes = send(*given)
                if next(steps) in kills:
                    raise Killed
                return outcomes

            market.send = killing
            selling = Selling(channel(name), market, ledger, worker="w", now=Clock())
            offers = [offer(sku, str(p), s, is_off=s < 0) for sku, (p, s) in meant.items()]
            try:
                selling.want(offers)
                selling.push()
            except (Killed, Trouble):
                pass
            market.close()
        shop.faults.clear()
        shop.calls.clear()
        report = sell(name, base, secrets, ledger, offers)
        first = shop.calls.total()
        again = sell(name, base, secrets, ledger, offers)
    prices, stocks = at(shop)
    for sku, (price, stock) in meant.items():
        assert stocks[sku] == max(stock, 0)
        if stock >= 0:
            assert prices[sku] == price
    assert (report.held, report.refused) == (0, 0) and first <= 40
    # Nothing has changed: nothing is sent, nothing is asked.
    assert (again.sent, again.items) == (0, ()) and shop.calls.total() == first


def test_a_price_that_jumps_waits_and_stock_goes_on(system, secrets):
    shop = Shop(prices={"A1": 100, "A2": 100}, stocks={"A1": 1, "A2": 1})
    ledger = Ledger(None)

    def sold(one, two, **more):
        offers = [offer("A1", one, 7, **more), offer("A2", two, 7)]
        return sell(system, base, secrets, ledger, offers)

    with run_market(shop, SYSTEMS[system][0]) as base:
        # The first look knows nothing: what stands there is asked.
        report = sold("1000", "120")
        assert at(shop) == ({"A1": 100, "A2": 120}, {"A1": 7, "A2": 7})
        (told,) = report.items
        assert (told.sku, told.state, told.code) == ("A1", "held", "price-jump")
        assert (told.before, told.value) == ("100", "1000")
        # Told once.
        report = sold("1000", "120")
        assert (report.held, report.items, report.sent) == (1, (), 0)
        report = sold("1000", "120", released=True)
        assert at(shop)[0]["A1"] == 1000
        # The node hears that what it was told of is right now.
        assert [(t.sku, t.state) for t in report.items] == [("A1", "confirmed")]
        report = sold("1000", "12")
        assert report.held == 1 and at(shop)[0]["A2"] == 120
        # Put right at the node: nothing waits any more.
        report = sold("1000", "121")
        assert report.held == 0 and at(shop)[0]["A2"] == 121


def test_a_dry_run_sends_nothing_and_says_what_it_would(system, secrets):
    shop = Shop(prices={"A1": 100, "A2": 100}, stocks={"A1": 1, "A2": 1})
    ledger = Ledger(None)
    with run_market(shop, SYSTEMS[system][0]) as base:
        offers = [offer("A1", "110", 7), offer("A2", "900", 1)]
        for _ in range(2):
            report = sell(system, base, secrets, ledger, offers, dry_run=True)
            assert {(t.sku, t.what, t.code) for t in report.items} == {
                ("A1", "price", "would-send"), ("A1", "stock", "would-send"),
                ("A2", "stock", "would-send"), ("A2", "price", "price-jump"),
            }  # fmt: skip
            assert (report.sent, report.held, report.dry_run) == (3, 1, True)
    assert at(shop) == ({"A1": 100, "A2": 100}, {"A1": 1, "A2": 1})
    assert not any(c.startswith("PUT") or "upload" in c or "update" in c for c in shop.calls)


def test_what_one_item_is_refused_for_does_not_stop_the_others(system, secrets):
    shop = Shop(prices=dict.fromkeys(NAMES, 100), stocks=dict.fromkeys(NAMES, 0))
    shop.refuses["A2"] = "NOT_FOUND"
    ledger = Ledger(None)
    with run_market(shop, SYSTEMS[system][0]) as base:
        offers = [offer(n, "110", 3, revision="1") for n in NAMES]
        report = sell(system, base, secrets, ledger, offers)
        prices, stocks = at(shop)
        assert {prices[n] for n in NAMES if n != "A2"} == {110} and prices["A2"] == 100
        assert {stocks[n] for n in NAMES if n != "A2"} == {3}
        refused = {(t.sku, t.what) for t in report.items}
        expected = {("A2", "price")} if system == "yandex_market" else {("A2", "price"), ("A2", "stock")}  # fmt: skip
        assert refused == expected and report.refused == len(expected)
        assert all(t.detail or t.code for t in report.items)
        report = sell(system, base, secrets, ledger, offers)
        assert (report.sent, report.items) == (0, ())
        clock = Clock()
        clock.at = 30_000.0
        report = sell(system, base, secrets, ledger, offers, clock)
        # Tried again after hours; it was told of before.
        assert (report.sent, report.items) == (len(expected), ())
        # Somebody has put it right and asks for it again.
        shop.refuses.clear()
        offers = [offer(n, "110", 3, revision="2") for n in NAMES]
        report = sell(system, base, secrets, ledger, offers)
        assert [(t.sku, t.state) for t in report.items] == [("A2", "confirmed")]
    assert at(shop)[0]["A2"] == 110


@pytest.mark.parametrize("name", ["yandex_market", "wildberries"])
def test_what_is_swallowed_is_sent_again_and_told_of(name, secrets):
    shop = Shop(prices={"A1": 100}, stocks={"A1": 5})
    shop.swallows.add("A1")
    ledger, clock = Ledger(None), Clock()
    with run_market(shop, SYSTEMS[name][0]) as base:
        told = []
        for _ in range(5):
            told += sell(name, base, secrets, ledger, [offer("A1", "110", 5)], clock).items
            clock.sleep(5_000)
        (only,) = [t for t in told if t.what == "price"]
        assert (only.code, only.before, only.value) == ("not-confirmed", "100", "110")
        shop.swallows.clear()
        report = sell(name, base, secrets, ledger, [offer("A1", "110", 5)], clock)
    assert at(shop)[0] == {"A1": 110} and report.confirmed >= 1


def test_what_is_no_offer_any_more_goes_off_sale_unless_too_much_of_it(secrets):
    names = [f"B{n:02}" for n in range(30)]
    shop = Shop(prices=dict.fromkeys(names, 100), stocks=dict.fromkeys(names, 0))
    ledger = Ledger(None)
    with run_market(shop, SYSTEMS["ozon"][0]) as base:
        offers = [offer(n, "110", 3) for n in names]
        sell("ozon", base, secrets, ledger, offers)
        sell("ozon", base, secrets, ledger, offers[2:])
        assert [n for n in names if shop.stocks[n] == 0] == names[:2]
        with pytest.raises(Trouble, match="mass-removal"):
            sell("ozon", base, secrets, ledger, [offer(names[-1], "110", 5)])
        # The others are served all the same, and nothing is taken off.
        assert (shop.stocks[names[-1]], shop.stocks[names[5]]) == (5, 3)
        assert sell("ozon", base, secrets, ledger, offers).confirmed == 3


def test_ozon_is_not_asked_for_the_same_stock_within_two_minutes(secrets):
    shop = Shop(prices={"A1": 100}, stocks={"A1": 1})
    ledger, clock = Ledger(None), Clock()
    clock.at = 1_000.0

    def once(stock):
        place, api, _ = open_shop("ozon", base, secrets)
        selling = Selling(channel("ozon"), OzonMarket(place, api), ledger, worker="w", now=clock)
        selling.want([offer("A1", None, stock)])
        return selling.push()

    with run_market(shop, SYSTEMS["ozon"][0]) as base:
        once(2)
        for stock in (3, 4, 5):
            clock.sleep(10)
            assert once(stock).sent == 0 and shop.stocks["A1"] == 2
        clock.sleep(100)
        # The newest wins; those in between were never sent.
        assert once(6).sent == 1 and shop.stocks["A1"] == 6
        shop.refuses["A1"] = "TOO_MANY_REQUESTS"
        clock.sleep(200)
        report = once(7)
        assert (report.refused, report.items, shop.stocks["A1"]) == (0, (), 6)
        shop.refuses.clear()
        clock.sleep(200)
        assert once(7).confirmed == 1 and shop.stocks["A1"] == 7


def test_wildberries_takes_whole_prices_and_what_a_card_has(secrets):
    shop = Shop(prices={"A1": 100}, stocks={"A1": 1})
    with run_market(shop, SYSTEMS["wildberries"][0]) as base:
        market = open_market("wildberries", base, secrets)
        said = {
            o.offer: o.code
            for o in send_apart(market.send, "price", [Wanted("A1", Decimal("99.50")), Wanted("B", Decimal(5))])
        }  # fmt: skip
        assert said == {"A1": "price-not-whole", "B": "unmapped"}
        # A barcode of its only size stands for the card; an old price becomes a whole discount.
        (done,) = market.send("price", [Wanted("2000000", Decimal(80), old=Decimal(100))])
        assert (done.state, shop.prices["A1"]) == ("taken", 80)
        market.close()


class Told:
    """As much of a node as a look at a channel needs."""

    def __init__(self, *offers, **more):
        self.offers, self.reports = offers, []
        self.channel = channel("ozon", name="Наш Ozon", **more)

    async def list_channels(self):
        return (self.channel,)

    async def list_offers(self, ident, after):
        at = int(after or 0)
        return Offers(offers=self.offers[at : at + 1], next=str(at + 1) if at + 1 < len(self.offers) else None)  # fmt: skip

    async def report(self, ident, report):
        self.reports.append(report)


def test_a_look_tells_the_node_also_what_broke_it_off(secrets, tmp_path):
    shop = Shop(prices={"A1": 100, "A2": 100}, stocks={"A1": 1, "A2": 1})
    with run_market(shop, SYSTEMS["ozon"][0]) as base:
        place = open_shop("ozon", base, secrets)[0]
        source = Source(key="ozon", channel="Наш Ozon", place=place)
        node = Told(offer("A1", "110", 7), offer("A2", "110", 8))
        shop.faults.extend(["html"] * 12)

        def once(node, **more):
            return asyncio.run(
                look(node, source, tmp_path, "w", open_shop=lambda: open_market("ozon", base, secrets), **more)
            )  # fmt: skip

        with pytest.raises(Trouble, match="not-json"):
            once(node)
        assert node.reports[0].detail.startswith("not-json") and shop.stocks["A1"] == 1
        report = once(node)
        assert (report.confirmed, report.dry_run) == (4, False)
        assert at(shop) == ({"A1": 110, "A2": 110}, {"A1": 7, "A2": 8})
        once(node)
        assert len(node.reports) == 2
        assert once(Told(active=False)) is None
        with pytest.raises(Trouble, match="channel-wrong"):
            wrong = Told()
            wrong.channel = channel("wildberries", name="Наш Ozon")
            once(wrong)
    assert (tmp_path / "channels" / "ozon.sqlite").stat().st_mode & 0o777 == 0o600


def speak_node(reports):
    """As much of a node over HTTP as a worker with one channel asks for."""
    view = {"id": "c1", "name": "Ozon", "system": "ozon", "dry_run": False, "currency": "RUB", "max_change_share": "0.5"}  # fmt: skip
    offers = [{"sku": f"A{n}", "price": "110", "available": "4", "revision": "1"} for n in range(3)]

    def speak(method, path, params, body):
        if path.endswith("/offers"):
            return 200, {"offers": offers, "next": None}, {}
        if path.endswith("/reports"):
            reports.append(body)
            return 201, {"is_new": True}, {}
        return (200, {"channels": [view]}, {}) if path == "/api/v1/channels" else (204, None, {})

    return speak


@pytest.mark.slow
def test_a_worker_that_is_killed_between_the_sending_and_the_answer_gets_to_the_same_end(
    secrets, tmp_path
):
    shop, reports = Shop(prices=dict.fromkeys(NAMES, 100), stocks=dict.fromkeys(NAMES, 0)), []
    key = tmp_path / "key"
    key.write_text("nxs_k")
    key.chmod(0o600)
    with (
        run_market(shop, SYSTEMS["ozon"][0]) as base,
        run_market(Shop(), lambda _: speak_node(reports)) as node,
    ):
        (tmp_path / "sources.toml").write_text(
            f"""[[channel]]
            key = "ozon"
            channel = "Ozon"
            place = {{ type = "ozon", client_id = "7", warehouse_id = 22, secrets_file = "{secrets}", base = "{base}", allowed = ["127.0.0.1"] }}"""
        )  # fmt: skip
        words = [
            sys.executable, "-m", "connectors", "work", "--node", node, "--key-file", str(key),
            "--name", "w", "--sources", str(tmp_path / "sources.toml"),
            "--data", str(tmp_path / "data"), "--once",
        ]  # fmt: skip
        for _ in range(2):
            # Stocks, then prices: done there, and nobody is left to hear it.
            shop.hangs.clear()
            shop.released.clear()
            shop.faults.append("hang")
            child = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL)
            assert shop.hangs.wait(60)
            child.kill()
            child.wait(10)
            shop.released.set()
        assert reports == []
        subprocess.run(words, cwd=ROOT, check=True, timeout=120, stderr=subprocess.DEVNULL)
    assert at(shop)[0] == {"A0": 110, "A1": 110, "A2": 110, "A3": 100}
    assert at(shop)[1] == {"A0": 4, "A1": 4, "A2": 4, "A3": 0}
    (report,) = reports
    assert (report["held"], report["refused"], report["items"]) == (0, 0, [])
