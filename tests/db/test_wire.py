"""The pipeline and the sessions over it: errors, eviction, isolation, cancellation, lost servers."""

import asyncio
import contextlib
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest

from appliance.base import limits
from appliance.base.errors import ApplianceError, Clash, Invalid, Limited, Refused, Unavailable
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Statement, Wire

pytestmark = pytest.mark.anyio

TARGET = "nexus_pool"
ONE = Statement("SELECT 1")
DIVIDE = Statement("SELECT 1 / $1::int")
TENANT = Statement("SELECT current_setting('nexus.tenant', true)")
STATE = Statement("INSERT INTO tenant_state (tenant_id, log_key) VALUES ($1, '')")
SERIES = Statement("INSERT INTO number_series VALUES ($1, $2, '', 1)")
ALL_SERIES = Statement("SELECT tenant_id::text, series FROM number_series ORDER BY series")
PID = Statement("SELECT pg_backend_pid()")
PREPARED = Statement("SELECT count(*) FROM pg_prepared_statements")


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def narrow(dsns):
    """A process with one connection: every use meets what the last one left."""
    db = Database(dsns.control_dsn, dsns.pool_dsn, pool_max=1)
    await db.start()
    yield db
    await db.stop()


@pytest.fixture
async def tenants(narrow, dsns):
    """Two bare tenants that the process knows."""
    ids = [uuid7(), uuid7()]
    with psycopg.connect(dsns.control_owner) as conn:
        for ident in ids:
            conn.execute(
                "INSERT INTO tenant (id, slug, name, placement_id) SELECT %s, %s, 'x', id "
                "FROM placement WHERE name = 'pool'",
                (ident, f"w{ident.hex[-12:]}"),
            )
    await narrow.routes.refresh()
    return ids


async def pid(db, tenant):
    (rows,) = await db.read(tenant, (PID, ()))
    return rows.first()


async def test_the_first_failure_is_raised_and_the_connection_lives(narrow, tenants):
    one = tenants[0]
    before = await pid(narrow, one)
    for _ in range(2):
        with pytest.raises(ApplianceError) as failed:
            await narrow.read(one, (ONE, ()), (DIVIDE, (0,)), (ONE, ()))
        assert isinstance(failed.value.__cause__, psycopg.errors.DivisionByZero)
        assert "division" not in failed.value.detail
    assert [rows.first() for rows in await narrow.read(one, (ONE, ()), (DIVIDE, (1,)))] == [
        (b"1",)
    ] * 2
    assert await pid(narrow, one) == before


async def test_statements_up_to_the_sync_are_one_transaction(narrow, tenants):
    one = tenants[0]
    with pytest.raises(ApplianceError):
        await narrow.read(one, (SERIES, (one, "lost")), (DIVIDE, (0,)))
    (rows,) = await narrow.read(one, (ALL_SERIES, ()))
    assert len(rows) == 0


async def test_a_failed_block_rolls_back_and_a_swallowed_failure_does_not_pass(narrow, tenants):
    one = tenants[0]
    with pytest.raises(ZeroDivisionError):
        async with narrow.transaction(one) as tx:
            await tx.run((SERIES, (one, "a")))
            raise ZeroDivisionError
    with pytest.raises(ApplianceError, match="nothing was written"):
        async with narrow.transaction(one) as tx:
            await tx.run((SERIES, (one, "b")))
            with contextlib.suppress(psycopg.Error):
                await tx.run((DIVIDE, (0,)))
    (rows,) = await narrow.read(one, (ALL_SERIES, ()))
    assert len(rows) == 0
    async with narrow.transaction(one) as tx:
        await tx.run((SERIES, (one, "c")), commit=True)
    (rows,) = await narrow.read(one, (ALL_SERIES, ()))
    assert list(rows) == [(str(one).encode(), b"c")]


