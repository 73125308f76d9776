"""The vault: a blob is there whole or not at all, whatever is killed, full, flipped or sent twice."""

import asyncio
import os
import sqlite3

import pytest

from appliance.base.ids import uuid7
from quarantine import ledger
from quarantine.contract import Stored
from quarantine.settings import Settings
from quarantine.store.faults import (
    Busy,
    Changed,
    Damaged,
    KeyFault,
    Missing,
    NoSpace,
    PlaceDown,
    TooLarge,
)
from quarantine.vault import Vault
from tests.quarantine.planes import job, pieces

pytestmark = pytest.mark.anyio
BODY = b"0123456789abcdef" * 150_000


def open_vault(folder):
    return Vault(Settings(data=str(folder), key_file="", redis_url=""))


@pytest.fixture
async def vault(tmp_path):
    found = open_vault(tmp_path)
    await found.start(recover=True)
    yield found
    found.close()


async def blob_of(vault, ident):
    return await vault.ledger.run(lambda db: ledger.find_blob(db, ident))


async def read(vault, ident):
    return await (await vault.open(await blob_of(vault, ident))).read()


def objects(folder):
    return sorted(p for p in (folder / "store").rglob("*") if p.is_file())


def incoming(folder):
    return sorted(p.name for p in (folder / "incoming").iterdir())


async def test_equal_bytes_lie_once_in_a_tenant_and_go_with_the_last(vault, tmp_path):
    tenant = uuid7()
    one, two, other = job(tenant), job(tenant), job()
    for each in (one, two, other):
        stored = await vault.receive(each, pieces(BODY))
        assert stored.size == len(BODY)
    assert len(objects(tmp_path)) == 2 and not incoming(tmp_path)
    await vault.purge(one.blob)
    assert await read(vault, two.blob) == BODY and await read(vault, other.blob) == BODY
    await vault.purge(two.blob)
    await vault.purge(two.blob)
    assert len(objects(tmp_path)) == 1 and await blob_of(vault, two.blob) is None


async def test_the_same_blob_again_is_answered_and_other_bytes_are_refused(vault, tmp_path):
    given = job()
    first = await vault.receive(given, pieces(BODY))
    assert await vault.receive(given, pieces(BODY, 7_001)) == first
    for other in (BODY[:-1], BODY + b"x", b"y" + BODY[1:], b""):
        with pytest.raises(Changed):
            await vault.receive(given, pieces(other))
    stolen = type(given)(given.blob, uuid7(), given.name, given.policy, given.issued_at)
    with pytest.raises(Changed):
        await vault.receive(stolen, pieces(BODY))
    assert await read(vault, given.blob) == BODY and not incoming(tmp_path)


async def test_two_senders_of_one_blob_at_a_time_do_not_meet(vault):
    given, go = job(), asyncio.Event()

    async def slowly():
        yield BODY[:1_500_000]
        await go.wait()
        yield BODY[1_500_000:]

    first = asyncio.create_task(vault.receive(given, slowly()))
    await asyncio.sleep(0.05)
    with pytest.raises(Busy):
        await vault.receive(given, pieces(b"other bytes"))
    go.set()
    assert (await first).size == len(BODY)
    assert await read(vault, given.blob) == BODY


async def test_what_breaks_on_the_way_leaves_nothing(vault, tmp_path):
    async def torn():
        yield BODY
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await vault.receive(job(), torn())
    with pytest.raises(TooLarge):
        await vault.receive(job(bytes_max=1_000_000), pieces(BODY))
    assert not incoming(tmp_path) and not objects(tmp_path)


async def test_a_cancelled_upload_leaves_nothing(vault, tmp_path):
    async def hanging():
        yield BODY
        await asyncio.sleep(60)

    task = asyncio.create_task(vault.receive(job(), hanging()))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not incoming(tmp_path) and not objects(tmp_path)


