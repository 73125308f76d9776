"""Embedded services as a node runs them: real processes, real kills."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from appliance.base.errors import Misconfigured
from appliance.runtime.services import Services

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    for parent in (folder, *folder.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    return folder


def pid_of(services, name):
    return next(u for u in services.supervisor._units if u.name == name).process.pid


async def test_services_start_heal_stop_and_keep_their_data(data):
    services = Services(data, durable=False)
    ends = await services.start()
    with psycopg.connect(ends.pool_owner_dsn, autocommit=True) as conn:
        conn.execute("CREATE TABLE kept (n int)")
        conn.execute("INSERT INTO kept VALUES (1)")
    assert os.stat(f"/proc/{pid_of(services, 'postgres')}").st_uid != 0
    assert os.stat(f"/proc/{pid_of(services, 'valkey')}").st_uid != 0
    with pytest.raises(Misconfigured, match=str(os.getpid())):
        await Services(data, durable=False).start()
    os.kill(pid_of(services, "postgres"), signal.SIGKILL)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        await asyncio.sleep(0.2)
        if services.postgres.is_ready():
            break
    with psycopg.connect(ends.pool_dsn) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT * FROM kept")
    await services.stop()
    again = Services(data, durable=False)
    ends = await again.start()
    with psycopg.connect(ends.pool_owner_dsn) as conn:
        assert conn.execute("SELECT n FROM kept").fetchall() == [(1,)]
    for secret in (data / "secrets").iterdir():
        assert secret.stat().st_mode & 0o077 == 0
    await again.stop()


SCRIPT = """
import asyncio, sys
from pathlib import Path
from appliance.runtime.services import Services
async def main():
    services = Services(Path(sys.argv[1]), durable=False)
    await services.start()
    print(*[u.process.pid for u in services.supervisor._units], flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_a_killed_supervisor_leaves_no_process_and_starts_again(data):
    root = str(Path(__file__).resolve().parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(data)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    pids = [int(p) for p in child.stdout.readline().split()]
    child.kill()
    child.wait()
    child.stdout.close()
    services = Services(data, durable=False)
    await services.start()
    assert not any(Path(f"/proc/{p}").exists() for p in pids)
    await services.stop()


async def test_data_of_another_major_version_is_refused(data):
    (data / "postgres").mkdir()
    (data / "postgres" / "PG_VERSION").write_text("12\n")
    services = Services(data, durable=False)
    with pytest.raises(Misconfigured, match="PostgreSQL 12"):
        await services.start()
    await services.stop()
    assert (data / "postgres" / "PG_VERSION").exists()
