"""A content plane of real processes for a test: files in, verdicts and notices out."""

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from appliance.base.errors import Refused
from appliance.base.ids import uuid7
from appliance.runtime.account import child_setup, service_account
from appliance.runtime.engines import locate
from appliance.runtime.valkey import Valkey
from quarantine.canary import EICAR
from quarantine.contract import Policy, ScanJob
from tests.plane import PlaneProcesses

TEXT = b"A list of what was agreed, in plain words.\n"
HOSTILE = b"A letter.\n" + EICAR


def job(tenant=None, name="letter.txt", **policy):
    return ScanJob(uuid7(), tenant or uuid7(), name, Policy(**policy), datetime.now(UTC))


async def pieces(body, size=200_000):
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def until(check, seconds=20.0, every=0.05):
    """Wait for a true answer of an async check; it, and how long it took."""
    began = time.monotonic()
    while not (found := await check()):
        assert time.monotonic() - began < seconds, "it did not come to this in time"
        await asyncio.sleep(every)
    return found, time.monotonic() - began


class Bench:
    """One plane with its client; `tenant` is whom all files belong to."""

    def __init__(self, processes):
        self.processes, self.client, self.tenant = processes, processes.client(), uuid7()
        self.taken, self.heard = 0, []

    async def bring(self, body=TEXT, name="letter.txt", **policy):
        given = job(self.tenant, name, **policy)
        await self.client.put(given, pieces(body))
        return given.blob

    async def verdict(self, blob, seconds=20.0):
        """The verdict once there is one, and the seconds until then."""

        async def look():
            return (await self.client.look(self.tenant, blob)).verdict

        return await until(look, seconds)

    async def why(self, blob):
        return (await self.client.look(self.tenant, blob)).why

    async def hear(self):
        """All that the plane has to tell now, acknowledged."""
        while self.ledger("SELECT count(*) FROM notice WHERE serial > ?", self.taken)[0][0]:
            for notice in await self.client.notices(self.taken):
                self.heard.append(notice)
                self.taken = notice.serial
        return [n.what for n in self.heard]

    async def state(self, wanted, seconds=20.0):
        """Until the worker says this of the scanner; the sentence and the seconds."""

        async def ask():
            found = await self.client.status()
            return found.sentence if found.scanner == wanted else None

        return await until(ask, seconds)

    def ledger(self, text, *values):
        """A statement in the plane's own ledger; rows."""
        with contextlib.closing(
            sqlite3.connect(self.processes.folder / "ledger.sqlite3", timeout=20)
        ) as db:
            rows = db.execute(text, values).fetchall()
            db.commit()
            return rows

    async def is_gone(self, blob):
        try:
            await self.client.look(self.tenant, blob)
        except Refused:
            return True
        return False

    def waiting(self):
        """What lies in the folder of unfinished uploads."""
        return sorted(p.name for p in (self.processes.folder / "incoming").iterdir())


@contextlib.asynccontextmanager
async def plane(redis_url, clamd="", *, start=("serve", "work"), folder=None, **more):
    home = Path(tempfile.mkdtemp(prefix="nexus-plane-"))
    home.chmod(0o755)
    processes = PlaneProcesses(folder or home, redis_url, clamd, **more)
    try:
        for name in start:
            processes.start(name)
        bench = Bench(processes)
        yield bench
        await bench.client.close()
    finally:
        processes.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def open_folder():
    """A folder that other accounts may pass; pytest's own is closed to them."""
    found = Path(tempfile.mkdtemp(prefix="nexus-plane-"))
    found.chmod(0o755)
    try:
        yield found
    finally:
        shutil.rmtree(found, ignore_errors=True)


class Cache:
    """A Valkey of our own, to be killed; it remembers nothing."""

    def __init__(self, folder):
        account = service_account()
        self._account, self._server = (
            account,
            Valkey(locate(folder, account).valkey, folder, account),
        )
        self._server.prepare()
        self.url, self._child = self._server.url, None

    def start(self):
        self._child = subprocess.Popen(
            self._server.argv(), env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}, cwd="/",
            preexec_fn=child_setup(self._account), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 20
        while not self._server.is_ready():
            assert time.monotonic() < end, "valkey did not start"
            time.sleep(0.02)

    def kill(self):
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
