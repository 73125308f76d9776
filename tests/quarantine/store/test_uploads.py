"""Uploads in parts: nothing acknowledged is lost, nothing else is kept, no other bytes slip in."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import zlib
from uuid import UUID

import pytest

from appliance.base.ids import uuid7
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quarantine.store import journal as journal_module
from quarantine.store.blobs import Blobs
from quarantine.store.contents import join
from quarantine.store.faults import (
    Busy,
    Changed,
    Damaged,
    Incomplete,
    Missing,
    Spoiled,
    TooLarge,
    TooManyParts,
    WrongOffset,
)
from quarantine.store.incoming import Incoming
from quarantine.store.keys import MasterKey
from quarantine.store.places import LocalPlace
from quarantine.store.uploads import Uploads
from tests.quarantine.store.conftest import TENANT, pieces

MEBI = 1024 * 1024


async def read_back(incoming, received, key):
    blobs = Blobs(LocalPlace(incoming.folder / "place", keep_free=0), incoming)
    return await (await blobs.open(join(None, received).content, key)).read()


def again(uploads):
    """What a restarted process sees."""
    return Uploads(Incoming(uploads._incoming.folder, keep_free=0))


def test_an_upload_in_parts_over_restarts_gives_the_file(uploads, incoming, tenant_key, run):
    data = os.urandom(3 * MEBI + 123)

    async def go():
        blob = uuid7()
        assert (await uploads.start(blob, tenant_key, size=len(data))).offset == 0
        with pytest.raises(Incomplete):
            await uploads.finish(blob, tenant_key)
        at = 0
        for length in (1, 70_000, MEBI, MEBI + 1, 5, len(data)):
            now = again(uploads)
            progress = await now.look(blob, tenant_key)
            assert (progress.offset, progress.size) == (at, len(data))
            part = data[at : at + length]
            at = (await now.append(blob, tenant_key, at, pieces(part))).offset
        assert at == len(data)
        raw = b"".join(p.read_bytes() for p in incoming.folder.iterdir())
        assert data[:64] not in raw and data[-64:] not in raw
        received = await again(uploads).finish(blob, tenant_key)
        assert received.sha256 == hashlib.sha256(data).hexdigest()
        whole = incoming.path_of(blob).read_bytes()
        assert await uploads.finish(blob, tenant_key) == received  # a crash before the ledger
        assert incoming.path_of(blob).read_bytes() == whole
        await uploads.discard(blob)
        await uploads.discard(blob)
        assert await read_back(incoming, received, tenant_key) == data
        with pytest.raises(Missing):
            await uploads.look(blob, tenant_key)

    run(go())


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 300), st.integers(0, 120), st.sampled_from("plain crc torn".split())
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_any_order_of_parts_and_restarts_keeps_a_prefix_of_the_file(tmp_path_factory, parts, fresh):
    """A model: what is held is always the first `offset` bytes, and offset never goes back."""
    data = bytes(i * 7 % 251 for i in range(300))
    master = MasterKey(bytes(32))
    key = master.open_tenant_key(TENANT, master.make_tenant_key(TENANT))
    uploads = Uploads(Incoming(tmp_path_factory.mktemp("u"), keep_free=0))

    async def go():
        nonlocal uploads
        blob, offset = uuid7(), 0
        await uploads.start(blob, key, size=len(data))
        for start, length, how in parts:
            part = data[start : start + length]
            crc = zlib.crc32(part) if how == "crc" else None
            if how == "torn":  # what a crash in the middle of a write leaves
                path = uploads._path(blob)
                path.write_bytes(path.read_bytes() + os.urandom(length))
            elif start > offset:
                with pytest.raises(WrongOffset) as found:
                    await uploads.append(blob, key, start, pieces(part), crc32=crc)
                assert found.value.expected == offset
            else:
                done = await uploads.append(blob, key, start, pieces(part, 40), crc32=crc)
                offset = max(offset, start + len(part))
                assert done.offset == offset
            if fresh:
                uploads = again(uploads)
            assert (await uploads.look(blob, key)).offset == offset
        await uploads.append(blob, key, offset, pieces(data[offset:]))
        assert (await uploads.finish(blob, key)).sha256 == hashlib.sha256(data).hexdigest()

    asyncio.run(go())


def test_a_part_that_comes_again_with_other_bytes_is_refused(uploads, tenant_key, run):
    data = os.urandom(200_000)

    async def go():
        blob = uuid7()
        await uploads.start(blob, tenant_key, size=len(data))
        await uploads.append(blob, tenant_key, 0, pieces(data[:120_000]))
        same = await uploads.append(blob, tenant_key, 0, pieces(data[:120_000]))
        assert same.offset == 120_000
        for at in (0, 60_000, 119_999):
            other = bytearray(data)
            other[at] ^= 1
            with pytest.raises(Changed):
                await again(uploads).append(blob, tenant_key, 0, pieces(bytes(other)))
        assert (await uploads.look(blob, tenant_key)).offset == 120_000
        over = await uploads.append(blob, tenant_key, 50_000, pieces(data[50_000:]))
        assert over.offset == len(data)
        assert (await uploads.finish(blob, tenant_key)).sha256 == hashlib.sha256(data).hexdigest()

    run(go())


def test_a_file_that_changed_between_its_parts_is_found_by_its_hash(
    uploads, incoming, tenant_key, run
):
    data = os.urandom(100_000)

    async def go():
        said = hashlib.sha256(data).hexdigest()
        for sent, fits in ((data, True), (data[:50_000] + os.urandom(50_000), False)):
            blob = uuid7()
            await uploads.start(blob, tenant_key, size=len(data), sha256=said.upper())
            await uploads.append(blob, tenant_key, 0, pieces(sent[:50_000]))
            await uploads.append(blob, tenant_key, 50_000, pieces(sent[50_000:]))
            if fits:
                assert (await uploads.finish(blob, tenant_key)).sha256 == said
                continue
            with pytest.raises(Changed):
                await uploads.finish(blob, tenant_key)
            assert not [p for p in incoming.folder.iterdir() if p.name.startswith(blob.hex)]

    run(go())


def test_a_part_with_a_checksum_counts_as_a_whole(uploads, tenant_key, run):
    data = os.urandom(3 * MEBI)

    async def go():
        blob = uuid7()
        await uploads.start(blob, tenant_key, size=len(data))
        wrong = zlib.crc32(data) ^ 1
        with pytest.raises(Spoiled) as found:
            await uploads.append(blob, tenant_key, 0, pieces(data), crc32=wrong)
        assert found.value.expected == 0
        assert (await uploads.look(blob, tenant_key)).offset == 0
        assert (await again(uploads).look(blob, tenant_key)).offset == 0
        good = zlib.crc32(data[: 2 * MEBI])
        await uploads.append(blob, tenant_key, 0, pieces(data[: 2 * MEBI], MEBI), crc32=good)
        assert (await again(uploads).look(blob, tenant_key)).offset == 2 * MEBI
        with pytest.raises(ConnectionError):
            await uploads.append(blob, tenant_key, 2 * MEBI, ends(data[2 * MEBI : -5]), crc32=1)
        assert (await again(uploads).look(blob, tenant_key)).offset == 2 * MEBI

    run(go())


def test_a_crash_within_a_part_with_a_checksum_leaves_nothing_of_it(uploads, tenant_key, run):
    data = os.urandom(3 * MEBI)

    async def go():
        blob = uuid7()
        await uploads.start(blob, tenant_key, size=len(data))
        path = uploads._path(blob)
        await uploads.append(blob, tenant_key, 0, pieces(b"", 1))
        await uploads.append(blob, tenant_key, 0, pieces(data[:9]), crc32=zlib.crc32(data[:9]))

        async def crashes():
            yield data[9 : 2 * MEBI]
            yield data[2 * MEBI : -1]
            crashes.left = path.read_bytes()

        part = zlib.crc32(data[9:-1])
        await uploads.append(blob, tenant_key, 9, crashes(), crc32=part)
        assert len(crashes.left) > 2 * MEBI
        path.write_bytes(crashes.left)  # the disk as it was before the part was whole
        now = again(uploads)
        assert (await now.look(blob, tenant_key)).offset == 9
        assert len(path.read_bytes()) < MEBI
        await now.append(blob, tenant_key, 9, pieces(data[9:]))
        assert (await now.finish(blob, tenant_key)).sha256 == hashlib.sha256(data).hexdigest()

    run(go())


async def ends(data):
    async for piece in pieces(data):
        yield piece
    raise ConnectionError


def test_a_connection_that_ends_leaves_what_came(uploads, tenant_key, run):
    data = os.urandom(2 * MEBI)

    async def go():
        blob = uuid7()
        await uploads.start(blob, tenant_key, size=len(data))
        with pytest.raises(ConnectionError):
            await uploads.append(blob, tenant_key, 0, ends(data[: MEBI + 333]))
        assert (await uploads.look(blob, tenant_key)).offset == MEBI + 333
        assert (await again(uploads).look(blob, tenant_key)).offset == MEBI + 333
        await uploads.append(blob, tenant_key, MEBI + 333, pieces(data[MEBI + 333 :]))
        assert (await uploads.finish(blob, tenant_key)).sha256 == hashlib.sha256(data).hexdigest()

    run(go())


def test_a_cancelled_part_lets_the_next_one_in(uploads, tenant_key, run):
    data = os.urandom(4 * MEBI)

    async def slow(start):
        async for piece in pieces(data[start:], 200_000):
            yield piece
            await asyncio.sleep(0.003)

    async def go():
        blob, at = uuid7(), 0
        await uploads.start(blob, tenant_key, size=len(data))
        for delay in (0.0, 0.0005, 0.004, 0.02, 0.04):
            task = asyncio.create_task(uploads.append(blob, tenant_key, at, slow(at)))
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            at = (await uploads.look(blob, tenant_key)).offset
            assert at == (await again(uploads).look(blob, tenant_key)).offset
        assert at > 0
        await uploads.append(blob, tenant_key, at, pieces(data[at:]))
        assert (await uploads.finish(blob, tenant_key)).sha256 == hashlib.sha256(data).hexdigest()

    run(go())


def test_two_writers_do_not_meet(uploads, tenant_key, run):
    async def go():
        blob, held, gate = uuid7(), asyncio.Event(), asyncio.Event()
        await uploads.start(blob, tenant_key, size=10)

        async def waits():
            yield b"first"
            held.set()
            await gate.wait()

        first = asyncio.create_task(uploads.append(blob, tenant_key, 0, waits()))
        await held.wait()
        for call in (
            uploads.append(blob, tenant_key, 0, pieces(b"other")),
            again(uploads).append(blob, tenant_key, 0, pieces(b"other")),
            uploads.look(blob, tenant_key),
            uploads.finish(blob, tenant_key),
        ):
            with pytest.raises(Busy):
                await call
        gate.set()
        assert (await first).offset == 5

    run(go())


def test_more_than_was_said_is_refused(uploads, tenant_key, run):
    async def go():
        blob = uuid7()
        await uploads.start(blob, tenant_key, size=100)
        with pytest.raises(TooLarge):
            await uploads.append(blob, tenant_key, 0, pieces(bytes(101)))
        assert (await uploads.look(blob, tenant_key)).offset == 0
        await uploads.append(blob, tenant_key, 0, pieces(bytes(100)))
        with pytest.raises(TooLarge):
            await uploads.append(blob, tenant_key, 100, pieces(b"x"))
        with pytest.raises(WrongOffset):
            await uploads.append(blob, tenant_key, -1, pieces(b"x"))

    run(go())


def test_too_small_parts_are_bounded(uploads, tenant_key, run, monkeypatch):
    monkeypatch.setattr(journal_module, "FRAMES_MAX", 5)

    async def go():
        blob = uuid7()
        await uploads.start(blob, tenant_key, size=100)
        for at in range(5):
            await uploads.append(blob, tenant_key, at, pieces(b"x"))
        with pytest.raises(TooManyParts):
            await uploads.append(blob, tenant_key, 5, pieces(b"x"))

    run(go())


def test_an_empty_file_and_another_tenant(uploads, incoming, tenant_key, run):
    master = MasterKey(os.urandom(32))
    other = master.open_tenant_key(UUID(int=9), master.make_tenant_key(UUID(int=9)))

    async def go():
        blob = uuid7()
        await uploads.start(blob, tenant_key, size=0)
        for call in (
            uploads.look(blob, other),
            uploads.append(blob, other, 0, pieces(b"")),
            uploads.finish(blob, other),
            uploads.look(uuid7(), tenant_key),
        ):
            with pytest.raises(Missing):
                await call
        received = await uploads.finish(blob, tenant_key)
        assert await read_back(incoming, received, tenant_key) == b""

    run(go())


@pytest.mark.parametrize("kept", [0, 10, 60])
def test_a_spoiled_opening_is_named(uploads, tenant_key, run, kept):
    async def go():
        blob = uuid7()
        await uploads.start(blob, tenant_key, size=1)
        path = uploads._path(blob)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(Damaged):
            await uploads.look(blob, tenant_key)

    run(go())


SENDER = """
import asyncio, sys
from pathlib import Path
from uuid import UUID
from quarantine.store.incoming import Incoming
from quarantine.store.keys import MasterKey
from quarantine.store.uploads import Uploads

