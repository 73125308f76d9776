"""What is withdrawn leaves the disk, what stays stays, and a kill costs a repetition."""

from pathlib import Path

import msgspec
import psycopg
import pytest

from appliance.base.errors import Unavailable
from appliance.base.ids import uuid7
from appliance.db.wire import Statement
from appliance.kernel.context import Door
from appliance.sync import purge as purging
from appliance.sync.purge import Tools, proved, purge
from appliance.sync.withdrawal import (
    Proof,
    change_scope,
    open_withdrawals,
    take_proof,
    take_told,
    told_for,
    withdraw_node,
)
from tests.sync.nodes import add_site
from tests.tenants import create, delete, update

pytestmark = pytest.mark.anyio
HUB = 77
FIELDS = (
    {"name": "name", "type": "text", "unique": True, "searchable": True},
    {"name": "note", "type": "long_text"},
    {"name": "tags", "type": "references", "options": {"target": "sys.unit"}},
)


def on_disk(dsns, *markers):
    """Which files of the cluster hold each marker, in whatever case."""
    folder = Path(psycopg.conninfo.conninfo_to_dict(dsns.superuser)["host"]).parent / "postgres"
    found = {m: [] for m in markers}
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes().lower()
        for marker in markers:
            if marker.lower().encode() in data:
                found[marker].append(str(path.relative_to(folder)))
    return found


async def plant(tenant, unit, marker, count=30):
    """Records, changes of them, deleted ones, and whatever else is made of them."""
    ctx = await tenant.ctx(unit=unit)
    made = await tenant.apply(
        *(
            create("card", None, name=f"{marker} {n}", note=f"{marker} text", unit=tenant.units[unit])
            for n in range(count)
        ),
        ctx=ctx, command_id=uuid7(),
    )  # fmt: skip
    ids = [o.id for o in made.outcomes]
    assert (await tenant.apply(update("card", ids[0], note=f"{marker} again"), ctx=ctx)).committed
    assert (await tenant.apply(delete("card", ids[1]), ctx=ctx)).committed
    async with tenant.db.transaction(tenant.id) as tx:
        await tx.run(
            (Statement("INSERT INTO conflict VALUES ($1, $2, 'field', 'name', 'card', $3, "
                       "jsonb_build_array($4::text), now())"),
             (tenant.id, ids[2], tenant.units[unit], marker)),
            (Statement("INSERT INTO intake_run (tenant_id, id, connector, source, file_name, "
                       "sha256, size, created_by, profile_id, units) "
                       "VALUES ($1, $2, 'x', 'x', $3, '', 1, $1, $1, ARRAY[$4::uuid])"),
             (tenant.id, run := uuid7(), f"{marker}.xlsx", tenant.units[unit])),
            (Statement("INSERT INTO intake_row (tenant_id, run, no, sheet, line, key, data) "
                       "VALUES ($1, $2, 1, '', 1, '', jsonb_build_object('a', $3::text))"),
             (tenant.id, run, marker)),
            (Statement("INSERT INTO intake_lost (tenant_id, id, source_key, name, source, connector, "
                       "code, detail, failed_at, created_by, units) "
                       "VALUES ($1, $2, 'x', $3, '', '', '', '', now(), $1, ARRAY[$4::uuid])"),
             (tenant.id, run, f"{marker}.sta", tenant.units[unit])),
            (Statement("INSERT INTO parked (tenant_id, id, stream, origin, oseq, peer, entries, "
                       "reason, body, is_logged) VALUES ($1, $2, $3, 9, 1, 9, 1, '', $4, true)"),
             (tenant.id, uuid7(), tenant.units[unit], marker.encode())),
        )  # fmt: skip
        await tx.run(
            (Statement("INSERT INTO job (tenant_id, id, job_kind, state, detail) "
                       "SELECT $1, gen_random_uuid(), 'x', 'done', $2 FROM generate_series(1, 50)"),
             (tenant.id, marker)),
            (Statement("ANALYZE record"), ()), (Statement("ANALYZE job"), ()),
        )  # fmt: skip
    return ids


