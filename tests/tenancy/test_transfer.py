"""Out into a file and in again: equal counts and hashes, or a refusal that names the table."""

import asyncio
import stat
import struct

import psycopg
import pytest
import zstandard

from appliance.base.errors import Clash, Invalid, Refused
from appliance.db import migrate
from appliance.tenancy import (
    backup_tenant,
    close_tenant,
    create_dedicated,
    erase_tenant,
    export_tenant,
    find_tenant,
    import_tenant,
    list_backups,
    list_placements,
    read_manifest,
    restore_tenant,
    run_drill,
    suspend,
)
from appliance.tenancy.archive import _LEAD, FORMAT, TableSum
from tests.tenancy.rows import count, make, run, sums

pytestmark = pytest.mark.anyio
NOW = migrate.head(migrate.PLACEMENT).encode()


def as_sums(found):
    return {name: TableSum(end.rows, end.sha256) for name, end in found.items()}


async def test_export_and_import_elsewhere_are_equal(servers, second, slug, tmp_path):
    made, bystander = await make(servers, slug), await make(servers, slug + "-by")
    await run(
        servers, made.target, made.id, "UPDATE session SET ended_at = now() WHERE sort = 'login'"
    )
    before, others = (
        await sums(servers, made.target, made.id),
        await sums(servers, "nexus_pool", bystander.id),
    )
    path, told = tmp_path / "a.nxt", {}
    manifest = await export_tenant(servers, made.id, path, node="hub", progress=told.__setitem__)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert as_sums(before) == manifest.tables == read_manifest(path).tables
    assert (manifest.slug, manifest.tenant, manifest.node) == (slug, made.id, "hub")
    assert told == {name: end.rows for name, end in before.items()}
    with pytest.raises(Clash) as refused:
        await import_tenant(servers, path, second.name)
    assert refused.value.code == "tenant.exists"

    await close_tenant(servers, made.id)
    await erase_tenant(servers, made.id, slug)
    assert await count(servers, "nexus_pool", made.id) == 0
    await import_tenant(servers, path, second.name, slug=slug + "-new")
    found = await find_tenant(servers, slug + "-new")
    assert (found.id, found.state, found.target) == (made.id, "active", second.target)
    assert await sums(servers, second.target, made.id) == before
    assert await sums(servers, "nexus_pool", bystander.id) == others
    top = "SELECT max(id) FROM outbox"
    (high,) = await run(servers, second.target, made.id, top + " WHERE tenant_id = %s", made.id)
    new = "INSERT INTO outbox (tenant_id, topic, payload) VALUES (%s, 'x', '{}') RETURNING id"
    (added,) = await run(servers, second.target, made.id, new, made.id)
    assert added[0] > high[0]


async def test_sign_ins_end_when_a_tenant_comes_from_a_file(servers, second, slug, tmp_path):
    made = await make(servers, slug)
    await export_tenant(servers, made.id, tmp_path / "a.nxt")
    await close_tenant(servers, made.id)
    await erase_tenant(servers, made.id, slug)
    await restore_tenant(servers, tmp_path / "a.nxt", second.name)
    live = "SELECT sort FROM session WHERE tenant_id = %s AND ended_at IS NULL"
    assert await run(servers, second.target, made.id, live, made.id) == [("api_key",)]


async def test_replace_needs_a_suspended_tenant_and_is_whole(servers, slug, tmp_path):
    made = await make(servers, slug)
    await run(
        servers,
        made.target,
        made.id,
        "UPDATE session SET ended_at = now() WHERE tenant_id = %s",
        made.id,
    )
    before = await sums(servers, made.target, made.id)
    path = tmp_path / "a.nxt"
    await export_tenant(servers, made.id, path)
    await run(servers, made.target, made.id, "DELETE FROM record WHERE tenant_id = %s", made.id)
    with pytest.raises(Clash, match="--replace"):
        await restore_tenant(servers, path)
    with pytest.raises(Clash, match="suspend it"):
        await restore_tenant(servers, path, replace=True)
    await suspend(servers, made.id)
    with pytest.raises(Invalid, match="where it is"):
        await restore_tenant(servers, path, "elsewhere", replace=True)
    await restore_tenant(servers, path, replace=True)
    assert await sums(servers, made.target, made.id) == before
    assert (await find_tenant(servers, slug)).state == "suspended"
    fences = "SELECT count(*) FROM tenant_fence WHERE tenant_id = %s"
    assert await run(servers, made.target, made.id, fences, made.id) == [(0,)]


