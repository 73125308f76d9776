"""A move under writers loses nothing; stopped anywhere it ends whole in one place."""

import asyncio

import pytest

from appliance.base.errors import ApplianceError, Clash, Refused, Unavailable
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.tenancy import (
    activate,
    create_dedicated,
    create_tenant,
    find_tenant,
    move,
    move_tenant,
    resume,
    settle,
    suspend,
)
from appliance.tenancy.control import find_placement
from appliance.tenancy.fence import raise_fence
from appliance.tenancy.servers import connect, entered
from tests.tenancy.rows import count, make, run, sums

pytestmark = pytest.mark.anyio

RECORD = Statement(
    "INSERT INTO record (tenant_id, id, kind, stream, data, stamps, created_at, created_by, "
    "updated_at, updated_by) VALUES ($1, $2, 'note', $1, '{}', '1.1', now(), $1, now(), $1)"
)
HEAD = Statement("UPDATE stream SET head = head + 1 WHERE tenant_id = $1 RETURNING head")
NOTES = "SELECT id FROM record WHERE tenant_id = %s AND kind = 'note'"
READ = Statement("SELECT count(*) FROM tenant_state WHERE tenant_id = $1")


@pytest.fixture
async def processes(dsns):
    """Two processes: one follows the routes, one never hears of a change."""
    found = [Database(dsns.control_dsn, dsns.pool_dsn) for _ in range(2)]
    for db in found:
        await db.start()
    await found[1].routes.stop()
    yield found
    found[1].routes._task = None
    for db in found:
        await db.stop()


class Writer:
    """Writes without a pause and remembers what was acknowledged."""

    def __init__(self, db, tenant):
        self.db, self.tenant = db, tenant
        self.acknowledged, self.refused, self.others = [], [], []
        self.stopped = False

    async def run(self):
        while not self.stopped:
            note = uuid7()
            try:
                async with self.db.transaction(self.tenant) as tx:
                    await tx.run((RECORD, (self.tenant, note)))
                    await asyncio.sleep(0.002)
                    await tx.run((HEAD, (self.tenant,)), commit=True)
                self.acknowledged.append(note)
            except Unavailable as error:
                assert error.code == "tenant.moving", error
                self.refused.append(note)
                await asyncio.sleep(0.01)
            except ApplianceError as error:
                self.others.append(error)
            await asyncio.sleep(0)


async def test_nothing_is_lost_under_concurrent_writers(servers, second, processes, slug):
    made = await make(servers, slug, rows=2000)
    for db in processes:
        await db.routes.refresh()
    writers = [Writer(db, made.id) for db in processes for _ in range(3)]
    tasks = [asyncio.create_task(w.run()) for w in writers]
    await asyncio.sleep(0.3)
    moving = asyncio.create_task(move_tenant(servers, made.id, second.name))
    reads = 0
    while not moving.done():
        # Reads go on in a process that follows the routes, whatever the state.
        (rows,) = await processes[0].read(made.id, (READ, (made.id,)))
        assert rows.first() == (b"1",)
        reads += 1
        await asyncio.sleep(0.02)
    done = await moving
    at_switch = [len(w.acknowledged) for w in writers]
    await asyncio.sleep(0.5)
    for writer in writers:
        writer.stopped = True
    await asyncio.gather(*tasks)
    acknowledged = {note for w in writers for note in w.acknowledged}
    notes = {row[0] for row in await run(servers, second.target, made.id, NOTES, made.id)}
    assert acknowledged <= notes
    assert not notes & {note for w in writers for note in w.refused}
    head = "SELECT head FROM stream WHERE tenant_id = %s"
    assert await run(servers, second.target, made.id, head, made.id) == [(len(notes),)]
    assert done.swept and reads > 10 and await count(servers, "nexus_pool", made.id) == 0
    assert all(w.refused for w in writers) and not any(w.others for w in writers)
    # Who follows the routes writes again; who does not is refused, for ever, in the old place.
    assert all(len(w.acknowledged) > n for w, n in zip(writers[:3], at_switch[:3], strict=True))
    assert all(len(w.acknowledged) == n for w, n in zip(writers[3:], at_switch[3:], strict=True))


async def test_a_move_waits_for_a_transaction_that_passed_the_fence(
    servers, second, processes, slug
):
    made, note = await make(servers, slug), uuid7()
    for db in processes:
        await db.routes.refresh()
    async with processes[0].transaction(made.id) as tx:
        await tx.run((RECORD, (made.id, note)), (HEAD, (made.id,)))
        moving = asyncio.create_task(move_tenant(servers, made.id, second.name, grace_s=0))
        await asyncio.sleep(0.5)
        assert not moving.done()
    await moving
    assert await run(servers, second.target, made.id, NOTES, made.id) == [(note,)]


async def test_while_it_moves_reads_pass_and_writes_say_why(servers, second, processes, slug):
    made = await make(servers, slug)
    follows, stale = processes
    for db in processes:
        await db.routes.refresh()
    await stages(servers, made, second, "fenced")
    await follows.routes.refresh()
    assert follows.routes.of(made.id, read=True).state == "moving"
    for db in processes:
        (rows,) = await db.read(made.id, (READ, (made.id,)))
        assert rows.first() == (b"1",)
        with pytest.raises(Unavailable) as refused:
            async with db.transaction(made.id) as tx:
                await tx.run((RECORD, (made.id, uuid7())), (HEAD, (made.id,)))
        assert (refused.value.status, refused.value.code) == (503, "tenant.moving")
    # A write that goes by the door for reads meets the fence.
    with pytest.raises(Unavailable) as refused:
        await follows.read(made.id, (HEAD, (made.id,)))
    assert refused.value.code == "tenant.moving"
    await settle(servers)
    await follows.routes.refresh()
    async with follows.transaction(made.id) as tx:
        await tx.run((HEAD, (made.id,)))