async def test_eviction_keeps_the_bound_and_what_the_call_needs(narrow, tenants, monkeypatch):
    monkeypatch.setattr(limits, "PREPARED_MAX", 12)
    one = tenants[0]
    texts = [Statement(f"SELECT {n} + $1::int") for n in range(40)]
    for turn in range(3):
        for n in range(0, 40, 4):
            found = await narrow.read(one, *[(s, (turn,)) for s in texts[n : n + 4]], (ONE, ()))
            assert [int(rows.first()[0]) for rows in found[:4]] == [n + i + turn for i in range(4)]
            (count,) = await narrow.read(one, (PREPARED, ()))
            assert int(count.first()[0]) <= 12
    # More in one call than may be kept, some of them twice.
    found = await narrow.read(one, *[(s, (0,)) for s in texts * 2])
    assert [int(rows.first()[0]) for rows in found] == list(range(40)) * 2
    for s in texts:
        await narrow.read(one, (s, (0,)))


async def test_a_failed_transaction_with_a_full_cache_still_rolls_back(
    narrow, tenants, monkeypatch
):
    monkeypatch.setattr(limits, "PREPARED_MAX", 5)
    one = tenants[0]
    before = await pid(narrow, one)
    for n in range(6):
        with pytest.raises(ApplianceError):
            async with narrow.transaction(one) as tx:
                await tx.run((SERIES, (one, f"x{n}")), (Statement(f"SELECT {n}, 1/$1::int"), (0,)))
    (rows,) = await narrow.read(one, (ALL_SERIES, ()))
    assert len(rows) == 0 and await pid(narrow, one) == before


async def test_a_statement_that_does_not_parse_is_not_remembered(narrow, tenants):
    for _ in range(2):
        with pytest.raises(ApplianceError):
            await narrow.read(tenants[0], (Statement("SELECT no_such_column"), ()))
    assert await narrow.read(tenants[0], (ONE, ()))


async def test_one_connection_serves_tenants_without_mixing_them(narrow, tenants):
    one, two = tenants
    for tenant, name in ((one, "one"), (two, "two")):
        async with narrow.transaction(tenant) as tx:
            await tx.run((SERIES, (tenant, name)))
    same = {await pid(narrow, one), await pid(narrow, two)}
    assert len(same) == 1
    for tenant, name in ((one, b"one"), (two, b"two"), (one, b"one")):
        seen, rows = await narrow.read(tenant, (TENANT, ()), (ALL_SERIES, ()))
        assert seen.first() == (str(tenant).encode(),)
        assert list(rows) == [(str(tenant).encode(), name)]
        async with narrow.wire(TARGET) as wire:
            left, empty = await wire.run([(TENANT, ()), (ALL_SERIES, ())])
        assert left.first() == (b"",) and len(empty) == 0


async def test_rows_of_another_tenant_cannot_be_written(narrow, tenants):
    one, two = tenants
    for call in ((SERIES, (two, "stolen")), (STATE, (two,))):
        with pytest.raises(ApplianceError) as refused:
            await narrow.read(one, call)
        assert isinstance(refused.value.__cause__, psycopg.errors.InsufficientPrivilege)
    with pytest.raises(ApplianceError) as refused:
        await narrow.read(one, (Statement("COPY number_series FROM STDIN"), ()))
    assert isinstance(refused.value.__cause__, psycopg.errors.FeatureNotSupported)
    with pytest.raises(ApplianceError):
        await narrow.read(one, (Statement("TRUNCATE record"), ()))
    with pytest.raises(Refused):
        await narrow.read(uuid7(), (ONE, ()))


async def test_a_cancelled_call_costs_its_connection_and_nothing_else(narrow, tenants):
    one = tenants[0]
    before = await pid(narrow, one)
    sleep = Statement("SELECT pg_sleep(3)")
    task = asyncio.create_task(narrow.read(one, (SERIES, (one, "never")), (sleep, ())))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pid(narrow, one) != before
    (rows,) = await narrow.read(one, (ALL_SERIES, ()))
    assert len(rows) == 0


async def test_a_cancelled_transaction_rolls_back(narrow, tenants):
    one = tenants[0]

    async def work():
        async with narrow.transaction(one) as tx:
            await tx.run((SERIES, (one, "never")))
            await asyncio.sleep(3)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (rows,) = await narrow.read(one, (ALL_SERIES, ()))
    assert len(rows) == 0


