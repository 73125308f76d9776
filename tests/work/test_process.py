"""The worker as a process: one leader, catch-up, SIGTERM, kill -9 of itself and of PostgreSQL."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import redis.asyncio as aioredis

from appliance.base.ids import uuid7
from appliance.work.health import workers_alive
from appliance.work.jobs import enqueue, get_job
from appliance.work.maintain import (
    SCHEDULES,
    forget_old,
    queue_missing,
    release_promises,
    seal_audit,
)
from appliance.work.schedule import Schedule, Scheduler
from tests.work.test_relay import effects

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A worker in a process of its own, with the tests' job kinds."""

    def __init__(self, place, postgres):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.work.child", postgres.dsn("nexus_control"),
             postgres.dsn("nexus_pool"), place.url], cwd=ROOT, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def send(self, sign):
        os.kill(self.process.pid, sign)

    async def end(self):
        return await asyncio.to_thread(self.process.wait, 30)


async def _progress(p, ident, least):
    return (await get_job(p.db, p.tenant, ident)).progress >= least


async def _state(p, ident, state):
    return (await get_job(p.db, p.tenant, ident)).state == state


def test_sigterm_lets_the_running_job_finish(place, postgres):
    async def test(p):
        ident = await enqueue(p.db, p.tenant, "count_slowly", {"n": 60})
        child = Child(p, postgres)
        try:
            await p.until(lambda: _progress(p, ident, 3))
            client = aioredis.Redis.from_url(p.url)
            (pulse,) = await workers_alive(client)
            assert pulse.pid == child.process.pid
            child.send(signal.SIGTERM)
            assert await child.end() == 0
            assert await workers_alive(client) == []
            await client.aclose()
        finally:
            child.process.kill()
        assert await _state(p, ident, "done")
        assert await effects(p) == list(range(1, 61))

    place(test)


def test_kill_9_of_the_worker_resumes_elsewhere_without_doubling(place, postgres):
    async def test(p):
        ident = await enqueue(p.db, p.tenant, "count_slowly", {"n": 60})
        child = Child(p, postgres)
        try:
            await p.until(lambda: _progress(p, ident, 3))
            child.send(signal.SIGKILL)
            await child.end()
            # Not waiting for the real lease to run out: its end is what is simulated.
            await p.run("UPDATE job SET lease_until = now()")
            await p.run("UPDATE outbox SET due_at = now()")
            child = Child(p, postgres)
            await p.until(lambda: _state(p, ident, "done"))
        finally:
            child.process.kill()
            await child.end()
        assert await effects(p) == list(range(1, 61))

    place(test)


def test_kill_9_of_postgresql_under_a_running_worker_heals(place, postgres):
    async def test(p):
        ident = await enqueue(p.db, p.tenant, "count_slowly", {"n": 60})
        child = Child(p, postgres)
        try:
            await p.until(lambda: _progress(p, ident, 3))
            postgres.kill()
            await asyncio.sleep(0.5)
            postgres.start()
            took = await p.until(lambda: _healed(p, ident), 60)
            print(f"PostgreSQL killed under a job: done {took:.1f} s after its start")
        finally:
            child.process.kill()
            await child.end()
        assert await effects(p) == list(range(1, 61))

    place(test)


async def _healed(p, ident):
    try:
        return await _state(p, ident, "done")
    except Exception:
        return False


def test_one_of_two_schedulers_leads_and_the_other_takes_over(place):
    async def test(p):
        ran = []
        chore = (Schedule(name="often", every_s=0.3, run=lambda n: _note(ran, n.name)),)
        one, two = Scheduler(p.node("one"), chore), Scheduler(p.node("two"), chore)
        stops = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(s.follow(e)) for s, e in zip((one, two), stops, strict=True)]
        await asyncio.sleep(1.5)
        assert one.is_leader != two.is_leader
        assert len(set(ran)) == 1
        first = 0 if one.is_leader else 1
        stops[first].set()
        await tasks[first]
        await p.until(lambda: _leads((two, one)[first]))
        stops[1 - first].set()
        await tasks[1 - first]

    place(test)


async def _note(ran, name):
    ran.append(name)
    return 1


async def _leads(scheduler):
    return scheduler.is_leader


def test_a_missed_schedule_is_caught_up_once(place):
    async def test(p):
        ran = []
        chore = (Schedule(name="daily", every_s=86_400.0, run=lambda n: _note(ran, n.name)),)
        for _ in range(2):
            await _lead_for(p, chore, 0.8)
        assert len(ran) == 1
        async with p.db.control.connection() as conn:
            await conn.execute("UPDATE schedule_run SET last_at = now() - interval '3 days'")
        await _lead_for(p, chore, 0.8)
        assert len(ran) == 2

    place(test)


async def _lead_for(p, chores, seconds):
    stop = asyncio.Event()
    task = asyncio.create_task(Scheduler(p.node(), chores).follow(stop))
    await asyncio.sleep(seconds)
    stop.set()
    await task


def test_chores_seal_forget_and_find_what_is_missing(place):
    async def test(p):
        node = p.node()
        await p.run("INSERT INTO audit_unsealed (tenant_id, id) VALUES ($1, $2)", p.tenant, uuid7())
        assert await seal_audit(node) == 1
        assert p.sealed == [p.tenant]
        for days in (1, 31):
            await p.run(
                "INSERT INTO command (tenant_id, id, fingerprint, outcome, created_at) "
                "VALUES ($1, $2, '', '', now() - make_interval(days => $3))", p.tenant, uuid7(), days,
            )  # fmt: skip
            await p.run(
                "INSERT INTO session (tenant_id, secret_hash, id, person_id, profile_id, epoch, "
                "expires_at, ended_at) VALUES ($1, $2, $3, $3, $3, 0, now() + interval '1 h', "
                "now() - make_interval(days => $4))", p.tenant, bytes([days]), uuid7(), days,
            )  # fmt: skip
        assert await forget_old(node) == 2
        await p.run(
            "INSERT INTO slot (tenant_id, kind, fid, slot, is_ready) VALUES ($1, 'deal', 'a', 't1', false), "
            "($1, 'deal', 'b', 't2', false), ($1, 'task', 'c', 't1', true)", p.tenant,
        )  # fmt: skip
        assert [await queue_missing(node), await queue_missing(node)] == [1, 0]
        assert await release_promises(node) == 0
        assert {s.name for s in SCHEDULES} == {
            "seal_audit", "forget_old", "purge_files", "queue_missing", "release_promises",
            "tend_inbox", "compare_streams", "watch_sources", "renew_feeds",
        }  # fmt: skip

    place(test)