@pytest.mark.parametrize("shut", ["creating", "suspended"])
async def test_a_process_that_last_looked_while_it_was_shut_looks_again(
    servers, processes, slug, shut
):
    made = await create_tenant(servers, slug, "Firm", "pool")
    if shut == "suspended":
        await activate(servers, made.id)
        await suspend(servers, made.id)
    stale = processes[1]
    await stale.routes.refresh()
    with pytest.raises(Refused):
        stale.routes.of(made.id)
    await (activate if shut == "creating" else resume)(servers, made.id)
    (rows,) = await stale.read(made.id, (READ, (made.id,)))
    assert rows.first() == (b"0",)


async def test_there_and_back_is_equal(servers, slug):
    made = await make(servers, slug)
    before = await sums(servers, "nexus_pool", made.id)
    own = await create_dedicated(servers, slug)
    told = {}
    moved = await move_tenant(servers, made.id, own.name, grace_s=0, progress=told.__setitem__)
    assert moved.tables == before == await sums(servers, own.target, made.id)
    assert told["record"] == 50
    assert (await find_tenant(servers, slug)).target == own.target
    with pytest.raises(Clash) as refused:
        await move_tenant(servers, made.id, own.name)
    assert refused.value.code == "tenant.placed"
    await suspend(servers, made.id)
    await move_tenant(servers, made.id, "pool", grace_s=0)
    assert await sums(servers, "nexus_pool", made.id) == before
    assert (await find_tenant(servers, slug)).state == "suspended"


async def assert_at_home(servers, second, made, before):
    found = await find_tenant(servers, made.slug)
    assert (found.state, found.target) == ("active", "nexus_pool")
    assert await count(servers, second.target, made.id) == 0
    assert await sums(servers, "nexus_pool", made.id) == before
    fences = "SELECT count(*) FROM tenant_fence WHERE tenant_id = %s"
    assert await run(servers, "nexus_pool", made.id, fences, made.id) == [(0,)]


async def test_a_cancelled_move_goes_back(servers, second, slug):
    made = await make(servers, slug)
    before = await sums(servers, "nexus_pool", made.id)
    for stop_at in ("tenant_state", "record", "unique_claim"):

        def stop(table, rows, stop_at=stop_at):
            if table == stop_at:
                task.cancel()

        task = asyncio.create_task(move_tenant(servers, made.id, second.name, progress=stop))
        with pytest.raises(asyncio.CancelledError):
            await task
        await assert_at_home(servers, second, made, before)


async def test_a_failed_move_goes_back(servers, second, slug, monkeypatch):
    made = await make(servers, slug)
    before = await sums(servers, "nexus_pool", made.id)

    async def fail(*_):
        raise Unavailable("The control plane is away.", dependency="PostgreSQL")

    monkeypatch.setattr(move, "_switch", fail)
    with pytest.raises(Unavailable, match="control plane"):
        await move_tenant(servers, made.id, second.name)
    await assert_at_home(servers, second, made, before)


async def stages(servers, made, second, upto):
    """A move that dies after a stage: what a killed process leaves."""
    async with (
        connect(servers.control_dsn) as conn,
        connect(servers.dsn("nexus_pool")) as source,
        connect(servers.dsn(second.target)) as target,
    ):
        placement = await find_placement(conn, second.name)
        await move._stop_writes(conn, source, made.id)
        if upto != "fenced":
            await move._copy(source, target, made.id, None)
        if upto == "switched":
            await move._switch(conn, made, placement)


@pytest.mark.parametrize("upto", ["fenced", "copied", "switched"])
async def test_settle_heals_a_killed_move(servers, second, slug, upto):
    made = await make(servers, slug)
    before = await sums(servers, "nexus_pool", made.id)
    await stages(servers, made, second, upto)
    assert {s.tenant for s in await settle(servers)} == {made.id}
    if upto != "switched":
        await assert_at_home(servers, second, made, before)
    else:
        found = await find_tenant(servers, slug)
        assert (found.state, found.target) == ("active", second.target)
        assert await sums(servers, second.target, made.id) == before
        assert await count(servers, "nexus_pool", made.id) == 0
    assert await settle(servers) == []


async def test_settle_never_opens_a_place_without_rows(servers, slug):
    made = await make(servers, slug)
    async with connect(servers.dsn("nexus_pool")) as conn, entered(conn, made.id):
        await raise_fence(conn, made.id, "leaving")
        await conn.execute("DELETE FROM tenant_state WHERE tenant_id = %s", (made.id,))
    assert [(s.tenant, s.action) for s in await settle(servers)] == [(made.id, "missing")]
    await run(
        servers, "nexus_pool", made.id, "DELETE FROM tenant_fence WHERE tenant_id = %s", made.id
    )


async def test_unrouted_rows_are_not_overwritten(servers, second, slug):
    made = await make(servers, slug)
    state = "INSERT INTO tenant_state (tenant_id, log_key) VALUES (%s, '')"
    await run(servers, second.target, made.id, state, made.id)
    with pytest.raises(Clash) as refused:
        await move_tenant(servers, made.id, second.name)
    assert refused.value.code == "tenant.rows_unrouted"
    assert (await find_tenant(servers, slug)).state == "active"
    assert await count(servers, second.target, made.id) == 1


async def test_two_movers_do_not_meet(servers, second, slug):
    made = await make(servers, slug)
    results = await asyncio.gather(
        *(move_tenant(servers, made.id, second.name, grace_s=0.2) for _ in range(2)),
        return_exceptions=True,
    )
    assert sorted(getattr(r, "code", "moved") for r in results) == ["moved", "tenant.busy"]
