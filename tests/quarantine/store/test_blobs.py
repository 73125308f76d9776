"""A blob from its first byte to its erasure, on a disk and in a bucket of a real S3 server."""

import asyncio
import hashlib
import os
import stat
import time
from uuid import UUID

import msgspec
import pytest

from appliance.base.ids import uuid7

from quarantine.store.blobs import Blobs
from quarantine.store.contents import join, leave, mend
from quarantine.store.faults import Damaged, KeyFault, Missing, PlaceDown, TooLarge
from quarantine.store.incoming import Incoming
from quarantine.store.keys import MasterKey
from quarantine.store.places import LocalPlace, address_of, open_bucket
from tests.quarantine.store.conftest import TENANT, pieces

MEBI = 1024 * 1024
LIMIT = 64 * MEBI


async def store(blobs, incoming, key, data):
    received = await incoming.receive(uuid7(), key, pieces(data), limit=LIMIT)
    content = join(None, received).content
    await blobs.settle(content)
    return msgspec.structs.replace(content, settled=True)


@pytest.mark.parametrize("size", [0, 1, MEBI - 1, MEBI, MEBI + 1, 5 * MEBI + 77])
def test_what_was_stored_comes_back_whole_and_in_ranges(place, incoming, tenant_key, run, size):
    data = os.urandom(size)

    async def go():
        blobs = Blobs(place, incoming)
        received = await incoming.receive(uuid7(), tenant_key, pieces(data), limit=LIMIT)
        assert received.sha256 == hashlib.sha256(data).hexdigest() and received.size == size
        content = join(None, received).content
        assert await (await blobs.open(content, tenant_key)).read() == data  # not settled yet
        await blobs.settle(content)
        assert list(incoming.folder.iterdir()) == []
        assert await (await blobs.open(content, tenant_key)).read() == data  # told late
        await blobs.settle(content)  # repeated after a crash
        settled = msgspec.structs.replace(content, settled=True)
        reader = await blobs.open(settled, tenant_key)
        assert await reader.read() == data
        for start, stop in ((0, 10), (MEBI - 3, MEBI + 3), (size - 5, size + 9), (size, size + 1)):
            low = max(start, 0)
            assert await reader.read(low, stop) == data[low:stop]
        assert await place.size(content.address) >= size + 28
        assert await blobs.addresses(TENANT) == [content.address]
        await blobs.erase(settled)
        await blobs.erase(settled)
        assert await place.size(content.address) is None and await blobs.addresses(TENANT) == []
        with pytest.raises(Missing):
            await blobs.open(settled, tenant_key)

    run(go())


def test_the_disk_holds_no_plaintext_and_is_closed_to_others(tmp_path, incoming, tenant_key, run):
    data = b"a sentence that must not be found on the disk " * 5000

    async def go():
        blobs = Blobs(LocalPlace(tmp_path, keep_free=0), incoming)
        return await store(blobs, incoming, tenant_key, data)

    content = run(go())
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert [str(p.relative_to(tmp_path)) for p in files] == [content.address]
    assert content.address.startswith(f"blobs/{TENANT}/{content.mark[:2]}/{content.mark}")
    assert b"sentence" not in files[0].read_bytes()
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    for folder in files[0].relative_to(tmp_path).parents:
        if str(folder) != ".":
            assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700


def test_a_cut_or_lost_object_is_named(place, incoming, tenant_key, run):
    data = os.urandom(3 * MEBI)

    async def go():
        blobs = Blobs(place, incoming)
        content = await store(blobs, incoming, tenant_key, data)
        sealed = bytes(await place.read(content.address, 0, 4 * MEBI))
        for cut, chunk in ((12 + 2 * (MEBI + 16), 2), (12 + MEBI, 0), (5, 0)):
            await place.put(content.address, pieces(sealed[:cut]))
            with pytest.raises(Damaged) as found:
                await (await blobs.open(content, tenant_key)).read()
            assert found.value.chunk == chunk
        other = await store(blobs, incoming, tenant_key, os.urandom(3 * MEBI))
        moved = bytes(await place.read(other.address, 0, 4 * MEBI))
        await place.put(content.address, pieces(moved))
        with pytest.raises(Damaged):
            await (await blobs.open(content, tenant_key)).read()
        await place.put(content.address, pieces(sealed))
        assert await (await blobs.open(content, tenant_key)).read() == data

    run(go())