async def damaged(path, tmp_path, change):
    data = bytearray(path.read_bytes())
    bad = tmp_path / "bad.nxt"
    bad.write_bytes(bytes(change(data)))
    return bad


def flip(data):
    data[len(data) // 2] ^= 4
    return data


def other_version(data):
    data[8:10] = struct.pack(">H", 9)
    return data


def repack(data, old, new):
    """Change the content under a correct compression, checksum and length."""
    body = zstandard.ZstdDecompressor().decompressobj().decompress(bytes(data[_LEAD.size :]))
    assert old in body
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(body.replace(old, new))
    return _LEAD.pack(b"NXTENANT", FORMAT, len(packed)) + packed


async def test_a_damaged_archive_writes_nothing_and_says_where(servers, second, slug, tmp_path):
    made = await make(servers, slug, rows=400)
    path = tmp_path / "a.nxt"
    manifest = await export_tenant(servers, made.id, path)
    await close_tenant(servers, made.id)
    await erase_tenant(servers, made.id, slug)
    cases = [
        (lambda d: d[: len(d) // 2], r"ends in table \w+; expected"),
        (lambda d: d[:-3], r"(truncated|damaged|expected)"),
        (lambda d: d + b"xx", r"(bytes of content; expected|damaged in its manifest)"),
        (lambda d: d[:10], r"not a tenant archive"),
        (flip, r"[Tt]able \w+: .*Nothing was written"),
        (other_version, r"format 9; this program reads formats 1 and 2"),
        (lambda d: repack(d, b"10.50", b"10.51"), r"Table record: expected 400 rows with SHA-256"),
        (
            lambda d: repack(d, b'"schema_revision":"' + NOW, b'"schema_revision":"0001'),
            r"schema revision 0001, this placement has .* start this version over that folder",
        ),
        (
            lambda d: repack(d, b'"schema_revision":"' + NOW + b'"', b'"schema_revision":"9999"'),
            r"schema revision 9999, this placement has .* newer Nexus: upgrade this node",
        ),
    ]
    for change, text in cases:
        bad = await damaged(path, tmp_path, change)
        with pytest.raises(Invalid, match=text):
            await import_tenant(servers, bad, second.name)
        assert await count(servers, second.target, made.id) == 0
        with pytest.raises(Refused):
            await find_tenant(servers, str(made.id))
    assert (await import_tenant(servers, path, second.name)).tables == manifest.tables


async def test_rows_of_another_tenant_in_an_archive_are_refused(servers, second, slug, tmp_path):
    made, victim = await make(servers, slug), await make(servers, slug + "-v")
    path = tmp_path / "a.nxt"
    await export_tenant(servers, made.id, path)
    await close_tenant(servers, made.id)
    await erase_tenant(servers, made.id, slug)

    # The heading names a third tenant, the rows still the first: hashes are right, owner is not.
    body = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()[_LEAD.size :])
    old, new = f'"tenant":"{made.id}"'.encode(), f'"tenant":"{slug_id(made.id)}"'.encode()
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(body.replace(old, new))
    path.write_bytes(_LEAD.pack(b"NXTENANT", FORMAT, len(packed)) + packed)
    with pytest.raises(Invalid, match="holds rows of another tenant") as refused:
        await import_tenant(servers, path, second.name)
    assert refused.value.code == "archive.foreign_rows"
    assert await count(servers, second.target, made.id) == 0
    assert await count(servers, "nexus_pool", victim.id) > 0


def slug_id(tenant):
    return str(tenant)[:-1] + ("0" if str(tenant)[-1] != "0" else "1")


async def test_a_cancelled_import_or_export_leaves_nothing(servers, second, slug, tmp_path):
    made = await make(servers, slug)
    path = tmp_path / "a.nxt"

    async def cancelled(start):
        def stop(table, rows):
            if table == "record":
                task.cancel()

        task = asyncio.create_task(start(stop))
        with pytest.raises(asyncio.CancelledError):
            await task

    await cancelled(lambda stop: export_tenant(servers, made.id, path, progress=stop))
    assert list(tmp_path.iterdir()) == []
    await export_tenant(servers, made.id, path)
    await close_tenant(servers, made.id)
    await erase_tenant(servers, made.id, slug)
    await cancelled(lambda stop: import_tenant(servers, path, second.name, progress=stop))
    assert await count(servers, second.target, made.id) == 0
    await import_tenant(servers, path, second.name)


async def test_backup_keeps_the_newest_and_only_its_own(servers, slug, tmp_path):
    made = await make(servers, slug)
    for name in (
        f"{slug}-20200101T000000Z.nxt",
        f"{slug}-20200102T000000Z.nxt",
        f"{slug}-x-20200101T000000Z.nxt",
        "notes.txt",
    ):
        (tmp_path / name).write_bytes(b"old")
    done = await backup_tenant(servers, made.id, tmp_path, keep=2)
    assert done.manifest == read_manifest(done.path)
    assert [p.name for p in done.removed] == [f"{slug}-20200101T000000Z.nxt"]
    assert list_backups(tmp_path, slug)[-1] == done.path
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(Invalid):
        await backup_tenant(servers, made.id, tmp_path, keep=0)


async def test_a_drill_shows_a_good_and_a_bad_backup(servers, dsns, slug, tmp_path):
    made = await make(servers, slug)
    done = await backup_tenant(servers, made.id, tmp_path)
    seen = []

    async def verify(tx, tenant):
        from appliance.db.wire import Statement

        (rows,) = await tx.run(
            (Statement("SELECT count(*) FROM change WHERE tenant_id = $1"), (tenant,))
        )
        seen.append(int(rows.first()[0]))
        return []

    good = await run_drill(servers, done.path, verify=verify)
    assert good.ok and good.manifest == done.manifest and seen == [50]

    async def broken(tx, tenant):
        return ["stream shared breaks at 3"]

    assert (await run_drill(servers, done.path, verify=broken)).faults == (
        "stream shared breaks at 3",
    )
    bad = await run_drill(servers, await damaged(done.path, tmp_path, flip), verify=verify)
    assert not bad.ok and "Nothing was written" in bad.faults[0]
    with psycopg.connect(dsns.superuser) as conn:
        left = conn.execute("SELECT datname FROM pg_database WHERE datname LIKE 'nexus_drill%'")
        assert left.fetchall() == []


async def test_dropping_a_dedicated_tenant_touches_nobody_else(servers, dsns, slug):
    one = await make(servers, slug, (await create_dedicated(servers, slug)).name)
    two = await make(servers, slug + "-2", (await create_dedicated(servers, slug + "-2")).name)
    pooled = await make(servers, slug + "-3")
    before = {t.id: await sums(servers, t.target, t.id) for t in (two, pooled)}
    with pytest.raises(Clash, match="dedicated"):
        await make(servers, slug + "-4", one.placement)
    with pytest.raises(Clash, match="close it first"):
        await erase_tenant(servers, one.id, slug)
    await close_tenant(servers, one.id)
    with pytest.raises(Invalid, match="repeat its short name"):
        await erase_tenant(servers, one.id, "other")
    await erase_tenant(servers, one.id, slug)
    with psycopg.connect(dsns.superuser) as conn:
        databases = {r[0] for r in conn.execute("SELECT datname FROM pg_database").fetchall()}
    assert one.target not in databases and two.target in databases
    assert one.placement not in {p.name for p in await list_placements(servers)}
    assert {t.id: await sums(servers, t.target, t.id) for t in (two, pooled)} == before
