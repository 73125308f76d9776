"""How replication stands, as both sides tell it, and as Prometheus hears it."""

import httpx
import pytest

from appliance.sync.status import read_status
from tests.sync.pair import records
from tests.tenants import create

pytestmark = pytest.mark.anyio
KIND = "deal"


async def peer_at(tenant, redis, node):
    state = await read_status(tenant.db, redis, tenant.id)
    return next(p for p in state.peers if p.node == node)


async def test_both_sides_say_what_the_other_lacks(pair):
    redis, me, hub = pair.node.redis, pair.parts.me.id, pair.parts.hub.id
    await pair.hub.add_kind(KIND, [("title", "text")])
    await pair.sync()
    # The next hello says how far the answers of the last conversation led.
    await pair.sync()
    await pair.hub.apply(*[create(KIND, title=f"deal {n}") for n in range(3)])
    await pair.site.apply(create(KIND, title="of the branch"))
    at_hub = await peer_at(pair.hub, redis, me)
    at_site = await peer_at(pair.site, redis, hub)
    assert (at_hub.lag, at_hub.role, at_hub.state) == (3, "site", "active")
    assert (at_site.backlog, at_site.role) == (1, "hub")
    assert at_hub.protocol == 1 and at_hub.received and at_hub.sent
    assert at_hub.seen_at is not None

    await pair.sync()
    await pair.sync()
    at_hub = await peer_at(pair.hub, redis, me)
    at_site = await peer_at(pair.site, redis, hub)
    assert (at_hub.lag, at_site.backlog, at_hub.parked) == (0, 0, 0)
    assert {s.name for s in at_hub.streams} == {s.name for s in at_site.streams}
    assert await records(pair.hub, KIND) == await records(pair.site, KIND)

    async with httpx.AsyncClient(transport=pair.line, base_url="http://hub") as client:
        text = (await client.get("/metrics")).text
    name = pair.parts.me.name
    lines = [line for line in text.splitlines() if f'node="{name}"' in line]
    found = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines}
    assert found["nexus_sync_lag_entries"] == 0.0
    assert found["nexus_sync_parked"] == 0.0
    assert 0 <= found["nexus_sync_last_seen_seconds"] < 60


async def test_a_clock_that_is_off_is_said_and_nothing_is_refused(pair, monkeypatch):
    from appliance.sync import hello

    class Ahead:
        time_ns = staticmethod(lambda: __import__("time").time_ns() + 5 * 3_600 * 10**9)
        monotonic = staticmethod(__import__("time").monotonic)

    monkeypatch.setattr(hello, "time", Ahead)
    talk = await pair.sync()
    assert [n.code for n in talk.notices] == ["clock.off"]
    assert talk.notices[0].value == pytest.approx(18_000, abs=5)
    at_hub = await peer_at(pair.hub, pair.node.redis, pair.parts.me.id)
    assert at_hub.clock_off_s == pytest.approx(18_000, abs=5)
    assert at_hub.notices == ["clock.off"]
