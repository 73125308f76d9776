"""Downloads of a real serving process: tickets, ranges, budgets, headers, and what stops them."""

import asyncio
import contextlib
import secrets
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import httpx
import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from appliance.base.ids import uuid7
from quarantine.contract import LIVE_KEY, TICKET_KEY, TRANSFER_KEY, Fetched, Ticket
from quarantine.http.ranges import read_range
from tests.quarantine.planes import TEXT, Cache, open_folder, plane, until

pytestmark = pytest.mark.anyio
MB = 1024 * 1024
BODY = bytes(range(256)) * 8_192 + b"the end"
TOKEN = "nxs_0123_a-session-of-somebody"  # noqa: S105
AS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def cache():
    with open_folder() as folder:
        found = Cache(folder)
        found.start()
        yield found
        found.kill()


@pytest.fixture
async def bench(cache):
    async with plane(cache.url, start=("serve",)) as found:
        found.redis = redis.Redis.from_url(cache.url)
        found.http = httpx.AsyncClient(base_url=found.processes.url, headers=AS, timeout=20)
        yield found
        await found.http.aclose()
        found.redis.close()


async def bring(bench, body=BODY, verdict="clean"):
    blob = await bench.bring(body)
    bench.ledger(
        "UPDATE blob SET verdict = ?, judged = 1 WHERE id = ? RETURNING id", verdict, blob.hex
    )
    return blob


def ticket(bench, blob, size=len(BODY), **changes):
    made = Ticket(
        id=secrets.token_urlsafe(24), blob=blob, tenant=bench.tenant, file=blob, person=uuid7(),
        session=sha256(TOKEN.encode()).hexdigest(), session_id=uuid7(), name="list.txt",
        type="text/plain", size=size, expires_at=datetime.now(UTC) + timedelta(seconds=30),
    )  # fmt: skip
    made = msgspec.structs.replace(made, **changes)
    sealed = bench.client.signer.seal(made)
    bench.redis.set(TICKET_KEY.format(made.id), sealed, ex=30)
    bench.redis.hset(LIVE_KEY, made.id, sealed)
    return made.id


async def redeem(bench, ident, http=None):
    """Where the bytes are."""
    answer = await (http or bench.http).get(f"/d/{ident}")
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def opened(bench, blob, **changes):
    return await redeem(bench, ticket(bench, blob, **changes))


def widen(bench, path):
    """A test asks for more than any reader."""
    bench.redis.hset(TRANSFER_KEY.format(path.removeprefix("/t/")), "left", 10**12)


async def test_of_fifty_racers_one_wins(bench):
    blob = await bring(bench)
    for _ in range(3):
        ident = ticket(bench, blob)
        answers = await asyncio.gather(*(bench.http.get(f"/d/{ident}") for _ in range(50)))
        assert sorted(a.status_code for a in answers) == [303] + [404] * 49
        assert not bench.redis.hexists(LIVE_KEY, ident)


async def test_a_ticket_is_for_one_session_and_its_transfer_too(bench):
    blob = await bring(bench)
    others = ({}, {"Authorization": "Bearer nxs_0123_another"}, {"Cookie": "__Host-sid=other"},
              {"Authorization": "Basic " + TOKEN}, {"Cookie": f"sid={TOKEN}"},
              {"Authorization": "Bearer nxs_x", "Cookie": f"__Host-sid={TOKEN}"})  # fmt: skip
    async with httpx.AsyncClient(base_url=bench.processes.url) as http:
        for headers in others:
            ident = ticket(bench, blob)
            refused = await http.get(f"/d/{ident}", headers=headers)
            assert refused.status_code == 404 and "location" not in refused.headers
            assert (await bench.http.get(f"/d/{ident}")).status_code == 404, "it is used up"
        path = await opened(bench, blob)
        for headers in others:
            assert (await http.get(path, headers=headers)).status_code == 404
        for name in ("__Host-sid", "nexus-sid"):
            cookie = {"Cookie": f"a=b; {name}={TOKEN}"}
            ident = ticket(bench, blob)
            sent = await http.get(f"/d/{ident}", headers=cookie, follow_redirects=True)
            assert sent.status_code == 404, "the cookie is not sent by itself"
            where = await http.get(f"/d/{ticket(bench, blob)}", headers=cookie)
            assert (await http.get(where.headers["location"], headers=cookie)).content == BODY


