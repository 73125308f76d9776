"""A channel all the way: its orders come in by its SKUs, its prices and stock go out to the shop."""

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from uuid import UUID

import pytest


from appliance.access.acting import act_as
from appliance.kernel.context import Door
from connectors.sdk.channels import read_channels
from connectors.work.node import Node
from connectors.work.pushing import look as look_at_channel
from connectors.work.settings import Selling, Worker
from tests.channels.firm import Seller
from tests.connectors.markets_server import Shop, run_market
from tests.connectors.test_markets import IN, look, open_shop, order, secrets
from tests.connectors.test_selling import at, open_market
from tests.http.test_channels import API, Place, place
from tests.http.test_prices import shop
from tests.intake.test_intake import Desk

__all__ = ["place", "secrets", "shop"]
pytestmark = pytest.mark.anyio
SYSTEM = "ozon"


async def orders(firm):
    """Orders as they stand: state, and their lines."""
    found = await firm.sql(
        "SELECT o.data->>'state', p.data->>'sku', l.data->>'quantity', l.data->>'unit_price' "
        "FROM record l JOIN record o ON o.id = (l.data->>'order')::uuid "
        "JOIN record p ON p.id = (l.data->>'product')::uuid "
        "WHERE l.kind = 'order_line' AND l.deleted_at IS NULL ORDER BY 1, 2, 3"
    )
    return [(s, p, Decimal(q), Decimal(u)) for s, p, q, u in found]


@pytest.fixture
async def asks(place):
    """What a worker knows of the node, by a key for it."""
    made = Worker(name="w", node="http://node", key="k", data=None)
    found = Node(made, "a" * 64)
    await found._http.aclose()
    yield found
    await found._http.aclose()


async def test_orders_come_in_and_prices_and_stock_go_out(place, asks, secrets, tmp_path):
    await place.start(system=SYSTEM, source=SYSTEM, currency="RUB", name="Ozon")
    seller = place.seller
    for n in range(3):
        ident = await seller.product(f"Tea {n}", f"T{n}", None, {seller.north: "9"}, ref=False)
        await seller.make("price", product=ident, price_type=seller.types["retail"], price="110", currency="RUB")  # fmt: skip
        await seller.refer(ident, f"A{n}", system=SYSTEM)
    asks._http = place.client(place.worker.headers)
    asks._http.base_url = f"http://node{API}"
    there = Shop(prices={f"A{n}": 100 for n in range(3)}, stocks={f"A{n}": 0 for n in range(3)})
    there.orders = [order(SYSTEM, n, 40 - n) for n in range(1, 6)]
    with run_market(there, IN[SYSTEM][0]) as base:
        source = Selling(key="ozon", channel="Ozon", place=open_shop(SYSTEM, base, secrets)[0])

        async def sell():
            return await look_at_channel(
                asks, source, tmp_path, "w", open_shop=lambda: open_market(SYSTEM, base, secrets)
            )

        there.faults.extend(["503", "cut", "lost"])
        report = await sell()
        assert at(there) == ({f"A{n}": 110 for n in range(3)}, {f"A{n}": 9 for n in range(3)})
        assert (report.sent, report.confirmed, report.items) == (6, 6, ())
        assert (await sell()).sent == 0

        # A slip of the keyboard at the marketplace's side of the node is held at the worker.
        there.prices["A1"] = 10
        (tmp_path / "channels" / "ozon.sqlite").unlink()
        report = await sell()
        assert [(t.sku, t.state, t.code) for t in report.items] == [("A1", "held", "price-jump")]
        (view,) = read_channels((await place.worker.get(f"{API}/channels")).content)
        assert view.max_change_share == Decimal("0.5")
        waiting = (await place.worker.get(f"{place.path}/waiting")).json()
        assert [w["sku"] for w in waiting["prices"] + waiting["letters"]] == ["A1"]
        answer = await place.worker.post(f"{place.path}/release", json={"prices": ["A1"]})
        assert answer.status_code < 300, answer.text
        report = await sell()
        assert (there.prices["A1"], [(t.sku, t.state) for t in report.items]) == ("110", [("A1", "confirmed")])  # fmt: skip

        path = await asyncio.to_thread(look, SYSTEM, base, secrets, tmp_path)
    firm = seller.firm
    (profile,) = await firm.sql(
        "SELECT id::text FROM record WHERE kind = 'sys.profile' AND data->>'key' = 'owner'"
    )
    ctx = await act_as(
        place.db, firm.id, firm.people["owner"], UUID(profile[0]), frozenset({firm.units["head"]}),
        origin=1, door=Door.INTAKE,
    )  # fmt: skip
    desk = Desk(SimpleNamespace(db=place.db, id=firm.id, sql=firm.sql), tmp_path, ctx)
    made = await desk.bring(path.read_bytes(), source=SYSTEM, connector=SYSTEM)
    assert made.counts.get("faulty", 0) == 0, [r.faults for r in await desk.rows(made, "faulty")]
    await desk.approve(made)
    staged = await orders(firm)
    assert sorted(staged) == sorted(
        ("shipped", f"T{o['lines'][0][0][1]}", Decimal(o["lines"][0][1]), Decimal(o["lines"][0][2]))
        for o in there.orders
    )  # fmt: skip
    again = await desk.bring(path.read_bytes(), source=SYSTEM, connector=SYSTEM)
    assert not {"new", "changed", "faulty"} & {k for k, v in again.counts.items() if v}
