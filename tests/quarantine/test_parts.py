"""Uploads in parts through the plane's door: whatever breaks, the bytes are those that were sent."""

import asyncio
import os
import random
import socket
import sqlite3
import time
import zlib
from hashlib import sha256

import httpx
import pytest

from appliance.base.clock import now
from appliance.base.errors import Clash, Locked, Refused, Spoiled, TooLarge, Unavailable
from appliance.base.ids import uuid7
from quarantine.contract import LASTING_S, ORDER_HEADER, UPLOAD_S, Action, Order, Part
from quarantine.store.incoming import ABANDONED_SECONDS
from tests.http.conftest import valkey_url
from tests.quarantine.planes import job, pieces, plane

pytestmark = pytest.mark.anyio
valkey_url = valkey_url
MEBI = 1 << 20


async def arrive(client, given, at, body, crc=None):
    return (await client.append(given, at, pieces(body), crc)).offset


async def read(bench, given):
    """The bytes as the plane gives them, once they are called clean."""
    bench.ledger("UPDATE blob SET verdict = 'clean', todo = 0 WHERE id = ?", given.blob.hex)
    return b"".join([p async for p in bench.client.read(given.tenant, given.blob)])


@pytest.fixture
async def bench(valkey_url):
    async with plane(valkey_url, start=("serve",)) as found:
        yield found


