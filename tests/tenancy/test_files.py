"""A tenant whole is a tenant with its files: out, in, proved, moved and gone, over real planes."""

import asyncio
import shutil
import sqlite3
import tempfile
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard

from appliance.base.errors import Clash, Misconfigured, Refused, Unavailable
from appliance.base.ids import uuid7
from appliance.intake.files import forget_tenant
from appliance.tenancy import (
    backup_tenant,
    close_tenant,
    erase_tenant,
    export_tenant,
    find_tenant,
    import_tenant,
    move_tenant,
    read_manifest,
    restore_tenant,
    run_drill,
    suspend,
)
from appliance.tenancy.archive import _LEAD
from quarantine.contract import Erased
from tests.http.conftest import valkey_url
from tests.plane import PlaneProcesses
from tests.quarantine.planes import job, pieces
from tests.tenancy.rows import count, make, run, sums

__all__ = ["valkey_url"]
pytestmark = pytest.mark.anyio
BIG = bytes(range(256)) * 12_000
BODIES = [b"What was agreed.\n", BIG, b"", b"What was agreed.\n"]


@pytest.fixture
def processes(valkey_url):
    folder = Path(tempfile.mkdtemp(prefix="nexus-tenancy-"))
    folder.chmod(0o755)
    found = PlaneProcesses(folder / "content", valkey_url)
    found.start("serve")
    yield found
    found.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def plane(processes):
    found = processes.client()
    yield found
    await found.close()


def in_ledger(processes, text, *values):
    with sqlite3.connect(processes.folder / "ledger.sqlite3", timeout=20) as db:
        return db.execute(text, values).fetchall()


def say(processes, blob, verdict):
    """The plane's word on a blob, as its worker would write it."""
    in_ledger(
        processes, "UPDATE blob SET verdict = ?, judged = 1, todo = 0 WHERE id = ?", verdict, blob.hex
    )  # fmt: skip


ROW = """
INSERT INTO record (tenant_id, id, kind, stream, data, stamps, created_at, created_by, updated_at,
  updated_by, deleted_at, t2) VALUES (%s, %s, 'sys.file', %s, jsonb_build_object('name', 'letter.txt',
  'state', %s::text, 'size', %s::bigint, 'sha256', %s::text), '1.1', now(), %s, now(), %s,
  CASE WHEN %s THEN now() END, %s)
"""


async def add_row(servers, made, ident, body, state, *, deleted=False):
    t = made.id
    digest = sha256(body).hexdigest()
    await run(
        servers, made.target, t, ROW, t, ident, t, state, len(body), digest, t, t, deleted, state
    )  # fmt: skip


async def add(servers, plane, made, body, state="released", **more):
    given = job(made.id)
    await plane.put(given, pieces(body))
    await add_row(servers, made, given.blob, body, state, **more)
    return given.blob


async def copied(plane, tenant, blob):
    async with plane.copy(tenant, blob) as (told, parts):
        body = b"".join([part async for part in parts])
    assert (told.sha256, told.size) == (sha256(body).hexdigest(), len(body))
    return body


async def read(plane, tenant, blob):
    return b"".join([part async for part in plane.read(tenant, blob)])


async def gone(servers, made, plane):
    await close_tenant(servers, made.id)
    return await erase_tenant(servers, made.id, made.slug, plane=plane)


async def test_bytes_go_out_and_come_back_unjudged_in_an_empty_plane(
    servers, second, slug, plane, processes, valkey_url, tmp_path
):
    made = await make(servers, slug)
    blobs = [await add(servers, plane, made, body) for body in BODIES]
    for blob in blobs:
        say(processes, blob, "clean")
    path = tmp_path / "a.nxt"
    told = {}
    manifest = await export_tenant(
        servers, made.id, path, plane=plane, progress=told.__setitem__
    )  # fmt: skip
    before = await sums(servers, made.target, made.id)
    assert (manifest.files.count, manifest.files.bytes) == (4, sum(map(len, BODIES)))
    assert manifest.files.missing == manifest.files.rejected == () and told["files"] == 4
    assert read_manifest(path) == manifest
    await gone(servers, made, plane)

    other = PlaneProcesses(tmp_path / "other", valkey_url)
    other.start("serve")
    there = other.client()
    try:
        with pytest.raises(Misconfigured, match="bytes of 4 files.*no content plane"):
            await import_tenant(servers, path, second.name)
        await import_tenant(servers, path, second.name, plane=there, grace_s=0)
        after = await sums(servers, second.target, made.id)
        assert {k: v for k, v in after.items() if k != "session"} == {
            k: v for k, v in before.items() if k != "session"
        }
        for blob, body in zip(blobs, BODIES, strict=True):
            assert await copied(there, made.id, blob) == body
            look = await there.look(made.id, blob)
            assert look.verdict is None and look.why
            with pytest.raises(Refused):
                await read(there, made.id, blob)
        # Equal bytes are kept once again, people's own files come first.
        assert in_ledger(other, "SELECT count(*) FROM content") == [(3,)]
        assert set(in_ledger(other, "SELECT priority, todo FROM blob")) == {(5, 1)}
    finally:
        await there.close()
        other.stop()