def test_equal_bytes_are_kept_once_in_a_tenant_and_never_across_two(place, incoming, run):
    master = MasterKey(os.urandom(32))
    keys = {t: master.open_tenant_key(t, master.make_tenant_key(t)) for t in (TENANT, UUID(int=2))}
    one, two = keys.values()
    data = os.urandom(MEBI + 5)

    async def go():
        blobs = Blobs(place, incoming)
        content = await store(blobs, incoming, one, data)
        again = await incoming.receive(uuid7(), one, pieces(data), limit=LIMIT)
        assert again.mark == content.mark
        joined = join(content, again)
        assert not joined.fresh and joined.content.references == 2
        await incoming.discard(again.blob)
        foreign = await store(blobs, incoming, two, data)
        assert foreign.mark != content.mark
        assert len(await blobs.addresses(TENANT)) == 1
        with pytest.raises(KeyFault):
            await blobs.open(content, two)
        first = leave(joined.content)
        assert not first.gone
        assert await (await blobs.open(first.content, one)).read() == data
        second = leave(first.content)
        assert second.gone
        newer = await store(blobs, incoming, one, data)  # the same bytes come before the erasure
        await blobs.erase(second.content)
        assert await (await blobs.open(newer, one)).read() == data
        assert await blobs.erase_tenant(TENANT) == 1
        assert await (await blobs.open(foreign, two)).read() == data
        with pytest.raises(ValueError):
            leave(second.content)
        with pytest.raises(ValueError):
            join(foreign, again)

    run(go())


def test_without_its_key_a_blob_is_unreadable_wherever_its_bytes_are(place, incoming, run):
    async def go():
        blobs = Blobs(place, incoming)
        master = MasterKey(os.urandom(32))
        wrapped = master.make_tenant_key(TENANT)
        key = master.open_tenant_key(TENANT, wrapped)
        content = await store(blobs, incoming, key, b"kept")
        new = master.open_tenant_key(TENANT, master.make_tenant_key(TENANT))
        with pytest.raises(KeyFault):  # the tenant's key is forgotten
            await blobs.open(content, new)
        with pytest.raises(KeyFault):  # the blob's key is forgotten
            await blobs.open(msgspec.structs.replace(content, wrapped_key=b""), key)
        other = await incoming.receive(uuid7(), key, pieces(b"other"), limit=LIMIT)
        with pytest.raises(KeyFault):  # another blob's key is put in its place
            await blobs.open(msgspec.structs.replace(content, wrapped_key=other.wrapped_key), key)

    run(go())


class Cut(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 10, 40])
def test_a_connection_that_ends_leaves_nothing(incoming, tenant_key, run, after):
    async def cut():
        for _ in range(after):
            yield bytes(100_000)
        raise Cut

    async def go():
        with pytest.raises(Cut):
            await incoming.receive(uuid7(), tenant_key, cut(), limit=LIMIT)
        assert list(incoming.folder.iterdir()) == []

    run(go())


def test_a_cancelled_request_leaves_nothing(incoming, tenant_key, run):
    async def endless():
        while True:
            yield bytes(300_000)
            await asyncio.sleep(0)

    async def go():
        for delay in (0.0, 0.001, 0.02, 0.05):
            task = asyncio.create_task(
                incoming.receive(uuid7(), tenant_key, endless(), limit=10**12)
            )
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.sleep(0.1)
        assert list(incoming.folder.iterdir()) == []

    run(go())


def test_the_limit_is_counted_on_real_bytes(incoming, tenant_key, run):
    async def go():
        fits = await incoming.receive(uuid7(), tenant_key, pieces(bytes(500_000)), limit=500_000)
        assert fits.size == 500_000
        with pytest.raises(TooLarge) as found:
            await incoming.receive(uuid7(), tenant_key, pieces(bytes(500_001)), limit=500_000)
        assert found.value.limit == 500_000
        assert [p.name for p in incoming.folder.iterdir()] == [fits.blob.hex]

    run(go())


def test_what_nobody_finished_is_swept_after_an_hour(incoming, uploads, tenant_key, run):
    async def go():
        waits = await incoming.receive(uuid7(), tenant_key, pieces(b"waits"), limit=LIMIT)
        lost = await incoming.receive(uuid7(), tenant_key, pieces(b"lost"), limit=LIMIT)
        await uploads.start(old := uuid7(), tenant_key, size=5)
        (incoming.folder / f"{uuid7().hex}.part").write_bytes(b"killed in the middle")
        assert await incoming.sweep({waits.blob}) == []
        for path in incoming.folder.iterdir():
            os.utime(path, (time.time() - 3700,) * 2)
        await uploads.start(young := uuid7(), tenant_key, size=5)
        assert len(await incoming.sweep({waits.blob})) == 3
        left = {p.name for p in incoming.folder.iterdir()}
        assert left == {waits.blob.hex, f"{young.hex}.upload"}
        with pytest.raises(Missing):
            await uploads.look(old, tenant_key)
        assert lost.blob.hex not in left

    run(go())


