"""The relay and the jobs on real parts: order, exactness, losses of Redis, dead letters."""

import asyncio
import contextlib
import json
import time

import pytest
import redis.asyncio as aioredis

from appliance.base.ids import uuid7
from appliance.base.errors import Clash, Invalid, Refused, Unavailable
from appliance.db.wire import Statement
from appliance.sync.wake import GAP_S, Waker, wake
from appliance.work import actors
from appliance.work import relay as relaying
from appliance.work import run as lease
from appliance.work.broker import BrokerDown, NodeLoop, make_broker
from appliance.work.jobs import (
    cancel_job,
    dead_letters,
    enqueue,
    enqueue_call,
    get_job,
    list_jobs,
    replay,
)
from appliance.work.main import run_worker
from appliance.work.registry import JOBS, JobSort
from appliance.work.relay import Relay

assert actors.__all__
STARTS = {"n": 0}
EFFECT = Statement("INSERT INTO effect (tenant_id, no) VALUES ($1, $2)")
ADD = "INSERT INTO outbox (tenant_id, topic, payload) SELECT $1, $2, jsonb_build_object('n', n) FROM generate_series(1, $3) n"


async def write_number(node, tenant, payload, run):
    """The effect and the end of the job in one transaction."""
    STARTS["n"] += 1
    await asyncio.sleep(0.01)
    async with node.db.transaction(tenant) as tx:
        await tx.run((EFFECT, (tenant, payload["n"])))
        await run.complete(tx)


async def count_slowly(node, tenant, payload, run):
    """Batches of one, each bound to the lease; goes on where an earlier start stopped."""
    for n in range(int(run.resume_at or 0) + 1, payload["n"] + 1):
        async with node.db.transaction(tenant) as tx:
            await tx.run((EFFECT, (tenant, n)))
            await run.checkpoint(tx, progress=n, total=payload["n"], resume_at=str(n))
        await asyncio.sleep(0.05)


async def refuse(node, tenant, payload, run):
    raise Invalid("The number is not acceptable.", code="number.bad")


async def stumble(node, tenant, payload, run):
    STARTS["n"] += 1
    raise Unavailable("The other side is away.", dependency="peer")


@pytest.fixture(autouse=True)
def sorts(monkeypatch):
    STARTS["n"] = 0
    for handler in (write_number, count_slowly, refuse, stumble):
        sort = JobSort(kind=handler.__name__, queue="upkeep", handler=handler, attempts_max=3)
        monkeypatch.setitem(JOBS, handler.__name__, sort)


@contextlib.asynccontextmanager
async def relay_of(place):
    node = place.node()
    events = aioredis.Redis.from_url(place.url)
    broker = make_broker(node, NodeLoop(asyncio.get_running_loop()))
    waker = Waker(events)
    yield Relay(place.db, broker, events, dict(JOBS), waker), events
    await waker.close()
    broker.close()
    await events.aclose()


@contextlib.asynccontextmanager
async def working(place, **options):
    stop = asyncio.Event()
    task = asyncio.create_task(run_worker(place.node(), stop=stop, **options))
    try:
        yield stop
    finally:
        stop.set()
        await task


async def effects(place):
    rows = await place.run("SELECT no FROM effect WHERE tenant_id = $1 ORDER BY no", place.tenant)
    return [int(r[0]) for r in rows]


def test_changes_leave_in_order_and_exactly_once(place):
    async def test(p):
        await p.run(ADD, p.tenant, "changes", 1200)
        async with relay_of(p) as (relay, events):
            while await relay.relay_once():
                pass
            found = await events.xrange(f"events:{p.tenant}")
            assert 0 < await events.ttl(f"events:{p.tenant}")
        assert [json.loads(e[b"data"])["n"] for _, e in found] == list(range(1, 1201))
        ids = [int(e[b"o"]) for _, e in found]
        assert ids == sorted(ids)
        assert await p.one("SELECT count(*) FROM outbox") == "0"

    place(test)


def test_two_relays_share_without_doubling_or_reordering(place):
    async def test(p):
        await p.run(ADD, p.tenant, "changes", 3000)
        async with relay_of(p) as (one, events), relay_of(p) as (two, _):
            while sum(await asyncio.gather(one.relay_once(), two.relay_once())):
                pass
            found = [
                json.loads(e[b"data"])["n"] for _, e in await events.xrange(f"events:{p.tenant}")
            ]
        assert found == list(range(1, 3001))

    place(test)


def test_rows_stay_while_redis_is_away(place, valkey):
    async def test(p):
        await p.run(ADD, p.tenant, "changes", 10)
        await p.run(ADD, p.tenant, "job.write_number", 5)
        valkey.kill()
        async with working(p):
            await asyncio.sleep(2.0)
            assert await p.one("SELECT count(*) FROM outbox") == "15"
            valkey.start()
            await p.until(lambda: _is_empty(p))
        assert await effects(p) == [1, 2, 3, 4, 5]

    place(test)


async def _is_empty(p):
    return await p.one("SELECT count(*) FROM outbox") == "0"


