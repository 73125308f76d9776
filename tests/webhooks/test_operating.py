"""What people do with a webhook: pause, replay, new secrets, a test; and a worker that is killed."""

import asyncio
import dataclasses
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.base.roles import Role
from appliance.http.app import create_app
from appliance.webhooks.secrets import Box
from appliance.work.maintain import forget_old
from appliance.work.node import WorkNode
from tests.http.conftest import client_of
from tests.webhooks.conftest import LOCAL, couriers
from tests.webhooks.receiver import receiving, signed_by

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).resolve().parents[2]


async def test_pause_replay_rotate_ping(desk, courier, tmp_path):
    async with receiving() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/"
        ident = await desk.make(0, url=url, watch={"actions": ["created", "deleted"]})
        event = (await desk.call("POST", f"/{ident}/ping", 202))["id"]
        await receiver.until(lambda: receiver.got)
        assert receiver.ids() == [event] and receiver.got[0].event["data"] == {}
        before = (await desk.state(ident))["cursor"]
        first = await desk.deal(title="first")
        await receiver.until(lambda: len(receiver.got) == 2)
        # What happens while it is paused is told afterwards, once.
        await desk.call("POST", f"/{ident}/pause")
        await desk.call("POST", f"/{ident}/ping", 409)
        moment = datetime.now(UTC).isoformat()
        deals = [first, *[await desk.deal(title=f"paused {n}") for n in range(3)]]
        await desk.record("PATCH", f"deal/{first}", fields={"title": "not asked for"})
        await desk.record("DELETE", f"deal/{first}")
        assert len(receiver.got) == 2
        await desk.call("POST", f"/{ident}/resume")
        await receiver.until(lambda: len(receiver.got) == 6)
        told = [(g.type, g.event["data"]["id"]) for g in receiver.got[1:]]
        want = [*[("deal.created", d) for d in deals], ("deal.deleted", first)]
        assert sorted(told) == sorted(want), "in order for each record; among several in any"
        # Behind a moment: what the deleted one was when it was made is not to be known any more.
        await desk.call("POST", f"/{ident}/replay", 202, since=moment)
        await receiver.until(lambda: len(receiver.got) == 10)
        assert sorted(receiver.ids()[6:]) == sorted(receiver.ids()[2:6])
        await desk.call("POST", f"/{ident}/replay", 202, cursor=before)
        await receiver.until(lambda: len(receiver.got) == 14)
        assert sorted(receiver.ids()[10:]) == sorted(receiver.ids()[2:6])
        await desk.call("POST", f"/{ident}/replay", 202, events=[receiver.ids()[3]])
        await receiver.until(lambda: len(receiver.got) == 15)
        for wrong in ({}, {"since": moment, "dead": True}, {"cursor": "x"}, {"events": ["x"]},
                      {"since": "2026-01-01T00:00:00"}):  # fmt: skip
            await desk.call("POST", f"/{ident}/replay", 422, **wrong)
        # Both secrets sign while they overlap.
        old = desk.secrets[ident]
        made = await desk.call("POST", f"/{ident}/rotate", 201, overlap_hours=1)
        await desk.call("POST", f"/{ident}/ping", 202)
        await receiver.until(lambda: len(receiver.got) == 16)
        last = receiver.got[-1]
        assert (signed_by(last, old), signed_by(last, made["secret"])) == (1, 1) and old != made[
            "secret"
        ]
        made = await desk.call("POST", f"/{ident}/rotate", 201, overlap_hours=0)
        await desk.call("POST", f"/{ident}/ping", 202)
        await receiver.until(lambda: len(receiver.got) == 17)
        last = receiver.got[-1]
        assert (signed_by(last, old), signed_by(last, made["secret"])) == (0, 1)
    # Nothing of a secret is readable in the database, nor of what records hold.
    rows = await desk.firm.tenant.sql("SELECT w::text FROM webhook w UNION ALL SELECT e::text FROM webhook_event e")  # fmt: skip
    for text in (made["secret"], made["secret"][6:40], "first", "paused"):
        assert text not in str(rows)
    metrics = await client_of(desk.web._transport.app).get("/metrics")
    assert re.search(
        r'nexus_webhook_tries{outcome="delivered",placement="nexus_pool"} [1-9]', metrics.text
    )
    assert re.search(r'nexus_webhooks{placement="nexus_pool",state="active"} [1-9]', metrics.text)


