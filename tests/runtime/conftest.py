"""A data folder that the service account can pass, and ways to watch and kill processes."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE = """
import asyncio, sys
from pathlib import Path
from appliance.runtime.services import Services
async def main():
    async with Services(Path(sys.argv[1]), durable=sys.argv[2] == "durable") as services:
        print(*[u.process.pid for u in services.supervisor._units], flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.fixture
def data():
    # Not pytest's own, which every further run of pytest closes to other accounts.
    folder = Path(tempfile.mkdtemp(prefix="nexus-runtime-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start_node():
    """A node in a process of its own; what is left of it goes with the test."""
    children = []

    def start(data, durability="fast"):
        child = subprocess.Popen(
            [sys.executable, "-c", NODE, str(data), durability],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def unit_of(services, name):
    return next(u for u in services.supervisor._units if u.name == name)


def alive(pid):
    """Running, not a zombie that nobody has fetched yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tree(pid):
    """A process and everything below it."""
    found, queue = [], [pid]
    while queue:
        one = queue.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            queue += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found


def kill(*pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def until(check, seconds=20.0):
    """Wait until `check()` is true; how long it took."""
    began = time.monotonic()
    while not await asyncio.to_thread(check):
        assert time.monotonic() - began < seconds, "it did not come to this in time"
        await asyncio.sleep(0.05)
    return time.monotonic() - began