def test_redis_killed_and_wiped_midway_loses_no_job_and_doubles_no_effect(place, valkey):
    async def test(p):
        await p.run(ADD, p.tenant, "job.write_number", 300)
        async with working(p):
            for _ in range(3):
                before = len(await effects(p))
                await p.until(lambda before=before: _more(p, before))
                valkey.kill()
                valkey.start()
            took = await p.until(lambda: _is_empty(p), 60)
        assert await effects(p) == list(range(1, 301))
        print(
            f"300 jobs, 3 kills of Redis: {STARTS['n']} starts, done {took:.1f} s after the last kill"
        )
        states = await p.run("SELECT DISTINCT state FROM job")
        assert states == [["done"]]

    place(test)


async def _more(p, before):
    return len(await effects(p)) > before + 5


def test_a_message_given_twice_and_a_forged_one_change_nothing(place):
    async def test(p):
        await p.run(ADD, p.tenant, "job.write_number", 1)
        async with relay_of(p) as (relay, _):
            assert await relay.relay_once() == 1
            (row,) = await p.run("SELECT id FROM outbox")
            for _ in range(5):
                relay._enqueue(p.tenant, [(int(row[0]), "write_number")])
            forged = relay._broker.actors["run_upkeep"].message("'; DROP TABLE job; --")
            relay._broker.enqueue(forged)
        async with working(p):
            await p.until(lambda: _is_empty(p))
            await asyncio.sleep(0.5)
        assert await effects(p) == [1]
        assert STARTS["n"] == 1

    place(test)


def test_dead_letters_are_seen_and_can_be_replayed(place):
    async def test(p):
        ident = await enqueue(p.db, p.tenant, "refuse", {"n": 1})
        async with working(p):
            await p.until(lambda: _state(p, ident, "failed"))
            (dead,) = await dead_letters(p.db, p.tenant)
            assert dead.reason == "number.bad: The number is not acceptable."
            assert (await get_job(p.db, p.tenant, ident)).detail == dead.reason
            JOBS["refuse"].__dict__["handler"] = write_number
            await replay(p.db, p.tenant, dead.outbox_id)
            await p.until(lambda: _state(p, ident, "done"))
        assert await effects(p) == [1]
        assert await dead_letters(p.db, p.tenant) == []
        with pytest.raises(Refused):
            await replay(p.db, p.tenant, dead.outbox_id)

    place(test)


async def _state(p, ident, state):
    return (await get_job(p.db, p.tenant, ident)).state == state


def test_a_passing_fault_is_tried_again_after_a_time_and_then_buried(place, monkeypatch):
    monkeypatch.setattr(lease, "BACKOFF_FIRST_S", 1)

    async def test(p):
        ident = await enqueue(p.db, p.tenant, "stumble", {})
        async with working(p):
            took = await p.until(lambda: _state(p, ident, "failed"))
        assert STARTS["n"] == 3
        assert took >= 3.0  # 1 s and 2 s of back-off
        assert "Tried 3 times" in (await get_job(p.db, p.tenant, ident)).detail

    place(test)


def test_cancel_stops_a_running_job_and_drops_a_queued_one(place):
    async def test(p):
        running = await enqueue(p.db, p.tenant, "count_slowly", {"n": 1000}, by=p.tenant)
        async with working(p):
            await p.until(lambda: _progress(p, running, 3))
            assert (await cancel_job(p.db, p.tenant, running)).cancel_asked
            await p.until(lambda: _state(p, running, "cancelled"))
            done = await effects(p)
            await asyncio.sleep(0.3)
            assert await effects(p) == done
        queued = await enqueue(p.db, p.tenant, "count_slowly", {"n": 1000})
        assert (await cancel_job(p.db, p.tenant, queued)).state == "cancelled"
        assert await _is_empty(p)
        with pytest.raises(Clash):
            await cancel_job(p.db, p.tenant, queued)
        page = await list_jobs(p.db, p.tenant, limit=1)
        assert [j.id for j in page.jobs] == [queued]
        rest = await list_jobs(p.db, p.tenant, before=page.next)
        assert [(j.id, j.created_by) for j in rest.jobs] == [(running, p.tenant)]

    place(test)


async def _progress(p, ident, least):
    return (await get_job(p.db, p.tenant, ident)).progress >= least


def test_a_job_whose_transaction_rolls_back_was_never_queued(place):
    async def test(p):
        with pytest.raises(RuntimeError):
            async with p.db.transaction(p.tenant) as tx:
                ident, call = enqueue_call(p.tenant, "write_number", {"n": 1})
                await tx.run(call)
                raise RuntimeError
        with pytest.raises(Refused):
            await get_job(p.db, p.tenant, ident)
        assert await _is_empty(p)

    place(test)