async def test_a_lost_connection_is_postgresql_unavailable(narrow, tenants, as_owner):
    one = tenants[0]
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s"
    idle = int((await pid(narrow, one))[0])
    await as_owner(one, kill, idle)
    with pytest.raises(Unavailable) as lost:
        await narrow.read(one, (ONE, ()))
    assert lost.value.dependency == "PostgreSQL"
    busy = int((await pid(narrow, one))[0])
    task = asyncio.create_task(narrow.read(one, (Statement("SELECT pg_sleep(3)"), ())))
    await asyncio.sleep(0.2)
    await as_owner(one, kill, busy)
    with pytest.raises(Unavailable, match="PostgreSQL") as lost:
        await task
    assert await narrow.read(one, (ONE, ()))


async def test_a_server_that_is_away_is_named(tmp_path):
    dsn = f"host={tmp_path} user=nexus_app dbname=x password=very-secret"
    async with await_nothing(Database(dsn, dsn)) as db:
        with pytest.raises(Unavailable, match="PostgreSQL") as away:
            async with db.wire("x") as wire:
                await wire.run([(ONE, ())])
        assert "very-secret" not in str(away.value)


@contextlib.asynccontextmanager
async def await_nothing(db):
    try:
        yield db
    finally:
        for pool in db._pools.values():
            await pool.close()


async def test_time_limit_and_lock_limit_have_their_own_refusals(narrow, tenants, dsns):
    one = tenants[0]
    with pytest.raises(Limited):
        await narrow.read(one, (Statement("SELECT pg_sleep(2)"), ()), timeout_ms=50)
    # The limit was of that transaction alone.
    assert await narrow.read(one, (Statement("SELECT pg_sleep(0.1)"), ()))
    async with narrow.transaction(one) as tx:
        await tx.run((SERIES, (one, "held")))
    lock = Statement("SELECT FROM number_series WHERE tenant_id = $1 FOR UPDATE NOWAIT")
    with psycopg.connect(dsns.pool_owner) as other:
        other.execute("SELECT set_config('nexus.tenant', %s, true)", (str(one),))
        other.execute("SELECT FROM number_series FOR UPDATE")
        with pytest.raises(Clash) as busy:
            await narrow.read(one, (lock, (one,)))
        assert busy.value.code == "record.busy"


async def test_unstorable_text_is_refused_before_it_is_sent(narrow, tenants):
    one = tenants[0]
    before = await pid(narrow, one)
    for bad in ("a\0b", "\ud800", ["fine", "a\0b"]):
        with pytest.raises(Invalid) as refused:
            await narrow.read(one, (Statement("SELECT $1::text"), (bad,)))
        assert refused.value.code == "text.unstorable"
        with pytest.raises(Invalid):
            async with narrow.transaction(one) as tx:
                await tx.run((Statement("SELECT $1::text"), (bad,)))
    assert await pid(narrow, one) == before


async def test_values_arrive_as_they_were(dsns):
    moment = datetime(2026, 3, 29, 1, 0, 0, 1, UTC)
    ident = uuid7()
    statement = Statement(
        "SELECT $1::bool, $2::bigint, $3::text, $4::bytea = '\\x00ff', $5::uuid, "
        "$6::timestamptz = '2026-03-29 01:00:00.000001+00', $7::numeric, $8::text[], $9::text IS NULL"
    )
    nasty = ['a"b', "c\\d", "", "{x,y}", None, "NULL", "Їжак, 价格"]
    params = (True, -5, "it's", b"\x00\xff", ident, moment, Decimal("10.50"), nasty, None)
    async with await psycopg.AsyncConnection.connect(dsns.pool_dsn, autocommit=True) as conn:
        wire = Wire(conn)
        (rows,) = await wire.run([(statement, params)])
        back = rows.first()
        (array,) = await wire.run([(Statement("SELECT unnest($1::text[])"), (nasty,))])
    expected = (b"t", b"-5", b"it's", b"t", str(ident).encode(), b"t", b"10.50")
    assert back[:7] == expected and back[8] == b"t"
    assert [v and v.decode() if v else ("" if v == b"" else None) for v in array.column()] == nasty


async def test_large_answers_and_large_parameters_pass(narrow, tenants):
    many = ["x" * 1000] * 5000
    (rows,) = await narrow.read(
        tenants[0], (Statement("SELECT v FROM unnest($1::text[]) AS u(v)"), (many,))
    )
    assert len(rows) == 5000 and rows.column()[-1] == b"x" * 1000
