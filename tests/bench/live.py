"""From a commit to its frame on an open list of the same node, against the bare parts of the way.

The node is real: API process, worker process, PostgreSQL, Valkey. An edit is sent over one
connection, its frame awaited on another; counted from the answer to the edit, by which it is
committed (a frame that overtakes the answer counts as nothing), and from the sending of it. The
floor of the same run does with bare parts what the frame has to: PUBLISH to a subscriber in
another process, which does an XADD, which ends a blocked XREAD that goes on as a chunk over HTTP.
"""

import asyncio
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis.asyncio as aioredis

from appliance.assemble import write_endpoints
from appliance.runtime.account import child_setup, service_account
from appliance.runtime.clamd import ScannerState
from appliance.runtime.engines import locate
from appliance.runtime.services import Endpoints
from appliance.runtime.valkey import Valkey
from tests.bench import harness
from tests.bench.over_http import firm

COUNT = 100
# By chance, or the edits fall into step with whatever looks at times of its own.
PAUSE_S = (0.05, 0.4)
IDLE_COUNT, IDLE_S = 20, (1.2, 2.4)
LOAD_S = 8.0


@contextlib.contextmanager
def valkey():
    """A Valkey of its own; its address."""
    folder = Path(tempfile.mkdtemp(prefix="nexus-bench-"))
    folder.chmod(0o755)
    account = service_account()
    server = Valkey(locate(folder, account).valkey, folder, account)
    server.prepare()
    child = subprocess.Popen(
        server.argv(), env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}, cwd="/",
        preexec_fn=child_setup(account), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not server.is_ready():
        time.sleep(0.05)
    try:
        yield server.url
    finally:
        child.kill()
        child.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def process(*words, **env):
    """A child of this bench."""
    child = subprocess.Popen(
        [sys.executable, *words], cwd=harness.ROOT, env={**os.environ, **env},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.terminate()
        child.wait()


class Listener:
    """An open event stream; the moments at which events came."""

    def __init__(self, client, path, token):
        self._client, self._path, self._token = client, path, token
        self.came = asyncio.Queue()

    async def open(self):
        ask = f"GET {self._path} HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {self._token}\r\n\r\n"
        self._client.writer.write(ask.encode())
        head = await self._client.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], head
        self._task = asyncio.create_task(self._read())

    async def _read(self):
        while line := await self._client.reader.readline():
            if line.startswith(b"event: "):
                self.came.put_nowait((time.perf_counter(), line[7:].strip()))

    def close(self):
        self._task.cancel()
        self._client.writer.close()


async def main():
    await harness.on_cluster(measure)


async def measure(db, dsns):
    made, _, token = await firm(db, dsns, "live", 200)
    (deal, *_), *_ = await made.tenant.sql(
        "SELECT id::text FROM record WHERE kind = 'deal' LIMIT 1"
    )
    with tempfile.TemporaryDirectory() as folder, valkey() as url:
        env = harness.node_env(dsns, folder)
        write_endpoints(
            Path(env["NEXUS_ENDPOINTS_FILE"]),
            Endpoints(dsns.control_owner, dsns.control_dsn, dsns.pool_owner, dsns.pool_dsn, "", url,
                      ScannerState("absent", "No scanner.")),
        )  # fmt: skip
        server = harness.Server("appliance.assemble:asgi", env)
        bare = harness.Server("tests.bench.live_floor:app", {"FLOOR_REDIS": url})
        worker = ("-c", "from appliance.cli.up import work; work()")
        with process(*worker, **env) as work, process("-m", "tests.bench.live_floor", url):
            try:
                await compare(server, bare, token, deal, url)
                await under_load(server, work.pid, token, deal)
            finally:
                server.stop()
                bare.stop()


async def compare(server, bare, token, deal, url):
    """Latency with pauses between the edits, against the floor, then on a node at rest."""
    edit = editor(await server.client(), token, deal)
    live = Listener(await server.client(), "/api/v1/live?query=deal", token)
    floor = Listener(await bare.client(), "/", token)
    chance = random.Random(5)
    await live.open()
    await floor.open()
    async with aioredis.Redis.from_url(url) as client:

        async def publish():
            await client.publish("floor", b"x" * 16)
            return time.perf_counter()

        await asyncio.sleep(2)
        for _ in range(10):
            await latency(live, edit)
            await latency(floor, publish)
        found, floors = [], []
        for _ in range(COUNT):
            await asyncio.sleep(chance.uniform(*PAUSE_S))
            found.append(await latency(live, edit))
            floors.append(await latency(floor, publish))
    at_rest = []
    for _ in range(IDLE_COUNT):
        await asyncio.sleep(chance.uniform(*IDLE_S))
        at_rest.append(await latency(live, edit))
    show("commit to frame", [c for _, c in found], [c for c, _ in floors], "50 ms")
    show("edit sent to frame", [s for s, _ in found], [c for c, _ in floors], "50 ms")
    show("commit to frame, node at rest", [c for _, c in at_rest], [c for c, _ in floors], "50 ms")
    live.close()
    floor.close()


def editor(client, token, deal):
    """An edit of one field; the moment of its answer."""
    numbers = iter(range(1_000_000))
    path = f"/api/v1/records/deal/{deal}"

    async def edit():
        body = {"fields": {"city": f"City {time.time_ns()}-{next(numbers)}"}}
        status, answer = await client.ask(harness.request("PATCH", path, token, body))
        assert status == 200, answer
        return time.perf_counter()

    return edit


async def latency(listener, act):
    """µs from the start of an act, and from its end, to the event that follows."""
    while not listener.came.empty():
        listener.came.get_nowait()
    began = time.perf_counter()
    ended = await act()
    async with asyncio.timeout(10):
        at, event = await listener.came.get()
    assert event == b"change", event
    return (at - began) * 1e6, max(at - ended, 0) * 1e6


def show(name, found, floors, target):
    """The median and the 95th of a hundred, each with its floor."""
    for label, part in (("p50", 0.5), ("p95", 0.95)):
        harness.report(f"{name}, {label}", at(found, part), at(floors, part), target)


def at(values, part):
    """A quantile."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


async def under_load(server, worker, token, deal):
    """Latency of frames while two writers commit without a pause, and what the relay costs."""
    live = Listener(await server.client(), "/api/v1/live?query=deal", token)
    await live.open()
    began, before, answered = time.perf_counter(), harness.cpu_of({worker}), []

    async def write():
        edit = editor(await server.client(), token, deal)
        while time.perf_counter() - began < LOAD_S:
            answered.append(await edit())

    await asyncio.gather(write(), write())
    spent = harness.cpu_of({worker}) - before
    # As many frames as edits, in the order of their commits.
    moments = []
    async with asyncio.timeout(30):
        while len(moments) < len(answered):
            moments.append((await live.came.get())[0])
    late = [(m - a) * 1e6 for m, a in zip(moments, sorted(answered), strict=True)]
    harness.figure("edits per second meanwhile", len(answered) / LOAD_S, "1/s", "-")
    harness.figure("commit to frame under load, p50", statistics.median(late) / 1e3, "ms", "-")
    harness.figure("commit to frame under load, p95", at(late, 0.95) / 1e3, "ms", "< 400")
    harness.figure("worker's CPU meanwhile", spent / LOAD_S * 100, "%", "-")
    live.close()


if __name__ == "__main__":
    asyncio.run(main())
