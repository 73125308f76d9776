"""What all benchmarks share: processes, their CPU, a client whose own CPU is not counted."""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psycopg

from appliance.assemble import write_endpoints
from appliance.base.memory import collect_seldom
from appliance.runtime.clamd import ScannerState
from appliance.runtime.services import Endpoints
from tests import cluster, tenants
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")
ROUNDS = 5


def report(name, ours, floor, target, unit="µs"):
    """One line: ours, the floor of the same run, the ratio, what was asked for."""
    print(
        f"{name:44} {ours:9.0f} {unit}  floor {floor:9.0f} {unit}  "
        f"ratio {ours / floor:5.2f}  target {target}", flush=True,
    )  # fmt: skip


def figure(name, value, unit, target):
    """One line without a floor."""
    print(f"{name:44} {value:9.1f} {unit}  target {target}", flush=True)


async def on_cluster(measure):
    """`measure(db, dsns)` on a cluster of its own, with the collector as in the program."""
    collect_seldom()
    dsns, stop = cluster.start()
    try:
        async with tenants.opened(dsns) as db:
            await measure(db, dsns)
    finally:
        stop()


def cpu_of(pids):
    """CPU seconds of processes and of their children, the ended ones too."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) in pids or int(stat.parent.name) in pids:
                total += (int(fields[11]) + int(fields[12])) / TICK
            if int(stat.parent.name) in pids:
                total += (int(fields[13]) + int(fields[14])) / TICK
    return total


def postmaster(dsn):
    """The process id of the server behind a connection."""
    with psycopg.connect(dsn) as conn:
        query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
        (pid,) = conn.execute(query).fetchone()
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


class Server:
    """One uvicorn process with one worker."""

    def __init__(self, app, env):
        self.port = free_port()
        command = [sys.executable, "-m", "uvicorn", app, "--port", str(self.port), "--loop", "uvloop",
                   "--http", "httptools", "--no-access-log", "--log-level", "critical"]  # fmt: skip
        self.child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env})
        self.pid = self.child.pid

    async def client(self):
        """A kept-alive connection."""
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                return Client(*await asyncio.open_connection("127.0.0.1", self.port))
            assert self.child.poll() is None and time.monotonic() < end, "the server did not start"
            await asyncio.sleep(0.05)

    def stop(self):
        self.child.terminate()
        self.child.wait()


class Client:
    """The least a client can be: bytes out, bytes in."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def ask(self, request):
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )  # fmt: skip
        body = await self.reader.readexactly(length) if length else b""
        return int(head.split(b" ", 2)[1]), body


def request(method, path, token, body=None):
    """The bytes of one request."""
    data = json.dumps(body).encode() if body is not None else b""
    head = f"{method} {path} HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {token}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def node_env(dsns, folder):
    """The environment of an API process over a test cluster; nothing here needs Redis."""
    path = Path(folder) / "endpoints.json"
    write_endpoints(
        path,
        Endpoints(dsns.control_owner, dsns.control_dsn, dsns.pool_owner, dsns.pool_dsn, "",
                  "redis://127.0.0.1:1/0", ScannerState("absent", "No scanner.")),
    )  # fmt: skip
    return {
        "NEXUS_ENDPOINTS_FILE": str(path), "NEXUS_DATA": str(folder), "NEXUS_LOG_LEVEL": "error",
    }  # fmt: skip


async def compare(pids, ours, floor, count=400):
    """Median CPU in µs per call of both, measured in turns so that noise meets both alike."""
    database, (our_pid, floor_pid) = pids
    figures = ([], [])
    for _ in range(20):
        await ours()
        await floor()
    for _ in range(ROUNDS):
        for found, call, pid in ((figures[0], ours, our_pid), (figures[1], floor, floor_pid)):
            began = cpu_of({database, pid})
            for _ in range(count):
                await call()
            found.append((cpu_of({database, pid}) - began) / count * 1e6)
    return tuple(statistics.median(f) for f in figures)