def test_a_bucket_that_is_not_there_is_said_and_the_blob_waits(
    s3_endpoint, tmp_path, incoming, tenant_key, bucket, run
):
    async def go():
        received = await incoming.receive(uuid7(), tenant_key, pieces(b"patient"), limit=LIMIT)
        content = join(None, received).content
        keys = {"access_key_id": "k", "secret_access_key": "s"}
        for endpoint, name in ((s3_endpoint, "nowhere"), ("http://127.0.0.1:1", "b")):
            away = Blobs(open_bucket(name, endpoint=endpoint, **keys), incoming)
            with pytest.raises(PlaceDown) as found:
                await away.settle(content)
            assert "127.0.0.1" not in str(found.value)
            assert await (await away.open(content, tenant_key)).read() == b"patient"
        here = Blobs(bucket, incoming)
        await here.settle(content)
        assert await (await here.open(content, tenant_key)).read() == b"patient"

    run(go())


def test_a_file_of_another_file_system_is_copied_to_its_place(tmp_path, tenant_key, run):
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("there is no second file system here")

    async def go():
        folder = f"/dev/shm/nexus-test-{uuid7().hex}"
        incoming = Incoming(tmp_path.__class__(folder), keep_free=0)
        try:
            blobs = Blobs(LocalPlace(tmp_path, keep_free=0), incoming)
            data = os.urandom(2 * MEBI)
            content = await store(blobs, incoming, tenant_key, data)
            assert list(incoming.folder.iterdir()) == []
            assert await (await blobs.open(content, tenant_key)).read() == data
        finally:
            incoming.folder.rmdir()

    run(go())


def test_only_addresses_of_blobs_reach_the_disk(tmp_path, run):
    async def go():
        place = LocalPlace(tmp_path / "root", keep_free=0)
        (tmp_path / "root" / "secret").write_text("x")
        good = address_of(TENANT, "ab" * 32, uuid7())
        for bad in (
            "secret",
            "../x",
            f"{good}/../../x",
            good.upper(),
            good + "\n",
            "",
            "/etc/passwd",
        ):
            for call in (place.size(bad), place.delete(bad), place.read(bad, 0, 1)):
                with pytest.raises(ValueError):
                    await call
            with pytest.raises(ValueError):
                await place.put(bad, pieces(b"x"))
        assert (tmp_path / "root" / "secret").exists()

    run(go())


def test_a_lost_object_is_mended_by_the_same_bytes(place, incoming, tenant_key, run):
    data = os.urandom(100_000)

    async def go():
        blobs = Blobs(place, incoming)
        content = await store(blobs, incoming, tenant_key, data)
        assert await blobs.holds(content)
        await place.put(content.address, pieces(b"short"))
        assert not await blobs.holds(content)
        await place.delete(content.address)
        assert not await blobs.holds(content)
        received = await incoming.receive(uuid7(), tenant_key, pieces(data), limit=LIMIT)
        mended = mend(content, received).content
        assert mended.references == 2
        await blobs.settle(mended)
        await blobs.erase(content)
        assert await blobs.holds(mended)
        assert await (await blobs.open(mended, tenant_key)).read() == data
        other = await incoming.receive(uuid7(), tenant_key, pieces(b"other"), limit=LIMIT)
        with pytest.raises(ValueError):
            mend(content, other)

    run(go())


def test_an_id_is_used_once(incoming, uploads, tenant_key, run):
    async def go():
        received = await incoming.receive(uuid7(), tenant_key, pieces(b"first"), limit=LIMIT)
        with pytest.raises(ValueError):
            await incoming.receive(received.blob, tenant_key, pieces(b"second"), limit=LIMIT)
        await uploads.start(blob := uuid7(), tenant_key, size=5)
        with pytest.raises(ValueError):
            await uploads.start(blob, tenant_key, size=6)

    run(go())


def test_bytes_and_names_are_on_the_disk_before_anything_is_acknowledged(
    tmp_path, incoming, uploads, tenant_key, run, monkeypatch
):
    """What is flushed is recorded on its way to the system, which still does it."""
    flushed, fsync = [], os.fsync

    def record(fd):
        flushed.append(os.readlink(f"/proc/self/fd/{fd}").removeprefix(f"{tmp_path}/"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)

    async def go():
        received = await incoming.receive(uuid7(), tenant_key, pieces(b"x"), limit=LIMIT)
        assert flushed == [f"incoming/{received.blob.hex}.part", "incoming"]
        flushed.clear()
        content = join(None, received).content
        await Blobs(LocalPlace(tmp_path, keep_free=0), incoming).settle(content)
        folder = os.path.dirname(content.address)
        assert flushed[-2:] == [folder, "incoming"]
        assert set(flushed[:-2]) >= {"blobs", f"blobs/{TENANT}"}  # the new folders' names
        await uploads.start(blob := uuid7(), tenant_key, size=5)
        flushed.clear()
        await uploads.append(blob, tenant_key, 0, pieces(b"part"))
        assert flushed == [f"incoming/{blob.hex}.upload"]

    run(go())
