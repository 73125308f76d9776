"""The program as the server starts it: from a settings folder and an endpoints file, to a clean end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import msgspec
import pytest
import redis.asyncio as aioredis

from appliance.assemble import load_key, read_endpoints, write_endpoints
from appliance.base.errors import Misconfigured
from appliance.runtime.clamd import ScannerState
from appliance.runtime.services import Endpoints
from appliance.sync.wake import Waker

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def program(dsns, valkey_url, tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    scanner = ScannerState("absent", "No scanner.")
    path = tmp_path / "run" / "endpoints.json"
    write_endpoints(
        path,
        Endpoints(
            dsns.control_owner,
            dsns.control_dsn,
            dsns.pool_owner,
            dsns.pool_dsn,
            "",
            valkey_url,
            scanner,
        ),
    )
    assert path.stat().st_mode & 0o777 == 0o600
    env = {**os.environ, "NEXUS_ENDPOINTS_FILE": str(path), "NEXUS_DATA": str(tmp_path)}
    log = (tmp_path / "log").open("w+")
    child = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "appliance.assemble:asgi", "--port", str(port), "--log-level", "critical",
         "--loop", "uvloop", "--http", "httptools", "--timeout-graceful-shutdown", "10"],
        cwd=ROOT, env=env, stdout=log, stderr=log,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 20
    while True:
        try:
            httpx.get(f"{url}/health/live")
            break
        except httpx.HTTPError:
            assert child.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.05)
    yield url, child, tmp_path
    if child.poll() is None:
        child.kill()
    child.wait()
    log.close()


async def test_it_serves_and_ends_its_streams_when_told_to_stop(firm, program):
    url, child, folder = program
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        assert (await client.get("/health/ready")).json()["checks"]["scanner"] == "absent"
        token = (await client.post("/api/v1/session", json=firm.credentials("owner"))).json()[
            "token"
        ]
        client.headers["Authorization"] = f"Bearer {token}"
        page = (await client.post("/api/v1/query", json={"from": "deal", "limit": 2})).json()
        assert len(page["rows"]) == 2
        assert page["next"]
        assert (folder / "cursor.key").stat().st_mode & 0o777 == 0o600
        async with client.stream("GET", "/api/v1/live", params={"query": "deal"}) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            records = [{"fields": {"title": f"{n}", "amount": "1.00"}} for n in range(5000)]
            working = asyncio.create_task(client.post("/api/v1/records/deal", json=records))
            await asyncio.sleep(0.15)
            began = time.monotonic()
            child.send_signal(signal.SIGTERM)
            told = [line async for line in lines]
        assert "event: end" in told
        assert (await working).status_code == 201
    await asyncio.to_thread(child.wait, 15)
    assert time.monotonic() - began < 8
    lines = [msgspec.json.decode(x) for x in (folder / "log").read_text().splitlines()]
    assert {"http.server_started", "http.server_stopped"} <= {x["event"] for x in lines}
    assert token not in (folder / "log").read_text()


async def test_its_commits_wake_whoever_waits_on_the_node(firm, program, valkey_url):
    url, _, _ = program
    async with (
        httpx.AsyncClient(base_url=url, timeout=20) as client,
        aioredis.Redis.from_url(valkey_url) as redis,
    ):
        signed = await client.post("/api/v1/session", json=firm.credentials("owner"))
        client.headers["Authorization"] = f"Bearer {signed.json()['token']}"
        waker = Waker(redis)
        with waker.listen(firm.tenant.id) as ear:
            assert await ear.wait(5)
            ear.take()
            assert (await client.get("/api/v1/me")).status_code == 200
            assert not await ear.wait(0.2), "reading wakes nobody"
            made = await client.post("/api/v1/records/deal", json={"fields": {"title": "rung"}})
            assert made.status_code == 201
            assert await ear.wait(1)
            assert ear.take() == {firm.tenant.id}
        await waker.close()


def test_a_key_is_made_once_and_checked(tmp_path):
    one = load_key(tmp_path / "a.key")
    assert load_key(tmp_path / "a.key") == one
    (tmp_path / "b.key").write_bytes(b"short")
    with pytest.raises(Misconfigured, match=r"b\.key"):
        load_key(tmp_path / "b.key")


def test_an_endpoints_file_that_is_none(tmp_path):
    for body in (None, b"{}", b"\xff"):
        if body is not None:
            (tmp_path / "e").write_bytes(body)
        with pytest.raises(Misconfigured, match="nexus up"):
            read_endpoints(tmp_path / "e")