async def acknowledge(tenant):
    """The hub has everything that was made here."""
    async with tenant.db.transaction(tenant.id) as tx:
        await tx.run(
            (Statement("INSERT INTO peer_stream (tenant_id, peer, stream, acked) "
                       "SELECT $1, $2, id, head FROM stream WHERE tenant_id = $1 "
                       "ON CONFLICT (tenant_id, peer, stream) DO UPDATE SET acked = EXCLUDED.acked"),
             (tenant.id, HUB)),
        )  # fmt: skip


async def counts(tenant, stream):
    return {
        table: int((await tenant.sql(
            f"SELECT count(*) FROM {table} WHERE tenant_id = $1 AND stream = $2", tenant.id, stream
        ))[0][0])
        for table in ("record", "change", "conflict", "parked", "peer_stream", "stream_vector")
    }  # fmt: skip


@pytest.fixture
async def held(db, tenant, dsns):
    """A site that holds north and south, and has work of both."""
    await tenant.add_kind("card", FIELDS)
    gone, kept = f"zqgone{uuid7().hex[-8:]}", f"zqkept{uuid7().hex[-8:]}"
    await plant(tenant, "north", gone)
    await plant(tenant, "south", kept)
    north, south = tenant.units["north"], tenant.units["south"]
    site, key = await add_site(dsns, tenant.id, [north, south])
    await take_told(db, tenant.id, await told_for(db, site, tenant.id), 1)
    return site, key, gone, kept


async def narrow(db, tenant, site):
    await change_scope(db, site, tenant.id, units=frozenset({tenant.units["south"]}))
    await take_told(db, tenant.id, await told_for(db, site, tenant.id), 1)


async def test_no_byte_of_a_withdrawn_stream_is_left(db, tenant, dsns, held):
    site, key, gone, kept = held
    north = tenant.units["north"]
    tools = Tools(hub=HUB, sign=key.sign)
    assert await purge(db, tenant.id, tools) is None, "nothing was withdrawn"
    await narrow(db, tenant, site)
    assert await purge(db, tenant.id, tools) is None, "the hub has not taken what was made here"
    assert (await counts(tenant, north))["change"] and on_disk(dsns, gone)[gone]
    await acknowledge(tenant)
    signed = await purge(db, tenant.id, tools)
    proof = msgspec.msgpack.decode(signed.proof, type=Proof)
    assert proof.left == {north: (0, 0)} and proof.is_scrubbed
    assert proof.gone[north][0] > 60
    assert set((await counts(tenant, north)).values()) == {0}
    found = on_disk(dsns, gone, kept)
    assert found[gone] == []
    assert found[kept], "what stays is there"
    assert (await tenant.sql("SELECT count(*) FROM record WHERE kind = 'card'"))[0] == ["30"]
    assert (await tenant.sql("SELECT count(*) FROM command"))[0] == ["1"]
    assert (await tenant.sql("SELECT file_name FROM intake_run")) == [[f"{kept}.xlsx"]]
    assert (await tenant.sql("SELECT name FROM intake_lost")) == [[f"{kept}.sta"]]
    assert await take_proof(db, site, tenant.id, signed)
    assert await open_withdrawals(db, site, tenant.id) == []
    await proved(db, tenant.id, signed)
    assert await purge(db, tenant.id, tools) is None
    again = await tenant.apply(
        create("card", None, name="S"), ctx=await tenant.ctx(unit="south"), command_id=uuid7()
    )
    assert again.committed