def head(bench, given, offset, length, crc=None):
    """The head of a PATCH as the node sends it."""
    order = Order(
        Action.PARTS, now(), given.blob, given.tenant, given, part=Part(offset=offset, crc32=crc)
    )
    return (
        f"PATCH /parts HTTP/1.1\r\nHost: plane\r\n{ORDER_HEADER}: {bench.client.signer.seal(order)}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def dial(bench):
    found = socket.create_connection(("127.0.0.1", bench.processes.port))
    found.settimeout(10)
    return found


async def progress(bench, given, seconds=10.0):
    """Where to go on, once nobody writes."""
    end = time.monotonic() + seconds
    while True:
        try:
            return await bench.client.progress(given)
        except (Locked, Unavailable):
            assert time.monotonic() < end
            await asyncio.sleep(0.02)


async def test_parts_become_the_blob_and_every_step_may_be_repeated(bench):
    body, given, client = os.urandom(2 * MEBI + 7), job(bench.tenant), bench.client
    begun = await client.begin(given, len(body), sha256(body).hexdigest())
    assert (begun.offset, begun.size) == (0, len(body))
    left = begun.expires_at.timestamp() - time.time()
    assert UPLOAD_S - 60 < left <= UPLOAD_S == ABANDONED_SECONDS
    assert (await client.begin(given, len(body), "")).offset == 0
    assert await arrive(client, given, 0, body[:MEBI]) == MEBI
    assert await arrive(client, given, 0, body[:MEBI]) == MEBI, "its acknowledgement was lost"
    with pytest.raises(Clash) as far:
        await client.append(given, MEBI + 1, pieces(body), None)
    assert (far.value.code, far.value.extra["offset"]) == ("upload.offset", MEBI)
    with pytest.raises(Clash) as other:
        await client.append(given, 5, pieces(b"other bytes"), None)
    assert other.value.code == "file.changed"
    with pytest.raises(Clash) as early:
        await client.finish(given)
    assert early.value.extra["offset"] == MEBI
    with pytest.raises(TooLarge):
        await client.append(given, MEBI, pieces(body[MEBI:] + b"x" * 2 * MEBI), None)
    at = (await client.progress(given)).offset
    assert await arrive(client, given, at, body[at:], zlib.crc32(body[at:])) == len(body)
    stored = await client.finish(given)
    assert stored == await client.finish(given)
    assert (stored.size, stored.sha256) == (len(body), sha256(body).hexdigest())
    over = await client.progress(given)
    assert (over.offset, over.expires_at) == (len(body), None)
    assert await read(bench, given) == body and not bench.waiting()


async def test_a_part_with_a_checksum_counts_as_a_whole_or_not_at_all(bench):
    body, given = os.urandom(3 * MEBI), job(bench.tenant)
    await bench.client.begin(given, len(body))
    with pytest.raises(Spoiled) as bad:
        await bench.client.append(given, 0, pieces(body), zlib.crc32(body) ^ 1)
    assert bad.value.extra["offset"] == 0
    with dial(bench) as link:
        link.sendall(head(bench, given, 0, len(body), zlib.crc32(body)) + body[: 2 * MEBI])
    assert (await progress(bench, given)).offset == 0


async def test_what_was_said_to_be_another_file_is_refused_at_its_end(bench):
    given = job(bench.tenant)
    await bench.client.begin(given, 5, sha256(b"other").hexdigest())
    await arrive(bench.client, given, 0, b"bytes")
    with pytest.raises(Clash) as changed:
        await bench.client.finish(given)
    assert changed.value.code == "file.changed" and not bench.waiting()
    with pytest.raises(Refused):
        await bench.client.progress(given)


async def test_nobody_but_the_node_and_its_tenant(bench):
    given = job(bench.tenant)
    await bench.client.begin(given, 5)
    stranger = job(uuid7())
    stolen = type(given)(given.blob, stranger.tenant, "a.txt", given.policy, given.issued_at)
    with pytest.raises(Refused):
        await bench.client.append(stolen, 0, pieces(b"bytes"), None)
    with pytest.raises(TooLarge):
        await bench.client.begin(job(bench.tenant, bytes_max=4), 5)
    async with httpx.AsyncClient(base_url=bench.processes.url) as http:
        for method in ("POST", "GET", "PATCH", "PUT", "DELETE"):
            assert (await http.request(method, "/parts")).status_code == 404
            order = Order(Action.LOOK, now(), given.blob, given.tenant, given)
            sealed = {ORDER_HEADER: bench.client.signer.seal(order)}
            assert (await http.request(method, "/parts", headers=sealed)).status_code == 404


@pytest.mark.parametrize("looks", [True, False])
async def test_who_comes_back_waits_for_a_living_part_and_takes_the_place_of_a_dead_one(
    bench, looks
):
    body, given = os.urandom(MEBI), job(bench.tenant)
    await bench.client.begin(given, len(body))
    with dial(bench) as link:
        link.sendall(head(bench, given, 0, len(body)) + body[:70_000])
        await asyncio.sleep(0.3)
        for ask in (
            bench.client.progress(given),
            bench.client.append(given, 0, pieces(body), None),
        ):
            with pytest.raises(Locked):
                await ask
        link.sendall(body[70_000:140_000])
        await asyncio.sleep(3.3)
        ask = (
            bench.client.progress(given)
            if looks
            else bench.client.append(given, 0, pieces(body), None)
        )
        with pytest.raises(Locked):
            await ask
        began = time.monotonic()
        assert (await progress(bench, given)).offset == 140_000
        assert time.monotonic() - began < 1
        assert b"423" in link.recv(100)
    assert await arrive(bench.client, given, 140_000, body[140_000:]) == len(body)
    await bench.client.finish(given)
    assert await read(bench, given) == body


async def test_200_cuts_at_random_bytes(bench):
    """Seeded: each part is cut off at some byte of it or of its head, some begin earlier."""
    chance = random.Random(20261121)
    body, given = chance.randbytes(24 * MEBI), job(bench.tenant)
    await bench.client.begin(given, len(body), sha256(body).hexdigest())
    at, forward, sent = 0, 0, 0
    for _ in range(200):
        start = chance.choice((at, at, at, chance.randint(max(0, at - 100_000), at)))
        part = body[start : start + chance.randint(1, 300_000)]
        checked = chance.random() < 0.3
        said = head(bench, given, start, len(part), zlib.crc32(part) if checked else None)
        message = said + part
        cut = chance.randint(1, len(message))
        with dial(bench) as link:
            link.sendall(message[:cut])
            if chance.random() < 0.2:
                await asyncio.sleep(0.01)
        found = (await progress(bench, given)).offset
        # A part that was cut off may still be on its way in when the next one is asked for.
        sent = max(sent, start + max(0, cut - len(said)))
        assert at <= found <= sent
        forward += found > at
        at = found
    assert forward > 40, "what came before a cut is kept"
    while at < len(body):
        try:
            at = await arrive(bench.client, given, at, body[at : at + 4 * MEBI])
        except Locked:
            # The last part that was cut off is still being written on a busy machine.
            await asyncio.sleep(0.1)
            at = (await progress(bench, given)).offset
    assert (await bench.client.finish(given)).sha256 == sha256(body).hexdigest()
    assert await read(bench, given) == body


async def test_kill_9_in_the_middle_of_parts_and_of_the_end(bench):
    chance = random.Random(7)
    body, given = chance.randbytes(40 * MEBI), job(bench.tenant)
    await bench.client.begin(given, len(body), sha256(body).hexdigest())
    at = 0

    async def all_of_it():
        nonlocal at
        while at < len(body):
            at = await arrive(bench.client, given, at, body[at : at + 2 * MEBI])
        return await bench.client.finish(given)

    for delay in (0.02, 0.06, 0.1, 0.15, 0.25, 0.02, 0.04, 0.4):
        sending = asyncio.create_task(all_of_it())
        await asyncio.sleep(delay)
        bench.processes.kill("serve")
        acknowledged = at
        try:
            await sending
        except Unavailable:
            pass
        bench.processes.start("serve")
        at = (await progress(bench, given)).offset
        assert at >= acknowledged, "what was acknowledged is never asked for again"
    assert (await all_of_it()).sha256 == sha256(body).hexdigest()
    assert await read(bench, given) == body


async def test_a_kill_between_the_blob_and_its_parts_is_finished(bench):
    body, given = os.urandom(MEBI), job(bench.tenant)
    await bench.client.begin(given, len(body))
    await arrive(bench.client, given, 0, body)
    bench.processes.kill("serve")
    (parts,) = bench.waiting()
    kept = (bench.processes.folder / "incoming" / parts).read_bytes()
    bench.processes.start("serve")
    first = await bench.client.finish(given)
    (bench.processes.folder / "incoming" / parts).write_bytes(kept)  # the parts outlived the blob
    assert await bench.client.finish(given) == first and not bench.waiting()
    assert await read(bench, given) == body


async def test_given_up_or_silent_for_an_hour_it_is_gone(bench):
    gone, silent, lives = (job(bench.tenant) for _ in range(3))
    for given in (gone, silent, lives):
        await bench.client.begin(given, 9)
        await arrive(bench.client, given, 0, b"abc")
    await bench.client.give_up(bench.tenant, gone.blob)
    await bench.client.give_up(bench.tenant, gone.blob)
    path = bench.processes.folder / "incoming" / f"{silent.blob.hex}.upload"
    os.utime(path, (1, time.time() - UPLOAD_S - 5))
    bench.processes.kill("serve")
    bench.processes.start("serve")  # it sweeps when it starts, and every five minutes
    await asyncio.sleep(0.5)
    for given in (gone, silent):
        with pytest.raises(Refused) as refused:
            await bench.client.progress(given)
        assert refused.value.code == "upload.unknown"
    assert (await bench.client.progress(lives)).offset == 3


async def test_giving_up_what_was_finished_forgets_the_blob(bench):
    given = job(bench.tenant)
    await bench.client.begin(given, 3)
    await arrive(bench.client, given, 0, b"abc")
    await bench.client.finish(given)
    await bench.client.give_up(bench.tenant, given.blob)
    assert await bench.is_gone(given.blob)
    with sqlite3.connect(bench.processes.folder / "ledger.sqlite3") as db:
        assert db.execute("SELECT count(*) FROM content").fetchone() == (0,)
    db.close()


async def test_what_comes_from_another_node_is_waited_for_much_longer(bench):
    brief, lasting = job(bench.tenant), job(bench.tenant)
    for given in (brief, lasting):
        await bench.client.begin(given, 9, lasting=given is lasting)
        await arrive(bench.client, given, 0, b"abc")
    days = time.time() - LASTING_S + 60
    for path in (bench.processes.folder / "incoming").iterdir():
        os.utime(path, (1, days))
    bench.processes.kill("serve")
    bench.processes.start("serve")
    await asyncio.sleep(0.5)
    with pytest.raises(Refused):
        await bench.client.progress(brief)
    assert (await bench.client.progress(lasting)).offset == 3
    assert await arrive(bench.client, lasting, 3, b"defghi") == 9
    await bench.client.finish(lasting)
    assert await read(bench, lasting) == b"abcdefghi" and not bench.waiting()
    for again in (lasting, job(bench.tenant)):
        if again is not lasting:
            await bench.client.begin(again, 9, lasting=True)
        await bench.client.give_up(bench.tenant, again.blob)
    assert not bench.waiting()