async def test_erasure_takes_key_bytes_and_words_and_can_be_repeated(
    servers, slug, plane, processes
):
    made, neighbour = await make(servers, slug), await make(servers, slug + "-n")
    kept = await add(servers, plane, neighbour, BIG)
    for body in BODIES:
        await add(servers, plane, made, body)
    await close_tenant(servers, made.id)
    # As a crash between the two planes leaves it: the bytes are gone, the rows are not.
    assert await plane.erase(made.id) == Erased(4, len(BIG) + len(BODIES[0]))
    assert await count(servers, made.target, made.id) > 0
    erasure = await erase_tenant(servers, made.id, slug, plane=plane)
    assert (erasure.files, erasure.bytes, erasure.asked) == (4, len(BIG) + len(BODIES[0]), True)
    assert erasure.rows > 4 and await count(servers, made.target, made.id) == 0
    with pytest.raises(Refused):
        await find_tenant(servers, slug)
    hexa = made.id.hex
    assert in_ledger(processes, "SELECT wrapped FROM tenant WHERE id = ?", hexa) == [(None,)]
    for table in ("blob", "content"):
        assert not in_ledger(processes, f"SELECT 1 FROM {table} WHERE tenant = ?", hexa)
    assert not [p for p in (processes.folder / "store").rglob("*") if str(made.id) in str(p)
                and p.is_file()]  # fmt: skip
    assert (processes.folder / "ledger.sqlite3-wal").stat().st_size == 0
    with pytest.raises(Refused, match="erased"):
        await plane.put(job(made.id), pieces(b"late"))
    assert await copied(plane, neighbour.id, kept) == BIG


async def test_erasure_of_files_needs_the_plane_and_says_so_before_anything_goes(
    servers, slug, plane, processes, tmp_path
):
    made, bare = await make(servers, slug), await make(servers, slug + "-b")
    blob = await add(servers, plane, made, BIG)
    await close_tenant(servers, made.id)
    await close_tenant(servers, bare.id)
    rows = await count(servers, made.target, made.id)
    imported = tmp_path / "intake" / made.id.hex / "a"
    imported.parent.mkdir(parents=True)
    imported.write_bytes(b"a price list")
    forget = partial(forget_tenant, tmp_path)
    with pytest.raises(Misconfigured, match=f"Tenant {slug} has 1 files to erase"):
        await erase_tenant(servers, made.id, slug, forget_here=forget)
    processes.kill("serve")
    with pytest.raises(Unavailable, match=f"Tenant {slug} has 1 files.*does not answer"):
        await erase_tenant(servers, made.id, slug, plane=plane, forget_here=forget)
    assert imported.exists() and await count(servers, made.target, made.id) == rows
    assert (await find_tenant(servers, slug)).state == "closed"
    # Who has no files needs nobody.
    assert not (await erase_tenant(servers, bare.id, slug + "-b", plane=plane)).asked
    processes.start("serve")
    assert await copied(plane, made.id, blob) == BIG
    done = await erase_tenant(servers, made.id, slug, plane=plane, forget_here=forget)
    assert done.files == 1 and list((tmp_path / "intake").iterdir()) == []


async def test_an_erased_tenant_comes_back_under_a_new_key(
    servers, second, slug, plane, processes, tmp_path
):
    made = await make(servers, slug)
    blob = await add(servers, plane, made, BIG)
    key = "SELECT wrapped FROM tenant WHERE id = ?"
    await export_tenant(servers, made.id, tmp_path / "a.nxt", plane=plane)
    (before,) = in_ledger(processes, key, made.id.hex)
    await gone(servers, made, plane)
    with pytest.raises(Refused):
        await copied(plane, made.id, blob)
    await restore_tenant(servers, tmp_path / "a.nxt", second.name, plane=plane)
    assert await copied(plane, made.id, blob) == BIG
    (after,) = in_ledger(processes, key, made.id.hex)
    assert after != before and after[0]
    # It can be erased once more, and only what went now is counted.
    again = await gone(servers, await find_tenant(servers, slug), plane)
    assert (again.files, again.bytes) == (1, len(BIG))


