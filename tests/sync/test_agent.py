"""The agent of a site: it begins by itself, sends what is written at once, rests, and excludes itself."""

import asyncio
import contextlib

import pytest

from appliance.sync import agent as agents
from appliance.sync.health import ask_now, read_health
from appliance.sync.wake import ringing, wake
from tests.sync.pair import records, until
from tests.tenants import create

pytestmark = pytest.mark.anyio
KIND = "deal"


@contextlib.asynccontextmanager
async def running(agent):
    stop = asyncio.Event()
    task = asyncio.create_task(agent.follow(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)
        await agent.waker.close()


def has(tenant, text):
    async def look():
        return text in str(await records(tenant, KIND))

    return look


async def test_what_is_written_here_is_there_at_once_and_the_other_way(pair, tmp_path):
    await pair.hub.add_kind(KIND, [("title", "text")])
    agent = pair.agent(tmp_path / "site")
    async with ringing(pair.site.db, pair.node.redis), ringing(pair.hub.db, pair.node.redis):
        async with running(agent):
            await until(has_kind(pair.site))
            await asyncio.sleep(0.3)
            clock = asyncio.get_running_loop().time
            began = clock()
            await pair.site.apply(create(KIND, title="of the branch"))
            await until(has(pair.hub, "of the branch"))
            up = clock() - began
            began = clock()
            await pair.hub.apply(create(KIND, title="of the hub"))
            await until(has(pair.site, "of the hub"))
            down = clock() - began
    # Neither waits for a poll, which comes every 5 s here and every 2 s at the hub.
    assert up < 1.5 and down < 1.5, (up, down)


def has_kind(tenant):
    async def look():
        return await tenant.sql(
            "SELECT 1 FROM record WHERE tenant_id = $1 AND kind = 'sys.kind' "
            "AND data->>'key' = $2", tenant.id, KIND,
        )  # fmt: skip

    return look


async def test_only_one_of_two_agents_works_and_the_other_takes_over(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(agents, "LOOK_S", 0.1)
    first, second = pair.agent(tmp_path / "site"), pair.agent(tmp_path / "site")

    async def leads(one):
        return one.is_leading

    async with running(second):
        await until(lambda: leads(second))
        async with running(first):
            await asyncio.sleep(0.5)
            assert not first.is_leading
        assert second.is_leading
    async with running(first):
        await until(lambda: leads(first))


async def test_a_paused_node_keeps_still_until_it_is_told_to_go_on(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(agents, "LOOK_S", 0.1)
    data = tmp_path / "site"
    await pair.hub.add_kind(KIND, [("title", "text")])
    agents.set_paused(data, paused=True)
    agent = pair.agent(data)
    async with running(agent):
        await asyncio.sleep(0.6)
        assert not pair.line.asked
        agents.set_paused(data, paused=False)
        await until(has_kind(pair.site))
        agents.set_paused(data, paused=True)
        await until(lambda: rests(agent))
        asked = len(pair.line.asked)
        await pair.site.apply(create(KIND, title="later"))
        await asyncio.sleep(0.6)
        assert len(pair.line.asked) == asked
        agents.set_paused(data, paused=False)
        await until(has(pair.hub, "later"))


async def rests(agent):
    return not agent.is_leading


async def test_a_hub_that_is_away_is_waited_for_and_asked_when_somebody_says_so(
    pair, tmp_path, monkeypatch
):
    monkeypatch.setattr(agents, "LOOK_S", 0.1)
    await pair.hub.add_kind(KIND, [("title", "text")])
    pair.line.is_down = True
    agent = pair.agent(tmp_path / "site")
    hub, redis = pair.parts.hub.origin, pair.node.redis
    async with running(agent):

        async def failed():
            return (await read_health(redis, pair.hub.id, hub)).failures >= 2

        await until(failed, 20)
        health = await read_health(redis, pair.hub.id, hub)
        assert health.last_error == "sync.hub_unreachable"
        for loop in agent.loops.values():
            loop.back.failures = 9
        await asyncio.sleep(1.0)
        pair.line.is_down = False
        await ask_now(redis, pair.hub.id)
        await wake(redis, pair.hub.id)
        await until(has_kind(pair.site), 30)
    assert (await read_health(redis, pair.hub.id, hub)).failures == 0


async def test_without_wakes_the_looks_find_it(pair, tmp_path):
    await pair.hub.add_kind(KIND, [("title", "text")])
    agent = pair.agent(tmp_path / "site", poll_seconds=0.3)
    async with running(agent):
        await until(has_kind(pair.site))
        await pair.site.apply(create(KIND, title="of the branch"))
        await until(has(pair.hub, "of the branch"))
        await pair.hub.apply(create(KIND, title="of the hub"))
        await until(has(pair.site, "of the hub"))
