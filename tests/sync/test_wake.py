"""Wakes on a real Valkey: many who wait, few messages, nothing lost, a server that goes and comes."""

import asyncio
import contextlib
import time

import pytest
import redis.asyncio as aioredis

from appliance.base.ids import uuid7
from appliance.db.database import unheard
from appliance.db.wire import Statement
from appliance.sync.wake import CHANNEL, GAP_S, Bell, Waker, ringing, wake
from tests.tenants import create
from tests.work.conftest import Valkey as Server
from tests.work.conftest import home as home  # noqa: PLC0414 - the fixture
from tests.work.conftest import valkey as valkey  # noqa: PLC0414 - the fixture

pytestmark = pytest.mark.anyio
AWAY = "redis://127.0.0.1:1/0"


@pytest.fixture
async def client(valkey: Server):
    async with aioredis.Redis.from_url(valkey.url) as found:
        yield found


@pytest.fixture
async def waker(client):
    found = Waker(client)
    with found.listen() as ear:
        assert await ear.wait(5), "who begins to listen is told to look once"
        ear.take()
        yield found
    await found.close()


@contextlib.asynccontextmanager
async def counted(client):
    """The messages on the channel from now on."""
    messages = []
    async with client.pubsub() as heard:
        await heard.subscribe(CHANNEL)
        while not await heard.get_message(timeout=1):
            pass

        async def follow():
            async for message in heard.listen():
                messages.append(message["data"])

        task = asyncio.create_task(follow())
        yield messages
        task.cancel()
        await asyncio.wait({task})


async def test_a_wake_ends_the_waits_of_its_tenant_and_of_all(client, waker):
    mine, other = uuid7(), uuid7()
    waits = [asyncio.create_task(waker.wait(t, 2)) for t in (mine, mine, None)]
    quiet = asyncio.create_task(waker.wait(other, 0.5))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await wake(client, mine)
    assert await asyncio.gather(*waits) == [True] * 3
    assert time.monotonic() - began < 0.3
    assert await quiet is False


async def test_what_is_rung_between_two_waits_is_not_lost(client, waker):
    tenant = uuid7()
    with waker.listen(tenant) as ear:
        for _ in range(3):
            await wake(client, tenant)
        await asyncio.sleep(0.1)
        assert await ear.wait(0)
        assert ear.take() == {tenant}
        assert not await ear.wait(0.05), "three wakes are one"
        assert ear.take() == set()


async def test_a_thousand_commits_a_second_are_twenty_messages(client, waker):
    bell, tenants = Bell(client), [uuid7() for _ in range(30)]
    with waker.listen() as ear:
        async with counted(client) as messages:
            began = time.monotonic()
            while time.monotonic() - began < 1:
                bell.ring(tenants[int(time.monotonic() * 1e6) % 30])
                await asyncio.sleep(0.001)
            await asyncio.sleep(2 * GAP_S)
            took = time.monotonic() - began
        assert 5 <= len(messages) <= took / GAP_S + 1
        assert await ear.wait(0)
        assert ear.take() == set(tenants)
    await bell.close()


async def test_the_first_commit_after_silence_is_told_at_once(client, waker):
    bell, tenant = Bell(client), uuid7()
    took = []
    with waker.listen(tenant) as ear:
        for _ in range(10):
            await asyncio.sleep(2 * GAP_S)
            began = time.monotonic()
            bell.ring(tenant)
            assert await ear.wait(1)
            took.append(time.monotonic() - began)
    assert sorted(took)[5] < GAP_S / 2
    await bell.close()


async def test_a_redis_that_is_away_raises_nothing_and_holds_nobody_up():
    async with aioredis.Redis.from_url(AWAY) as gone:
        waker, bell = Waker(gone), Bell(gone)
        began = time.monotonic()
        for _ in range(100):
            bell.ring(uuid7())
        assert time.monotonic() - began < 0.05
        await wake(gone, uuid7())
        assert time.monotonic() - began < 1
        began = time.monotonic()
        assert not await waker.wait(None, 0.3)
        assert 0.25 < time.monotonic() - began < 1
        await bell.close()
        await waker.close()


async def test_waiting_survives_a_restart_of_redis(client, waker, valkey):
    tenant = uuid7()
    with waker.listen(tenant) as ear:
        valkey.kill()
        assert not await ear.wait(0.3), "plain time-outs meanwhile"
        valkey.start()
        assert await ear.wait(10), "nobody knows what was said meanwhile: look"
        assert ear.take() is None
        await wake(client, tenant)
        assert await ear.wait(5)
        assert ear.take() == {tenant}


async def test_nonsense_on_the_channel_is_borne(client, waker):
    tenant = uuid7()
    with waker.listen(tenant) as ear:
        for nonsense in (b"", b"x", b"x" * 17):
            await client.publish(CHANNEL, nonsense)
        await client.publish(CHANNEL, tenant.bytes + b"rest")
        assert await ear.wait(2)
        assert ear.take() == {tenant}


async def test_a_write_rings_behind_its_commit_and_nothing_else_does(tenant, client, waker):
    await tenant.add_kind("note", [{"name": "title", "type": "text"}])
    rung = []
    async with ringing(tenant.db, client):
        with waker.listen(tenant.id) as ear:
            made = await tenant.apply(create("note", title="one"))
            assert made.committed
            assert await ear.wait(1)
    assert tenant.db.announce is unheard
    tenant.db.announce = rung.append
    try:
        await tenant.apply(create("note", title="two"))
        assert rung == [tenant.id]
        refused = await tenant.apply(create("note", nothing="three"))
        assert not refused.committed
        await tenant.sql("SELECT count(*) FROM record")
        async with tenant.db.transaction(tenant.id) as tx:
            await tx.run((Statement("SELECT 1"), ()), commit=True)
        leaving = Statement("SELECT 2", leaves=True)
        with pytest.raises(RuntimeError):
            async with tenant.db.transaction(tenant.id) as tx:
                await tx.run((leaving, ()))
                raise RuntimeError
        assert rung == [tenant.id]
        async with tenant.db.transaction(tenant.id) as tx:
            await tx.run((leaving, ()))
            assert rung == [tenant.id], "not inside the transaction"
        async with tenant.db.transaction(tenant.id) as tx:
            await tx.send((leaving, ()))
            await tx.run((Statement("SELECT 1"), ()), commit=True)
        assert rung == [tenant.id] * 3
    finally:
        tenant.db.announce = unheard