async def test_a_kill_anywhere_is_a_repetition(db, tenant, dsns, held, monkeypatch):
    site, key, gone, _ = held
    await narrow(db, tenant, site)
    await acknowledge(tenant)
    monkeypatch.setattr(purging, "ROWS_AT_ONCE", 7)

    class Killed(BaseException):
        pass

    real = db.transaction
    for at in range(1, 40):
        left = [at]

        def dying(*args, _left=left, **more):
            _left[0] -= 1
            if not _left[0]:
                raise Killed
            return real(*args, **more)

        monkeypatch.setattr(db, "transaction", dying)
        try:
            signed = await purge(db, tenant.id, Tools(hub=HUB, sign=key.sign))
        except Killed:
            continue
        break
    monkeypatch.setattr(db, "transaction", real)
    assert at > 3
    assert msgspec.msgpack.decode(signed.proof, type=Proof).left == {tenant.units["north"]: (0, 0)}
    assert on_disk(dsns, gone)[gone] == []


async def test_files_need_their_plane(db, tenant, dsns, held):
    site, key, *_ = held
    ctx = await tenant.ctx(door=Door.SYSTEM)
    file = create("sys.file", None, name="x", state="released", unit=tenant.units["north"])
    assert (await tenant.apply(file, ctx=ctx)).committed
    await narrow(db, tenant, site)
    await acknowledge(tenant)
    with pytest.raises(Unavailable):
        await purge(db, tenant.id, Tools(hub=HUB, sign=key.sign))
    assert (await counts(tenant, tenant.units["north"]))["record"], (
        "without it nobody knew its bytes"
    )


async def test_the_application_cannot_purge_what_is_not_withdrawn(db, tenant, held):
    from appliance.base.errors import ApplianceError

    for text in (
        f"SELECT purge_some('{tenant.units['south']}', 10)",
        "SELECT purge_tenant(10)",
        "SELECT forget_hold()",
    ):
        with pytest.raises(ApplianceError):
            await tenant.sql(text)
    await tenant.sql(f"SELECT begin_purge('{tenant.units['south']}', NULL)")
    assert (await counts(tenant, tenant.units["south"]))["change"]
    assert (await tenant.apply(create("card", None, name="N"))).committed


async def test_a_whole_tenant_leaves(db, tenant, dsns, held):
    site, key, gone, kept = held
    control = dsns.superuser.replace("nexus_pool", "nexus_control")
    await withdraw_node(db, site, tenant.id)
    await take_told(db, tenant.id, await told_for(db, site, tenant.id), 1)
    await acknowledge(tenant)
    signed = await purge(db, tenant.id, Tools(hub=HUB, sign=key.sign))
    proof = msgspec.msgpack.decode(signed.proof, type=Proof)
    assert set(proof.left.values()) == {(0, 0)} and proof.is_scrubbed
    assert on_disk(dsns, gone, kept) == {gone: [], kept: []}
    assert await take_proof(db, site, tenant.id, signed)
    async with await psycopg.AsyncConnection.connect(control, autocommit=True) as conn:
        selves = await (await conn.execute("SELECT id FROM node WHERE is_self")).fetchall()
        await conn.execute("UPDATE node SET is_self = false WHERE is_self")
        await conn.execute("UPDATE node SET is_self = true WHERE id = %s", (site,))
        try:
            await proved(db, tenant.id, signed)
            rows = await (
                await conn.execute("SELECT FROM tenant WHERE id = %s", (tenant.id,))
            ).fetchall()
            assert rows == []
        finally:
            await conn.execute("UPDATE node SET is_self = false WHERE id = %s", (site,))
            for (other,) in selves:
                await conn.execute("UPDATE node SET is_self = true WHERE id = %s", (other,))
    async with await psycopg.AsyncConnection.connect(dsns.superuser) as conn:
        for (table,) in await (
            await conn.execute("SELECT table_name FROM information_schema.columns "
                               "WHERE column_name = 'tenant_id' AND table_schema = 'public'")
        ).fetchall():  # fmt: skip
            row = await (
                await conn.execute(
                    f"SELECT count(*) FROM {table} WHERE tenant_id = %s", (tenant.id,)
                )
            ).fetchone()
            assert row == (0,), table