async def test_a_replaced_tenant_gets_back_what_was_lost_and_keeps_what_is_sound(
    servers, slug, plane, processes, tmp_path
):
    made = await make(servers, slug)
    lost, sound, damaged = [
        await add(servers, plane, made, body) for body in (BIG, b"sound", BIG + b"more")
    ]
    for blob in (lost, sound, damaged):
        say(processes, blob, "clean")
    await export_tenant(servers, made.id, tmp_path / "a.nxt", plane=plane)
    await plane.purge(made.id, lost)
    (name,) = [p for p in (processes.folder / "store").rglob(f"*.{damaged.hex}")]
    body = bytearray(name.read_bytes())
    body[len(body) // 2] ^= 1
    name.write_bytes(body)
    await suspend(servers, made.id)
    await restore_tenant(servers, tmp_path / "a.nxt", replace=True, plane=plane)
    assert await copied(plane, made.id, lost) == BIG
    assert await copied(plane, made.id, damaged) == BIG + b"more"
    verdicts = {b: (await plane.look(made.id, b)).verdict for b in (lost, sound, damaged)}
    # The plane's own word on its own sound bytes stands until it has looked again.
    assert verdicts == {lost: None, sound: "clean", damaged: None}
    assert in_ledger(processes, "SELECT count(*) FROM blob WHERE todo = 1") == [(3,)]
    await restore_tenant(servers, tmp_path / "a.nxt", replace=True, plane=plane)
    assert in_ledger(processes, "SELECT count(*), sum(refs) FROM content") == [(3, 3)]


async def test_an_archive_names_what_it_has_not_and_a_backup_then_takes_no_older_one_away(
    servers, second, slug, plane, processes, tmp_path
):
    made = await make(servers, slug)
    whole = await add(servers, plane, made, b"whole")
    first = await backup_tenant(servers, made.id, tmp_path, keep=1, plane=plane)
    never, purged, hostile = uuid7(), uuid7(), await add(servers, plane, made, b"hostile")
    await add_row(servers, made, never, b"never came", "released")
    await add_row(servers, made, purged, b"deleted and purged", "released", deleted=True)
    await add_row(servers, made, uuid7(), b"", "receiving")
    torn = await add(servers, plane, made, BIG)
    say(processes, hostile, "rejected")
    (name,) = [p for p in (processes.folder / "store").rglob(f"*.{torn.hex}")]
    # Its second half: the first chunk is on its way when it breaks.
    name.write_bytes(name.read_bytes()[:-100] + b"x" * 100)
    short = await backup_tenant(servers, made.id, tmp_path, keep=1, plane=plane)
    files = short.manifest.files
    assert (files.count, files.bytes) == (1, 5)
    assert (set(files.missing), files.rejected) == ({never, torn}, (hostile,))
    assert short.removed == () and first.path.exists()
    drill = await run_drill(servers, short.path)
    assert not drill.ok and len(drill.faults) == 2 and str(torn) in "".join(drill.faults)
    await gone(servers, made, plane)
    await import_tenant(servers, short.path, second.name, plane=plane, grace_s=0)
    assert in_ledger(processes, "SELECT id FROM blob") == [(whole.hex,)]


async def test_without_bytes_only_when_asked_for_and_older_archives_come_in(
    servers, second, slug, plane, processes, tmp_path
):
    made = await make(servers, slug)
    await add(servers, plane, made, BIG)
    path = tmp_path / "a.nxt"
    with pytest.raises(Misconfigured, match=f"Tenant {slug} has 1 files.*--without-files"):
        await export_tenant(servers, made.id, path)
    processes.kill("serve")
    with pytest.raises(Unavailable, match="does not answer.*--without-files"):
        await export_tenant(servers, made.id, path, plane=plane)
    assert list(tmp_path.iterdir()) == []
    manifest = await export_tenant(servers, made.id, path, with_files=False)
    assert manifest.files is None
    drill = await run_drill(servers, path)
    assert drill.ok and drill.records_only == 1
    # What a program wrote that knew nothing of files' bytes: format 1, a manifest without them.
    body = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()[_LEAD.size :])
    old = body.replace(b'"format":2', b'"format":1').replace(b',"files":null', b"")
    at = old.rindex(b"M\x00")
    old = old[:at] + b"M" + (len(old) - at - 5).to_bytes(4, "big") + old[at + 5 :]
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(old)
    path.write_bytes(_LEAD.pack(b"NXTENANT", 1, len(packed)) + packed)
    processes.start("serve")
    await gone(servers, made, plane)
    await import_tenant(servers, path, second.name)
    assert (await find_tenant(servers, slug)).state == "active"


