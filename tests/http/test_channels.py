"""A channel through the public contract: offers to a worker, its reports, a feed that is polled."""

import asyncio
import json
from base64 import b64encode
from types import SimpleNamespace

import httpx
import pytest
from lxml import etree

from appliance.base.ids import uuid7
from appliance.work import maintain
from appliance.work.actors.channels import make
from tests.channels.firm import Seller
from tests.http.test_door import assert_problem
from tests.http.test_prices import API, shop  # noqa: F401 - the fixture

pytestmark = pytest.mark.anyio


class Run:
    async def report(self, done, total):
        assert done == total


class Place:
    """A seller, a worker's client and a marketplace's, and the job that makes feeds."""

    def __init__(self, shop, db, app, tmp_path):  # noqa: F811
        self.shop, self.db, self.app, self.data = shop, db, app, tmp_path
        self.seller = Seller(db, shop.firm)

    async def start(self, **channel):
        await self.seller.start(**channel)
        self.path = f"{API}/channels/{self.seller.channel}"
        keys = {}
        for name in ("worker", "market"):
            body = {"label": name, "profile": "owner", "days": 30}
            made = await self.shop.client.post(f"{API}/keys", json=body)
            assert made.status_code == 201, made.text
            keys[name] = made.json()["token"]
        self.worker = self.client({"Authorization": f"Bearer {keys['worker']}"})
        basic = b64encode(f"anybody:{keys['market']}".encode()).decode()
        self.market = self.client({"Authorization": f"Basic {basic}"})
        return self

    def client(self, headers):
        transport = httpx.ASGITransport(app=self.app, client=("127.0.0.1", 1))
        return httpx.AsyncClient(transport=transport, base_url="http://node", headers=headers)

    async def offers(self, **params):
        answer = await self.worker.get(f"{self.path}/offers", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def feed(self, headers=None, **params):
        return await self.market.get(f"{self.path}/feed", params=params, headers=headers)

    async def work(self):
        """Do the jobs that wait; how many there were."""
        rows = await self.shop.firm.sql(
            "SELECT id::text, payload::text FROM outbox WHERE topic = 'job.channels.feed' ORDER BY id"
        )
        node = SimpleNamespace(db=self.db, origin=1, data_dir=self.data)
        for _, text in rows:
            payload = json.loads(text)
            await make(node, self.shop.firm.id, payload.get("payload", payload), Run())
        await self.sql("DELETE FROM outbox WHERE topic = 'job.channels.feed'")
        return len(rows)

    async def sql(self, text, *params):
        from appliance.db.wire import Statement

        async with self.db.transaction(self.shop.firm.id) as tx:
            await tx.run((Statement(text), params))

    async def old(self):
        """As if the feeds had been made long ago."""
        await self.sql("UPDATE channel_feed SET made_at = now() - interval '1 hour'")


@pytest.fixture
async def place(shop, db, app, node, tmp_path):  # noqa: F811
    found = Place(shop, db, app, node.settings.data_dir)
    yield found
    await asyncio.gather(found.worker.aclose(), found.market.aclose())


async def test_a_worker_sends_what_has_changed_and_reports(place):
    await place.start(price_change_max="50")
    seller = place.seller
    ids = [await seller.product(f"Tea {n}", f"T{n}", "100", {seller.north: "9"}) for n in range(5)]
    (view,) = (await place.worker.get(f"{API}/channels")).json()["channels"]
    assert (view["name"], view["dry_run"], view["warehouses"]) == ("Main", False, 2)
    pages, after = [], ""
    while after is not None:
        page = await place.offers(limit=2, after=after)
        pages.append(page)
        after = page["next"]
    assert [len(p["offers"]) for p in pages] == [2, 2, 1]
    assert [o["sku"] for p in pages for o in p["offers"]] == [f"m-T{n}" for n in range(5)]
    as_of = {p["as_of"] for p in pages}
    assert len(as_of) == 1
    lines = await place.worker.get(
        f"{place.path}/offers", headers={"Accept": "application/x-ndjson"}
    )
    told = [json.loads(line) for line in lines.text.splitlines()]
    assert told == [o for p in pages for o in p["offers"]]
    first = pages[0]["as_of"]
    # Nothing has changed since; then stock, a price that jumps, one that is gone.
    now = (await place.offers(changed_since=first))["as_of"]
    assert (await place.offers(changed_since=now))["offers"] == []
    await seller.move(ids[0], seller.north, "-4")
    await seller.price(ids[1], "1000")
    await seller.change("product", ids[2], archived=True)
    changed = {o["sku"]: o for o in (await place.offers(changed_since=now))["offers"]}
    assert set(changed) == {"m-T0", "m-T1", "m-T2"}
    assert (changed["m-T0"]["available"], changed["m-T1"]["price"]) == ("5", "100.00")
    assert changed["m-T1"]["held"] == {"code": "price-jump", "price": "1000.00"}
    assert changed["m-T2"]["is_gone"] and changed["m-T2"]["available"] == "0"
    report = {
        "id": str(uuid7()), "started_at": "2026-11-21T10:00:00Z", "worker": "w", "sent": 3, "confirmed": 1,
        "refused": 2, "items": [
            {"sku": "m-T0", "state": "refused", "code": "NO_CARD", "detail": "no such card"},
            {"sku": "m-T1", "state": "refused", "code": "NO_CARD"}, {"sku": "m-T2", "state": "confirmed"},
        ],
    }  # fmt: skip
    for is_new in (True, False):
        kept = await place.worker.post(f"{place.path}/reports", json=report)
        assert (kept.status_code, kept.json()) == (201, {"is_new": is_new}), kept.text
    await place.worker.post(f"{place.path}/reports", json={
        "id": str(uuid7()), "started_at": "2026-11-21T10:05:00Z", "refused": 1, "items": [{"sku": "m-T1", "state": "confirmed"}],
    })  # fmt: skip
    waiting = (await place.shop.client.get(f"{place.path}/waiting")).json()
    assert [(x["sku"], x["code"], x["times"]) for x in waiting["letters"]] == [
        ("m-T0", "NO_CARD", 1)
    ]
    assert [(p["sku"], p["price"], p["wanted"]) for p in waiting["prices"]] == [
        ("m-T1", "100.00", "1000.00")
    ]
    listed = (await place.shop.client.get(f"{place.path}/reports")).json()["rows"]
    assert [r["refused"] for r in listed] == [1, 2]
    # Asked for again, both are given as changed; the price as the person wants it.
    now = (await place.offers())["as_of"]
    again = await place.shop.client.post(f"{place.path}/replay", json={"skus": []})
    assert again.json() == {"count": 1}
    released = await place.shop.client.post(f"{place.path}/release", json={"prices": ["m-T1"]})
    assert released.json() == {"count": 1}
    found = {o["sku"]: o for o in (await place.offers(changed_since=now))["offers"]}
    assert set(found) == {"m-T0", "m-T1"} and found["m-T1"]["price"] == "1000.00"
    assert found["m-T0"]["revision"] != changed["m-T0"]["revision"]
    last = {o["sku"]: o for o in (await place.offers())["offers"]}
    assert (last["m-T1"]["held"], last["m-T1"]["released"]) == (None, True)
    # As workers tell it: what was asked for and is not told of by two looks has got through.
    look = {
        "worker": "w",
        "dry_run": False,
        "sent": 1,
        "confirmed": 1,
        "refused": 1,
        "held": 1,
        "left_off": 0,
    }
    jump = {"sku": "m-T3", "what": "price", "code": "price-jump", "value": "100", "before": "9"}
    assert (
        await place.worker.post(f"{place.path}/reports", json={**look, "items": [jump]})
    ).status_code == 201
    waiting = (await place.shop.client.get(f"{place.path}/waiting")).json()["letters"]
    assert [(x["sku"], x["field"], x["state"], x["detail"]) for x in waiting] == [
        ("m-T0", "", "asked", "no such card"), ("m-T3", "price", "waiting", "9 → 100"),
    ]  # fmt: skip
    # What only the worker holds is released by the same word.
    released = await place.shop.client.post(f"{place.path}/release", json={"all_prices": True})
    assert released.json() == {"count": 1}
    assert {o["sku"]: o["released"] for o in (await place.offers())["offers"]}["m-T3"]
    await place.worker.post(f"{place.path}/reports", json={**look, "items": []})
    waiting = (await place.shop.client.get(f"{place.path}/waiting")).json()["letters"]
    assert [x["sku"] for x in waiting] == ["m-T3"]
    await place.worker.post(
        f"{place.path}/reports", json={**look, "refused": 0, "held": 0, "items": []}
    )
    assert (await place.shop.client.get(f"{place.path}/waiting")).json()["letters"] == []


async def refusals(place):
    """A channel in its dry run, and questions that are none."""
    assert (await place.offers())["dry_run"]
    assert await place.shop.firm.sql("SELECT 1 FROM channel_offer") == []
    assert_problem(await place.feed(), 409, "channel.dry_run")
    nobody = place.client({})
    refused = await nobody.get(f"{place.path}/feed")
    assert_problem(refused, 401, "session.missing")
    assert refused.headers["www-authenticate"].startswith("Basic")
    assert_problem(
        await place.worker.get(f"{API}/channels/{uuid7()}/offers"), 404, "channel.unknown"
    )
    assert_problem(await place.feed(format="xls"), 422, "request.parameter")
    for body in ({"items": [{"sku": "a", "state": "done"}]}, {"sent": -1}):
        report = {"id": str(uuid7()), "started_at": "2026-11-21T10:00:00Z", **body}
        assert (await place.worker.post(f"{place.path}/reports", json=report)).status_code == 422
    bad = await place.worker.get(f"{place.path}/offers", params={"after": "x"})
    assert_problem(bad, 422, "query.bad_cursor")
    await nobody.aclose()


async def test_a_feed_is_published_whole_held_and_released(place):
    await place.start(shrink_max="20", dry_run=True)
    seller = place.seller
    await refusals(place)
    await seller.change("sales_channel", seller.channel, dry_run=False)
    ids = [await seller.product(f"Tea {n}", f"T{n}", "100", {seller.north: "9"}) for n in range(5)]
    await seller.product("Free", "F", None)
    assert_problem(await place.feed(), 503, "channel.feed_unready")
    assert_problem(await place.feed(), 503, "channel.feed_unready")
    assert await place.work() == 1
    served = await place.feed()
    assert served.status_code == 200, served.text
    assert int(served.headers["content-length"]) == len(served.content)
    tree = etree.fromstring(served.content)
    assert [o.get("id") for o in tree.iter("offer")] == [f"m-T{n}" for n in range(5)]
    assert {c.text for c in tree.iter("category")} == {"Tea"} and await place.work() == 0
    tag, at = served.headers["etag"], served.headers["last-modified"]
    for headers in ({"If-None-Match": f'W/{tag}, "x"'}, {"If-Modified-Since": at}):
        assert (await place.feed(headers)).status_code == 304
    assert (await place.feed({"If-None-Match": '"x"', "If-Modified-Since": at})).status_code == 200
    # Two of five are gone: the last feed goes on being served until somebody looks.
    for ident in ids[:2]:
        await seller.change("product", ident, archived=True)
    await place.old()
    assert (await place.feed({"If-None-Match": tag})).status_code == 304
    assert await place.work() == 1
    held = await place.feed()
    assert held.content == served.content and held.headers["x-feed-state"] == "held"
    await place.sql(
        "UPDATE channel_offer SET changed_at = now() - interval '31 days' WHERE is_gone"
    )
    node = SimpleNamespace(db=place.db)
    assert await maintain._repeat(node, place.shop.firm.id, maintain._OLD_GONE, 30) == 2
    assert await place.shop.firm.sql("SELECT count(*)::text FROM channel_offer") == [["4"]]
    (view,) = (await place.worker.get(f"{API}/channels")).json()["channels"]
    (feed,) = view["feeds"]
    assert (feed["state"], feed["offers"], feed["held_offers"]) == ("held", 5, 3), feed
    waiting = (await place.shop.client.get(f"{place.path}/waiting")).json()
    assert [(x["form"], x["sku"], x["code"]) for x in waiting["letters"]] == [
        ("yml", "m-F", "no-price")
    ]
    released = await place.shop.client.post(f"{place.path}/release", json={"feed": "yml"})
    assert released.json() == {"count": 1}
    small = await place.feed()
    assert len(list(etree.fromstring(small.content).iter("offer"))) == 3
    assert small.headers["etag"] != tag and small.headers["x-feed-state"] == "published"
    # A feed of nothing is never served; a shop without its id has none.
    for ident in ids[2:]:
        await seller.change("product", ident, archived=True)
    await place.old()
    await place.feed()
    await place.work()
    assert (await place.feed()).content == small.content
    await seller.change("sales_channel", seller.channel, store=None)
    await place.feed(format="kaspi")
    await place.work()
    refused = await place.feed(format="kaspi")
    assert_problem(refused, 503, "channel.feed_unready")
    assert "store" in refused.json()["detail"]
    assert not [p for p in (place.data / "channels").rglob("*") if p.name.startswith(".")]


async def test_a_feed_is_not_that_of_who_may_see_more(place):
    """Two keys of different rights poll: each has its own file, made under its own rights."""
    await place.start()
    seller = place.seller
    await seller.product("Tea", "T1", "100", {seller.north: "9"}, brand="Leaf")
    await place.feed()
    await place.work()
    assert b"Leaf" in (await place.feed()).content
    # What is polled is made anew without waiting for the next poll.
    await maintain.renew_feeds(SimpleNamespace(db=place.db))
    assert await place.work() == 0
    await place.old()
    assert await maintain.renew_feeds(SimpleNamespace(db=place.db)) >= 1
    assert await place.work() == 1
    grant = await place.shop.first('sys.grant where kind = "product" and profile.key = "owner"')
    fields = {**grant["fields"]["fields"], "brand": "hidden"}
    await place.shop.edit(grant, fields=fields)
    assert_problem(await place.feed(), 503, "channel.feed_unready")
    await place.work()
    assert b"Leaf" not in (await place.feed()).content
