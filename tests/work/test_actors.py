"""The shipped jobs, from the write that queues them to the effect in the tables."""

import asyncio

import psycopg
import pytest

from appliance.base.ids import uuid7
from appliance.work.actors import upkeep
from appliance.work.jobs import enqueue, get_job
from appliance.work.main import run_worker
from tests.tenants import create, make_tenant, update

assert upkeep.reproject


@pytest.fixture
def office(place, postgres):
    """`run(test)` gives a place and a tenant with two branches."""

    def run(test):
        async def body(p):
            async def control():
                return await psycopg.AsyncConnection.connect(
                    postgres.dsn("nexus_control", "nexus_owner")
                )

            made = await make_tenant(p.db, control, f"o{uuid7().hex[-12:]}")
            p.tenant = made.id
            stop = asyncio.Event()
            task = asyncio.create_task(run_worker(p.node(), stop=stop))
            try:
                await test(p, made)
            finally:
                stop.set()
                await task

        place(body)

    return run


def test_a_field_made_filterable_gets_its_slot_filled_by_a_job(office):
    async def test(p, t):
        await t.add_kind("shop", [{"name": "code", "type": "text", "filterable": False}])
        made = [create("shop", code=f"A{n}") for n in range(5)]
        assert (await t.apply(*made)).committed
        (field,) = await t.sql(
            "SELECT id::text FROM record WHERE kind = 'sys.field' AND data->>'kind' = 'shop'"
        )
        result = await t.apply(update("sys.field", _uuid(field[0]), filterable=True))
        assert result.committed, result
        await p.until(lambda: _ready(t))
        assert await t.sql(
            "SELECT count(*) FROM record WHERE kind = 'shop' AND t1 IS NOT NULL"
        ) == [["5"]]
        assert await t.sql("SELECT state, job_kind FROM job") == [["done", "reproject"]]

    office(test)


async def _ready(t):
    return await t.sql("SELECT is_ready FROM slot WHERE kind = 'shop'") == [
        ["t"]
    ] and await _no_work(t)


async def _no_work(t):
    return await t.sql("SELECT count(*) FROM outbox") == [["0"]]


def _uuid(text):
    from uuid import UUID

    return UUID(text)


def test_offboarding_hands_all_records_over(office):
    async def test(p, t):
        await t.add_kind("shop", [("code", "text")])
        leaves, stays = t.people["owner"], uuid7()
        person = create("sys.person", stays, name="Successor", email="next@example.org")
        assert (await t.apply(person)).committed
        made = [create("shop", owner=leaves, code=f"A{n}") for n in range(20)]
        assert (await t.apply(*made)).committed
        payload = {"from_owner": str(leaves), "to_owner": str(stays), "by": str(stays)}
        ident = await enqueue(p.db, t.id, "reassign", {**payload, "kinds": ["shop"]}, by=stays)
        await p.until(lambda: _done(p, t, ident))
        found = await get_job(p.db, t.id, ident)
        assert (found.progress, found.total) == (20, 20)
        owners = await t.sql("SELECT DISTINCT owner_id::text FROM record WHERE kind = 'shop'")
        assert owners == [[str(stays)]]
        bad = await enqueue(p.db, t.id, "reassign", {"from_owner": "nobody"})
        await p.until(lambda: _failed(p, t, bad))

    office(test)


async def _done(p, t, ident):
    return (await get_job(p.db, t.id, ident)).state == "done"


async def _failed(p, t, ident):
    return (await get_job(p.db, t.id, ident)).state == "failed"