async def main(folder, blob, wrapped):
    key = MasterKey(bytes(32)).open_tenant_key(UUID(int=10), bytes.fromhex(wrapped))
    uploads = Uploads(Incoming(Path(folder), keep_free=0))
    at = (await uploads.look(UUID(blob), key)).offset
    async def part():
        yield bytes((at + i) % 251 for i in range(90_000))
    while True:
        at = (await uploads.append(UUID(blob), key, at, part())).offset
        print(at, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path, run):
    master = MasterKey(bytes(32))
    wrapped = master.make_tenant_key(TENANT)
    key = master.open_tenant_key(TENANT, wrapped)
    uploads, blob = Uploads(Incoming(tmp_path, keep_free=0)), uuid7()
    run(uploads.start(blob, key, size=100 * MEBI))
    said = 0
    for lines in (1, 4, 9):
        child = subprocess.Popen(
            [sys.executable, "-c", SENDER, str(tmp_path), str(blob), wrapped.hex()],
            stdout=subprocess.PIPE,
        )
        for _ in range(lines):
            said = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
        child.wait()
        said = int(rest[-1]) if rest else said
        assert run(again(uploads).look(blob, key)).offset >= said
    held = run(uploads.look(blob, key)).offset
    model = bytes(i % 251 for i in range(held))
    assert run(uploads.append(blob, key, 0, pieces(model))).offset == held