async def test_a_drill_holds_bytes_against_records(servers, slug, plane, tmp_path):
    made = await make(servers, slug)
    await add(servers, plane, made, BIG)
    other = await add(servers, plane, made, b"these bytes")
    done = await backup_tenant(servers, made.id, tmp_path, plane=plane)
    assert (await run_drill(servers, done.path)).ok
    await run(
        servers, made.target, made.id,
        "UPDATE record SET data = data || jsonb_build_object('sha256', repeat('0', 64)) "
        "WHERE tenant_id = %s AND id = %s", made.id, other,
    )  # fmt: skip
    done = await backup_tenant(servers, made.id, tmp_path, plane=plane)
    (fault,) = (await run_drill(servers, done.path)).faults
    assert str(other) in fault and "its record says 11 bytes" in fault


async def test_a_move_leaves_files_where_they_are(servers, second, slug, plane, processes):
    made = await make(servers, slug)
    blob = await add(servers, plane, made, BIG)
    say(processes, blob, "clean")
    before = in_ledger(processes, "SELECT * FROM blob")
    await move_tenant(servers, made.id, second.name, grace_s=0)
    assert in_ledger(processes, "SELECT * FROM blob") == before
    assert await read(plane, made.id, blob) == BIG
    moved = await find_tenant(servers, slug)
    assert moved.placement == second.name
    assert (await gone(servers, moved, plane)).files == 1


async def test_an_import_that_fails_takes_back_what_it_brought_and_nothing_else(
    servers, second, slug, plane, processes, tmp_path
):
    made = await make(servers, slug)
    mine, theirs = [await add(servers, plane, made, body) for body in (BIG, b"here before")]
    path = tmp_path / "a.nxt"
    await export_tenant(servers, made.id, path, plane=plane)
    await close_tenant(servers, made.id)
    # The database is lost, the plane is not: one file is there still.
    await plane.purge(made.id, mine)
    await run(servers, made.target, made.id, "DELETE FROM record WHERE tenant_id = %s", made.id)
    await erase_tenant(servers, made.id, slug)

    def stop(name, _):
        if name == "record":
            task.cancel()

    task = asyncio.create_task(
        import_tenant(servers, path, second.name, plane=plane, progress=stop)
    )
    with pytest.raises(asyncio.CancelledError):
        await task
    assert in_ledger(processes, "SELECT id FROM blob") == [(theirs.hex,)]
    assert await count(servers, second.target, made.id) == 0
    await import_tenant(servers, path, second.name, plane=plane, grace_s=0)
    assert await copied(plane, made.id, mine) == BIG


async def test_a_full_or_foreign_plane_stops_a_restore_before_any_row(
    servers, second, slug, plane, processes, tmp_path
):
    made = await make(servers, slug)
    blob = await add(servers, plane, made, BIG)
    path = tmp_path / "a.nxt"
    await export_tenant(servers, made.id, path, plane=plane)
    await gone(servers, made, plane)
    # Somebody else's bytes lie under this id.
    await plane.put(
        job().__class__(blob, uuid7(), "x", job().policy, job().issued_at), pieces(b"x")
    )
    with pytest.raises((Refused, Clash)):
        await import_tenant(servers, path, second.name, plane=plane)
    assert await count(servers, second.target, made.id) == 0
    with pytest.raises(Refused):
        await find_tenant(servers, slug)


async def test_a_plane_that_is_killed_in_between_stops_all_and_all_can_be_repeated(
    servers, second, slug, plane, processes, tmp_path
):
    made = await make(servers, slug)
    blobs = [await add(servers, plane, made, BIG + bytes([n])) for n in range(8)]
    path = tmp_path / "a.nxt"
    await export_tenant(servers, made.id, path, plane=plane)
    await gone(servers, made, plane)

    async def killed(work):
        task = asyncio.create_task(work)
        while not task.done():
            if len(in_ledger(processes, "SELECT 1 FROM blob")) in (2, 3):
                processes.kill("serve")
                break
            await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await task
        processes.start("serve")

    await killed(import_tenant(servers, path, second.name, plane=plane))
    assert await count(servers, second.target, made.id) == 0
    with pytest.raises(Refused):
        await find_tenant(servers, slug)
    await import_tenant(servers, path, second.name, plane=plane, grace_s=0)
    for number, blob in enumerate(blobs):
        assert await copied(plane, made.id, blob) == BIG + bytes([number])

    def stop(name, _):
        if name == "record":
            processes.kill("serve")

    with pytest.raises(Unavailable):
        await export_tenant(servers, made.id, tmp_path / "b.nxt", plane=plane, progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nxt"]