async def test_what_left_the_log_is_said_to_be_missed_and_old_deliveries_are_forgotten(desk, courier, as_owner):  # fmt: skip
    tenant = desk.firm.tenant.id
    async with receiving() as receiver:
        ident = await desk.make(0, url=f"http://127.0.0.1:{receiver.port}/")
        await desk.deal(title="a")
        await receiver.until(lambda: receiver.got)
        await desk.until(ident, lambda s: s["lag"] == 0)
        await desk.call("POST", f"/{ident}/pause")
        await as_owner(tenant, "UPDATE webhook SET cursors = (SELECT jsonb_object_agg(key, 1) "
                       "FROM jsonb_each(cursors)) WHERE id = %s", ident)  # fmt: skip
        await as_owner(
            tenant, "UPDATE stream SET floor = 2 WHERE tenant_id = %s AND head > 2", tenant
        )
        await desk.call("POST", f"/{ident}/resume")
        seen = await desk.until(ident, lambda s: s["missed_at"] and s["lag"] == s["waiting"] == 0)
        assert seen["state"] == "active"
        await as_owner(tenant, "UPDATE stream SET floor = 0 WHERE tenant_id = %s", tenant)
        await as_owner(tenant, "UPDATE webhook_event SET last_at = now() - interval '4 days'")
        kept = WorkNode(db=desk.node.db, redis_url="", name="x", origin=1, seal=None)
        assert await forget_old(kept) and not await desk.deliveries(ident)


async def test_webhooks_are_of_the_head_office(desk):
    """At a site there are none to be had, and its worker delivers none."""
    site = create_app(dataclasses.replace(desk.node, role=Role.SITE))
    async with client_of(site) as web:
        web.headers["Authorization"] = desk.web.headers["Authorization"]
        assert (await web.get("/api/v1/webhooks")).status_code == 404


class Child:
    """A worker of its own, to be killed."""

    def __init__(self, dsns, redis_url, data):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.webhooks.child", dsns.control_dsn, dsns.pool_dsn,
             redis_url, str(data), LOCAL], cwd=ROOT, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    async def kill(self):
        self.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self.process.wait, 30)


async def test_kill_9_of_the_worker_loses_nothing_and_repeats_under_the_same_id(
    desk, dsns, valkey_url, tmp_path, as_owner  # noqa: F811
):  # fmt: skip
    stuck = asyncio.Event()

    async def hold(writer):
        stuck.set()
        await asyncio.sleep(30)

    rules = [lambda got: None, lambda got: hold]
    async with receiving(rule=lambda got: rules[min(len(receiver.got) - 1, 1)](got)) as receiver:
        ident = await desk.make(0, url=f"http://127.0.0.1:{receiver.port}/")
        deal = await desk.deal(title="one")
        await desk.record("PATCH", f"deal/{deal}", fields={"title": "two"})
        others = [await desk.deal(title=f"other {n}") for n in range(3)]
        child = Child(dsns, valkey_url, tmp_path)
        try:
            # The first was taken; the worker dies while others are on their way.
            async with asyncio.timeout(20):
                await stuck.wait()
            await child.kill()
            before = receiver.ids()
            receiver.rule = None
            # Not waiting for the real lease to run out: its end is what is simulated.
            await as_owner(None, "UPDATE webhook SET lease_until = now() WHERE id = %s", ident)
            child = Child(dsns, valkey_url, tmp_path)
            await desk.until(ident, lambda s: s["delivered"] == 5 and not s["waiting"], 20)
        finally:
            await child.kill()
    assert set(before[1:]) <= set(receiver.ids()[len(before) :]), "what was on its way comes again"
    assert len(set(receiver.ids())) == 5
    of_deal = [g.type for g in receiver.got if g.event["data"]["id"] == deal]
    assert of_deal == sorted(of_deal) and of_deal[-1] == "deal.updated"
    assert {g.event["data"]["id"] for g in receiver.got} == {deal, *others}


async def test_a_database_without_its_key_signs_nothing(desk, valkey_url, tmp_path):  # noqa: F811
    """As after a restore on another machine: it stops, says so, and goes on with a new secret."""
    async with receiving() as receiver:
        ident = await desk.make(0, url=f"http://127.0.0.1:{receiver.port}/")
        path = desk.node.settings.data_dir / "webhook.key"
        assert path.stat().st_mode & 0o777 == 0o600
        path.unlink()
        box = Box(path)
        desk.node.webhook_box = box
        async with couriers(desk.post, valkey_url):
            await desk.deal(title="x")
            seen = await desk.until(ident, lambda s: s["state"] == "failing")
            assert seen["reason"].startswith("secret.unreadable") and not receiver.got
            made = await desk.call("POST", f"/{ident}/rotate", 201, overlap_hours=1)
            await desk.call("POST", f"/{ident}/resume")
            await receiver.until(lambda: receiver.got)
        assert signed_by(receiver.got[0], made["secret"]) == 1