async def test_a_ledger_that_has_no_room_leaves_nothing_and_says_so(vault, tmp_path):
    await vault.receive(job(), pieces(b"earlier"))
    (pages,) = await vault.ledger.run(lambda db: db.execute("PRAGMA page_count").fetchone())
    await vault.ledger.run(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    long = job(name="n" * 20_000)
    long = type(long)(long.blob, uuid7(), long.name, long.policy, long.issued_at)
    with pytest.raises(NoSpace):
        await vault.receive(long, pieces(BODY))
    assert not incoming(tmp_path) and len(objects(tmp_path)) == 1


@pytest.mark.parametrize("when", ["noted", "placed"])
async def test_a_kill_after_the_ledger_knows_is_finished_at_the_next_start(tmp_path, when):
    """Before the rename, and between the rename and its note."""
    vault, given = open_vault(tmp_path), job()
    await vault.start(recover=True)

    class Killed(BaseException):
        pass

    async def die(*parts):
        if when == "placed":
            await take(*parts)
        raise Killed

    place = vault._blobs._place
    take, place.take = place.take, die
    with pytest.raises(Killed):
        await vault.receive(given, pieces(BODY))
    vault.close()
    anew = open_vault(tmp_path)
    await anew.start(recover=False)
    assert await read(anew, given.blob) == BODY, "the worker need not wait"
    await anew.start(recover=True)
    assert await read(anew, given.blob) == BODY and not incoming(tmp_path)
    anew.close()


async def test_what_was_half_sent_to_a_killed_process_goes_after_an_hour(vault, tmp_path):
    old, new = (tmp_path / "incoming" / f"{uuid7().hex}.part" for _ in range(2))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    await vault.sweep()
    assert incoming(tmp_path) == [new.name]


async def test_bytes_that_come_again_mend_what_is_damaged_for_all_who_have_them(vault, tmp_path):
    tenant = uuid7()
    first, second, third = (job(tenant) for _ in range(3))
    await vault.receive(first, pieces(BODY))
    (path,) = objects(tmp_path)
    body = bytearray(path.read_bytes())
    body[50] ^= 1
    path.write_bytes(body)
    with pytest.raises(Damaged):
        await read(vault, first.blob)
    await vault.ledger.run(lambda db: db.execute("UPDATE blob SET todo = 0, verdict = 'clean'"))
    await vault.receive(second, pieces(BODY))
    assert await read(vault, first.blob) == await read(vault, second.blob) == BODY
    assert await vault.ledger.run(
        lambda db: db.execute("SELECT count(*) FROM blob WHERE todo = 1").fetchone()
    ) == (2,), "all of them are looked at again"
    (mended,) = objects(tmp_path)
    mended.unlink()
    await vault.receive(third, pieces(BODY))
    for each in (first, second, third):
        assert await read(vault, each.blob) == BODY
        await vault.purge(each.blob)
    assert not objects(tmp_path) and not incoming(tmp_path)


async def test_a_place_that_is_away_keeps_nothing_half(vault, tmp_path):
    async def away(*_):
        raise PlaceDown("keep a blob")

    place = vault._blobs._place
    take, place.take = place.take, away
    given = job()
    with pytest.raises(PlaceDown):
        await vault.receive(given, pieces(BODY))
    assert await blob_of(vault, given.blob) is None and not incoming(tmp_path)
    place.take = take
    assert isinstance(await vault.receive(given, pieces(BODY)), Stored)
    assert await read(vault, given.blob) == BODY


@pytest.mark.parametrize("at", [3, 40, 1_500_000, -1])
async def test_a_flipped_byte_is_damage_wherever_it_is(vault, tmp_path, at):
    given = job()
    await vault.receive(given, pieces(BODY))
    (path,) = objects(tmp_path)
    body = bytearray(path.read_bytes())
    body[at] ^= 1
    path.write_bytes(body)
    with pytest.raises(Damaged):
        await read(vault, given.blob)


async def test_swapped_and_cut_objects_are_damage(vault, tmp_path):
    tenant = uuid7()
    one, two = job(tenant), job(tenant)
    await vault.receive(one, pieces(BODY))
    await vault.receive(two, pieces(BODY[::-1]))
    first, second = objects(tmp_path)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    for each in (one, two):
        with pytest.raises(Damaged):
            await read(vault, each.blob)
    os.truncate(second, 5_000)
    with pytest.raises(Damaged):
        await read(vault, two.blob)


async def test_an_erased_tenant_reads_and_takes_nothing(vault, tmp_path):
    given, kept = job(), job()
    await vault.receive(given, pieces(BODY))
    await vault.receive(kept, pieces(BODY))
    blob = await blob_of(vault, given.blob)
    await vault.erase(given.tenant)
    with pytest.raises(Missing):
        await vault.open(blob)
    with pytest.raises(KeyFault):
        await vault.receive(job(given.tenant), pieces(BODY))
    assert await read(vault, kept.blob) == BODY and len(objects(tmp_path)) == 1


async def test_a_new_master_key_is_not_made_beside_old_blobs(vault, tmp_path):
    await vault.receive(job(), pieces(b"kept"))
    (tmp_path / "master.key").unlink()
    again = open_vault(tmp_path)
    with pytest.raises(KeyFault):
        await again.start(recover=True)
    again.close()


async def test_no_plaintext_and_no_name_of_the_bytes_lies_on_the_disk(vault, tmp_path):
    secret = b"what nobody but its readers may see"
    await vault.receive(job(), pieces(secret * 1000))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes()
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as db:
        assert db.execute("SELECT count(*) FROM blob").fetchone() == (1,)
    db.close()