def test_a_runner_that_lost_its_lease_can_write_nothing(place):
    async def test(p):
        await enqueue(p.db, p.tenant, "write_number", {"n": 1})
        (row,) = await p.run("SELECT id FROM outbox")
        first = await lease.claim(p.db, p.tenant, int(row[0]))
        assert await lease.claim(p.db, p.tenant, int(row[0])) is None
        await p.run("UPDATE job SET lease_until = now() - interval '1 s'")
        second = await lease.claim(p.db, p.tenant, int(row[0]))
        assert second.attempt == 2
        with pytest.raises(lease.LeaseLost):
            async with p.db.transaction(p.tenant) as tx:
                await tx.run((EFFECT, (p.tenant, 1)))
                await first.complete(tx)
        assert await effects(p) == []
        async with p.db.transaction(p.tenant) as tx:
            await tx.run((EFFECT, (p.tenant, 1)))
            await second.complete(tx)
        assert await effects(p) == [1]

    place(test)


def test_a_topic_nobody_knows_is_buried_after_its_time(place):
    async def test(p):
        await p.run(ADD, p.tenant, "job.from_the_future", 1)
        async with relay_of(p) as (relay, _):
            await relay.relay_once()
            assert await dead_letters(p.db, p.tenant) == []
            await p.run("UPDATE outbox SET created_at = now() - interval '1 h'")
            await relay.relay_once()
        (dead,) = await dead_letters(p.db, p.tenant)
        assert dead.reason.startswith("job.kind_unknown")

    place(test)


def test_a_full_redis_holds_rows_back_and_makes_room(place, valkey):
    async def test(p):
        await p.run(ADD, p.tenant, "changes", 2000)
        async with relay_of(p) as (relay, events):
            while await relay.relay_once():
                pass
            valkey.client().config_set("maxmemory", 1)
            await p.run(ADD, p.tenant, "changes", 100)
            with pytest.raises(BrokerDown):
                await relay.relay_once()
            assert await p.one("SELECT count(*) FROM outbox") == "100"
            assert await events.xlen(f"events:{p.tenant}") == 500
            valkey.client().config_set("maxmemory", 0)
            assert await relay.relay_once() == 100

    place(test)


def test_a_stop_gives_an_unfinished_job_back_untouched(place, monkeypatch):
    from appliance.work import main

    monkeypatch.setattr(main, "GRACE_S", 0.5)

    async def test(p):
        ident = await enqueue(p.db, p.tenant, "count_slowly", {"n": 10_000})
        async with working(p):
            await p.until(lambda: _progress(p, ident, 3))
        assert await _state(p, ident, "queued")
        done = await effects(p)
        (row,) = await p.run("SELECT attempts, due_at <= now() FROM outbox")
        assert row == ["0", "t"]
        async with working(p):
            await p.until(lambda: _progress(p, ident, len(done) + 3))
        assert await effects(p) == list(range(1, len(await effects(p)) + 1))

    place(test)


def test_a_wake_makes_the_relay_look_at_once_and_not_too_often(place, monkeypatch):
    monkeypatch.setattr(relaying, "POLL_BUSY_S", 30.0)
    monkeypatch.setattr(relaying, "POLL_IDLE_S", 30.0)

    async def test(p):
        rounds, first = [], asyncio.Event()
        once = Relay.relay_once

        async def counted(self, named=None):
            moved = await once(self, named)
            rounds.append(named)
            first.set()
            return moved

        monkeypatch.setattr(Relay, "relay_once", counted)
        async with working(p), aioredis.Redis.from_url(p.url) as client:
            await first.wait()
            await asyncio.sleep(0.5)
            await p.run(ADD, p.tenant, "changes", 3)
            await wake(client, uuid7())
            await asyncio.sleep(0.3)
            assert await p.one("SELECT count(*) FROM outbox") == "3", "nobody spoke of this tenant"
            await wake(client, p.tenant)
            assert await p.until(lambda: _is_empty(p)) < 1
            rounds.clear()
            began = time.monotonic()
            for _ in range(200):
                await wake(client, p.tenant)
                await asyncio.sleep(0.005)
            assert 5 <= len(rounds) <= (time.monotonic() - began) / GAP_S + 1
            assert all(named == {p.tenant} for named in rounds)
            # A job is rung for by its own commit.
            ident = await enqueue(p.db, p.tenant, "write_number", {"n": 1})
            assert await p.until(lambda: _state(p, ident, "done")) < 2

    place(test)


def test_what_was_written_while_the_clock_was_ahead_leaves_when_it_is_set_right(place):
    async def test(p):
        async with relay_of(p) as (relay, events):
            await relay.relay_once()
            relay._settled_at = 0.0
            for topic in ("changes", "job.write_number"):
                await p.run(ADD, p.tenant, topic, 1)
            await p.run(
                "UPDATE outbox SET due_at = now() + interval '5 h', created_at = now() + interval '5 h'"
            )
            assert await relay.relay_once() == 0
            relay._ahead += 5 * 3600
            assert await relay.relay_once() == 2
            assert await events.xlen(f"events:{p.tenant}") == 1
            # What was begun before is committed only now.
            await p.run(ADD, p.tenant, "changes", 1)
            await p.run("UPDATE outbox SET due_at = now() + interval '5 h' WHERE topic = 'changes'")
            relay._look_at = 0.0
            await relay.relay_once()
            assert await events.xlen(f"events:{p.tenant}") == 2

    place(test)
