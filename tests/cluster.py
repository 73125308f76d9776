"""One PostgreSQL for a run of tests, made and configured by the runtime room, without fsync."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from appliance.db import migrate
from appliance.runtime.account import child_setup, open_data_folder, service_account
from appliance.runtime.engines import locate_postgres
from appliance.runtime.postgres import APP, CONTROL_DB, OWNER, POOL_DB, SUPERUSER, Postgres


@dataclass
class Dsns:
    """Where the databases are, by role."""

    superuser: str
    control_owner: str
    pool_owner: str
    control_dsn: str
    pool_dsn: str


def start():
    """The addresses, and a function that stops the server and removes its folder."""
    data = Path(tempfile.mkdtemp(prefix="nexus-test-"))
    account = service_account()
    open_data_folder(account, data)
    server = Postgres(locate_postgres(data, account), data, account, durable=False)
    server.prepare()
    with (data / "server.log").open("ab") as log:
        process = subprocess.Popen(
            server.argv(), env=server.environment(), preexec_fn=child_setup(account, signal.SIGQUIT),
            stdout=log, stderr=log, cwd="/",
        )  # fmt: skip
    end = time.monotonic() + 60
    while not server.is_ready():
        assert process.poll() is None, (data / "server.log").read_text()
        assert time.monotonic() < end, "PostgreSQL did not start in time"
        time.sleep(0.05)
    server.bootstrap()
    dsns = Dsns(
        server.dsn(SUPERUSER, POOL_DB), server.dsn(OWNER, CONTROL_DB), server.dsn(OWNER, POOL_DB),
        server.dsn(APP, CONTROL_DB), server.dsn(APP, POOL_DB),
    )  # fmt: skip
    migrate.upgrade(dsns.control_owner, migrate.CONTROL)
    migrate.upgrade(dsns.pool_owner, migrate.PLACEMENT)
    with psycopg.connect(server.dsn(SUPERUSER, CONTROL_DB), autocommit=True) as conn:
        conn.execute(
            "INSERT INTO placement VALUES (gen_random_uuid(), 'pool', 'pooled', %s, now())",
            [POOL_DB],
        )

    def stop():
        os.kill(process.pid, signal.SIGQUIT)
        process.wait()
        shutil.rmtree(data, ignore_errors=True)

    return dsns, stop
