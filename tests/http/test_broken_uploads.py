"""Links that break and processes that are killed: the final bytes are those that were sent."""

import asyncio
import random
import socket
import time
from hashlib import sha256

import httpx
import pytest

from appliance.files.rows import find_file
from appliance.files.states import FileState
from tests.http.child import Api
from tests.http.test_uploads import MEDIA, PATH, begin, crc, where
from tests.quarantine.planes import plane

pytestmark = pytest.mark.anyio
MEBI = 1 << 20
PART = MEBI


class Place:
    """An API and a plane, both real processes, and one who sends."""

    def __init__(self, api, bench, firm, token):
        self.api, self.bench, self.firm, self.token = api, bench, firm, token
        self.who = httpx.AsyncClient(
            base_url=api.url, headers={"Authorization": f"Bearer {token}"}, timeout=20
        )

    def head(self, ident, at, length, checksum=None):
        said = f"Upload-Checksum: {checksum}\r\n" if checksum else ""
        return (
            f"PATCH {PATH}/{ident} HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: {MEDIA}\r\nUpload-Offset: {at}\r\n{said}Content-Length: {length}\r\n\r\n"
        ).encode()

    def dial(self):
        found = socket.create_connection(("127.0.0.1", self.api.port))
        found.settimeout(10)
        return found

    async def ended(self, db, ident, body):
        """It is held, and what the plane has of it is what was sent."""
        file = await find_file(db, self.firm.tenant.id, ident)
        assert file.state is FileState.HELD and file.sha256 == sha256(body).hexdigest()
        self.bench.ledger("UPDATE blob SET verdict = 'clean', todo = 0 WHERE id = ?", file.id.hex)
        read = self.bench.client.read(self.firm.tenant.id, file.id)
        assert b"".join([p async for p in read]) == body


@pytest.fixture
async def place(db, dsns, valkey_url, firm, tmp_path, client):
    answer = await client.post("/api/v1/session", json=firm.credentials("seller"))
    async with plane(valkey_url, start=("serve",)) as bench:
        api = Api(dsns, valkey_url, bench.processes, tmp_path / "api.log")
        api.start()
        found = Place(api, bench, firm, answer.json()["token"])
        yield found
        await found.who.aclose()
        api.kill()


async def to_the_end(who, ident, body, report=lambda at: None):
    """What a client does: ask where, send on, come back after whatever happens."""
    end = time.monotonic() + 60
    while True:
        assert time.monotonic() < end
        try:
            at = await where(who, ident)
            while at < len(body):
                part = body[at : at + PART]
                headers = {
                    "Content-Type": MEDIA,
                    "Upload-Offset": str(at),
                    "Upload-Checksum": crc(part),
                }
                answer = await who.patch(f"{PATH}/{ident}", content=part, headers=headers)
                if answer.status_code != 204:
                    assert answer.status_code in (409, 423, 503), answer.text
                    break
                at = int(answer.headers["upload-offset"])
                report(at)
                await asyncio.sleep(0.03)
            if at == len(body):
                return
        except (httpx.TransportError, AssertionError):
            await asyncio.sleep(0.05)


async def test_200_cuts_at_random_bytes_and_the_file_is_whole(place, db):
    chance = random.Random(20261121)
    body = chance.randbytes(20 * MEBI)
    ident = await begin(place.who, len(body), sha256=sha256(body).hexdigest())
    at, forward = 0, 0
    for _ in range(200):
        part = body[at : at + chance.randint(1, 200_000)]
        checked = chance.random() < 0.3
        message = place.head(ident, at, len(part), crc(part) if checked else None) + part
        with place.dial() as link:
            link.sendall(message[: chance.randint(1, len(message))])
            if chance.random() < 0.5:
                await asyncio.sleep(0.005)
        found = await where(place.who, ident)
        assert found >= at
        forward += found > at
        at = found
    assert forward > 30, "what came before a cut is kept"
    await to_the_end(place.who, ident, body)
    await place.ended(db, ident, body)


@pytest.mark.parametrize("which", ["api", pytest.param("serve", marks=pytest.mark.slow)])
async def test_kill_9_in_the_middle(place, db, which):
    chance = random.Random(which)
    body = chance.randbytes(30 * MEBI)
    ident = await begin(place.who, len(body), sha256=sha256(body).hexdigest())
    acknowledged, in_the_middle = 0, 0

    def note(at):
        nonlocal acknowledged
        assert at >= acknowledged
        acknowledged = at

    sending = asyncio.create_task(to_the_end(place.who, ident, body, note))
    for delay in (0.05, 0.12, 0.2, 0.3, 0.1, 0.15):
        await asyncio.sleep(delay)
        in_the_middle += acknowledged < len(body)
        if which == "api":
            place.api.kill()
            await asyncio.to_thread(place.api.start)
        else:
            place.bench.processes.kill("serve")
            await asyncio.to_thread(place.bench.processes.start, "serve")
        assert await where_soon(place.who, ident) >= acknowledged
    await sending
    assert in_the_middle >= 3
    await place.ended(db, ident, body)


async def where_soon(who, ident):
    end = time.monotonic() + 20
    while True:
        try:
            return await where(who, ident)
        except (httpx.TransportError, AssertionError):
            assert time.monotonic() < end
            await asyncio.sleep(0.02)


async def test_who_comes_back_while_the_dead_part_hangs_gets_the_place(place, db):
    body = random.Random(3).randbytes(MEBI)
    ident = await begin(place.who, len(body))
    with place.dial() as dead:
        dead.sendall(place.head(ident, 0, len(body)) + body[:300_000])
        await asyncio.sleep(3.5)
        headers = {"Content-Type": MEDIA, "Upload-Offset": "0"}
        answer = await place.who.patch(f"{PATH}/{ident}", content=body, headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (423, "1")
        at = await where(place.who, ident)
        assert 0 < at <= 300_000
        headers["Upload-Offset"] = str(at)
        answer = await place.who.patch(f"{PATH}/{ident}", content=body[at:], headers=headers)
        assert answer.status_code == 204, answer.text
        # What the dead link still brings changes nothing.
        dead.sendall(b"x" * 1_000)
    await place.ended(db, ident, body)


async def test_two_files_that_change_hands_in_the_middle_are_refused(place):
    """Bytes of another file behind the same upload: the part that overlaps tells."""
    body = random.Random(5).randbytes(400_000)
    ident = await begin(place.who, len(body), sha256=sha256(body).hexdigest())
    headers = {"Content-Type": MEDIA, "Upload-Offset": "0"}
    await place.who.patch(f"{PATH}/{ident}", content=body[:200_000], headers=headers)
    other = bytearray(body)
    other[150_000] ^= 1
    answer = await place.who.patch(f"{PATH}/{ident}", content=bytes(other), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "file.changed")
    headers["Upload-Offset"] = "200000"
    other[300_000] ^= 1
    answer = await place.who.patch(
        f"{PATH}/{ident}", content=bytes(other[200_000:]), headers=headers
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "file.changed")
    assert (await place.who.head(f"{PATH}/{ident}")).status_code == 404