async def test_expired_forged_and_renamed_tickets_open_nothing(bench):
    blob = await bring(bench)
    past = ticket(bench, blob, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    renamed = ticket(bench, blob)
    bench.redis.rename(TICKET_KEY.format(renamed), TICKET_KEY.format("other"))
    forged = ticket(bench, blob)
    key = TICKET_KEY.format(forged)
    body, _, mac = bench.redis.get(key).decode().partition(".")
    bench.redis.set(key, f"{body[:-4]}AAAA.{mac}")
    bench.redis.set(TICKET_KEY.format("junk"), b"\xff\xfe")
    for ident in (past, "other", forged, "junk", "unknown", "a" * 5_000):
        answer = await bench.http.get(f"/d/{ident}")
        assert answer.status_code == 404 and answer.headers["cache-control"] == "no-store"
    assert 0 < bench.redis.ttl(TICKET_KEY.format(ticket(bench, blob))) <= 30


async def test_what_is_not_released_is_not_served(bench):
    for verdict, reviewed, status in (
        (None, False, 409), ("rejected", True, 409), ("suspicious", False, 409), ("error", True, 409),
        ("suspicious", True, 303), ("clean", False, 303),
    ):  # fmt: skip
        blob = await bring(bench, TEXT + str((verdict, reviewed)).encode(), verdict)
        answer = await bench.http.get(f"/d/{ticket(bench, blob, reviewed=reviewed)}")
        assert answer.status_code == status, (verdict, reviewed)
        if status == 303:
            bench.ledger("UPDATE blob SET verdict = 'rejected' WHERE id = ? RETURNING id", blob.hex)
            assert (await bench.http.get(answer.headers["location"])).status_code == 409
    blob = await bring(bench)
    stranger = ticket(bench, blob, tenant=uuid7())
    assert (await bench.http.get(f"/d/{stranger}")).status_code == 404
    path = await opened(bench, blob)
    await bench.client.purge(bench.tenant, blob)
    assert (await bench.http.get(path)).status_code == 404


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_any_range_is_a_slice(size, first, last):
    body = bytes(range(size))

    def part(header):
        span = read_range(header, size)
        return None if span is None else (body[span.start : span.stop], span.is_part)

    if first > last:
        assert part(f"bytes={first}-{last}") in (None, (body, False))
    elif first >= size:
        assert part(f"bytes={first}-{last}") is None
    else:
        assert part(f"bytes={first}-{last}") == (body[first : last + 1], True)
    assert part(f"bytes={first}-") == ((body[first:], True) if first < size else None)
    tail = (body[-last:], True) if last and size else None
    assert part(f"bytes=-{last}") == tail
    for other in (None, "", "bytes=-", "bytes=a-b", "bytes=1-2,4-5", "items=0-1", "bytes=--1"):
        assert part(other) == (body, False)


async def test_ranges_over_http_are_slices(bench):
    path = await opened(bench, await bring(bench))
    widen(bench, path)
    size = len(BODY)
    edges = (0, 1, MB - 1, MB, MB + 1, size - 8, size - 1)
    for start in edges:
        for stop in (start, start + 1, MB, size - 1, size + 5):
            if stop < start:
                continue
            got = await bench.http.get(path, headers={"Range": f"bytes={start}-{stop}"})
            want = BODY[start : stop + 1]
            assert (got.status_code, got.content) == (206, want)
            assert got.headers["content-range"] == f"bytes {start}-{start + len(want) - 1}/{size}"
            assert got.headers["content-length"] == str(len(want))
    for tail in (1, 7, MB, size, size * 3):
        got = await bench.http.get(path, headers={"Range": f"bytes=-{tail}"})
        assert (got.status_code, got.content) == (206, BODY[-tail:])
    for beyond in (f"bytes={size}-", "bytes=-0", f"bytes={size + 9}-{size + 10}"):
        got = await bench.http.get(path, headers={"Range": beyond})
        assert (got.status_code, got.content) == (416, b"")
        assert got.headers["content-range"] == f"bytes */{size}"
    several = await bench.http.get(path, headers={"Range": "bytes=0-1,5-6"})
    assert (several.status_code, several.content) == (200, BODY)


async def test_head_and_if_range(bench):
    path = await opened(bench, await bring(bench))
    head = await bench.http.head(path, headers={"Range": "bytes=0-9"})
    assert head.status_code == 200 and head.content == b""
    assert head.headers["content-length"] == str(len(BODY))
    assert head.headers["accept-ranges"] == "bytes"
    tag = head.headers["etag"]
    same = await bench.http.get(path, headers={"Range": "bytes=0-9", "If-Range": tag})
    assert (same.status_code, same.content) == (206, BODY[:10])
    for other in ('"other"', f"W/{tag}", "Sat, 21 Nov 2026 08:00:00 GMT"):
        path = await opened(bench, await bring(bench))
        got = await bench.http.get(path, headers={"Range": "bytes=0-9", "If-Range": other})
        assert (got.status_code, got.content) == (200, BODY)


async def test_a_broken_download_is_resumed(bench):
    blob = await bring(bench)
    path = await opened(bench, blob)
    got = b""
    async with bench.http.stream("GET", path) as answer:
        tag = answer.headers["etag"]
        async for piece in answer.aiter_raw(100_000):
            got += piece
            if len(got) > MB:
                break
    rest = {"Range": f"bytes={len(got)}-", "If-Range": tag}
    answer = await bench.http.get(path, headers=rest)
    assert answer.status_code == 206 and got + answer.content == BODY
    # And under a new ticket, hours later.
    answer = await bench.http.get(await opened(bench, blob), headers=rest)
    assert answer.status_code == 206 and got + answer.content == BODY

    async def told():
        return [n for n in await bench.hear() if isinstance(n, Fetched)][2:]

    await until(told)
    heard = [n for n in bench.heard if isinstance(n.what, Fetched)]
    assert all(0 < n.what.bytes_sent <= len(BODY) for n in heard)


async def test_who_was_sent_what_is_told(bench):
    blob = await bring(bench)
    whole = await bench.http.get(await opened(bench, blob))
    assert whole.content == BODY

    async def told():
        return await bench.hear()

    ((found,), _) = await until(told)
    assert (found.file, found.bytes_sent, found.whole) == (blob, len(BODY), True)
    assert bench.ledger("SELECT reads FROM blob") == [(1,)]


async def test_a_ticket_has_a_budget_of_bytes_that_parallel_readers_share(bench):
    body = secrets.token_bytes(4 * MB)
    blob = await bring(bench, body)
    path = await opened(bench, blob, size=len(body))

    async def read():
        got = 0
        try:
            async with bench.http.stream("GET", path) as answer:
                if answer.status_code == 429:
                    return 0
                async for piece in answer.aiter_raw():
                    got += len(piece)
        except httpx.HTTPError:
            return got
        return got

    sent = await asyncio.gather(*(read() for _ in range(20)))
    assert sum(sent) <= 4 * MB * 1.5 + MB, sum(sent) / MB
    assert (await bench.http.get(path)).status_code == 429
    calm = await opened(bench, blob, size=len(body))
    assert (await bench.http.get(calm)).content == body
    assert (await bench.http.get(calm)).status_code == 429


async def test_the_headers_leave_a_browser_nothing_to_run(bench):
    blob = await bring(bench)
    names = {
        'Прайс-лист №1 "final".pdf': "_____-____ _1 _final_.pdf",
        "a\r\nSet-Cookie: x=y.txt": "a__Set-Cookie_ x_y.txt",
        "x;y=%41.html": "x_y__41.html",
    }  # fmt: skip
    for name, plain in names.items():
        got = await bench.http.get(
            await opened(bench, blob, name=name, type="text/html", inline=True)
        )
        quoted = httpx.QueryParams({"q": name})["q"]
        head = dict(got.headers)
        disposition = head.pop("content-disposition")
        assert disposition.startswith(f"attachment; filename=\"{plain}\"; filename*=UTF-8''")
        assert httpx.URL("http://x/?q=" + disposition.partition("''")[2]).params["q"] == quoted
        del head["date"], head["etag"]
        assert head == {
            "content-type": "application/octet-stream", "content-length": str(len(BODY)),
            "accept-ranges": "bytes", "x-content-type-options": "nosniff",
            "content-security-policy": "sandbox; default-src 'none'",
            "cross-origin-resource-policy": "same-site", "cache-control": "private, no-store",
            "referrer-policy": "no-referrer",
        }  # fmt: skip
    for type_, inline, reviewed, sort in (
        ("image/png", True, False, "inline"), ("image/png", False, False, "attachment"),
        ("image/png", True, True, "attachment"), ("image/svg+xml", True, False, "attachment"),
        ("application/pdf", True, False, "attachment"), ("text/html", True, False, "attachment"),
        ("text/plain", True, False, "inline"),
    ):  # fmt: skip
        path = await opened(bench, blob, type=type_, inline=inline, reviewed=reviewed)
        got = await bench.http.get(path)
        assert got.headers["content-disposition"].split(";")[0] == sort
        expected = type_ if sort == "inline" else "application/octet-stream"
        assert got.headers["content-type"].split(";")[0] == expected
    moved = await bench.http.get(f"/d/{ticket(bench, blob)}")
    assert moved.headers["referrer-policy"] == "no-referrer"
    assert moved.headers["cache-control"] == "private, no-store" and not moved.content


async def test_what_is_taken_away_stops_within_a_second(bench):
    body = secrets.token_bytes(50 * MB)
    path = await opened(bench, await bring(bench, body), size=len(body))
    got, started = 0, asyncio.Event()

    async def read_slowly():
        """About ten megabytes a second."""
        nonlocal got
        async with bench.http.stream("GET", path) as answer:
            async for piece in answer.aiter_raw(65_536):
                got += len(piece)
                if got > 5 * MB:
                    started.set()
                await asyncio.sleep(0.006)

    reader = asyncio.create_task(read_slowly())
    await started.wait()
    bench.redis.delete(TRANSFER_KEY.format(path.removeprefix("/t/")))
    before = got
    _, took = await until(lambda: _fetched(bench), 5, every=0.02)
    with pytest.raises(httpx.HTTPError):
        await reader
    assert took < 1.0 and got < 30 * MB
    (found,) = await bench.hear()
    assert found.bytes_sent < 30 * MB and not found.whole
    under_way = (got - before) / MB
    print(f"taken away: nothing more after {took * 1000:.0f} ms, {under_way:.1f} MB were under way")
    assert (await bench.http.get(path)).status_code == 404


async def _fetched(bench):
    return bench.ledger("SELECT 1 FROM notice")


async def test_flipped_bytes_are_not_served(bench):
    blob = await bring(bench)
    (path,) = [p for p in (bench.processes.folder / "store").rglob("*.*") if p.is_file()]
    body = bytearray(path.read_bytes())
    body[MB + 500_000] ^= 1
    path.write_bytes(body)
    where, got = await opened(bench, blob), b""
    with pytest.raises(httpx.HTTPError):
        async with bench.http.stream("GET", where) as answer:
            async for piece in answer.aiter_raw():
                got += piece
    assert BODY.startswith(got) and len(got) < len(BODY)
    gone = await bench.http.get(where, headers={"Range": f"bytes={MB}-{MB + 9}"})
    assert gone.status_code == 503 and "not what was stored" in gone.json()["detail"]


async def test_serving_killed_in_the_middle_is_resumed_at_the_next_life(bench):
    blob = await bring(bench)
    path, got = await opened(bench, blob), b""
    # What lies in the network's buffers by then still comes, on a busy machine all of it.
    with contextlib.suppress(httpx.HTTPError):
        async with bench.http.stream("GET", path) as answer:
            async for piece in answer.aiter_raw(10_000):
                got += piece
                if len(got) == 10_000:
                    bench.processes.kill("serve")
    assert BODY.startswith(got)
    bench.processes.start("serve")
    rest = await bench.http.get(path, headers={"Range": f"bytes={len(got)}-"})
    assert rest.status_code in (206, 416) and got + rest.content == BODY


async def test_without_redis_uploads_are_taken_and_downloads_refused_by_name():
    with open_folder() as folder:
        cache = Cache(folder)
        cache.start()
        async with plane(cache.url, start=("serve",)) as bench:
            bench.redis = redis.Redis.from_url(cache.url)
            bench.http = httpx.AsyncClient(base_url=bench.processes.url, headers=AS, timeout=20)
            body = secrets.token_bytes(20 * MB)
            blob = await bring(bench, body)
            path, got = await opened(bench, blob, size=len(body)), 0
            ident = ticket(bench, blob, size=len(body))
            with contextlib.suppress(httpx.HTTPError):
                async with bench.http.stream("GET", path) as answer:
                    async for piece in answer.aiter_raw(65_536):
                        got += len(piece)
                        if got == 65_536:
                            cache.kill()
                            await asyncio.sleep(0.2)
            assert got < len(body), "what runs stops"
            for where in (f"/d/{ident}", path):
                refused = await bench.http.get(where)
                assert refused.status_code == 503 and "Redis" in refused.json()["detail"]
            assert await bench.bring(TEXT)
            cache.start()
            again = await bench.http.get(await opened(bench, blob, size=len(body)))
            assert again.content == body
            bench.redis.close()
            await bench.http.aclose()
        cache.kill()


async def test_the_node_s_doors_are_closed_to_anybody_else(bench):
    blob = await bring(bench)
    for method, path in (("PUT", "/blobs"), ("GET", "/blobs"), ("GET", "/bytes"), ("GET", "/status"),
                         ("DELETE", "/blobs"), ("DELETE", "/tenants"), ("GET", "/notices"),
                         ("POST", "/scans")):  # fmt: skip
        answer = await bench.http.request(method, path)
        assert answer.status_code == 404, (method, path)
    assert (await bench.client.look(bench.tenant, blob)).verdict == "clean"
