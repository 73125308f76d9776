"""What an earlier life leaves in the way of the next one."""

import os
import subprocess
import time

import psycopg
import pytest

from appliance.runtime.account import service_account, write_private
from appliance.runtime.leftovers import clear_leftovers, processes_in
from appliance.runtime.services import Services
from tests.runtime.conftest import alive, kill, unit_of, until

pytestmark = pytest.mark.anyio
LOOP = b"DO $$ BEGIN LOOP END LOOP; END $$"


async def test_a_busy_child_of_a_killed_server_does_not_hold_the_node(data):
    async with Services(data, durable=False) as services:
        conn = psycopg.connect(services.endpoints().superuser_dsn, autocommit=True)
        conn.pgconn.send_query(LOOP)
        backend = conn.info.backend_pid
        kill(unit_of(services, "postgres").process.pid)
        await until(lambda: not services.postgres.is_ready())
        assert alive(backend), "it is the case that this test is about"
        await until(services.postgres.is_ready)
        assert not alive(backend)
        conn.close()


async def test_a_number_that_now_is_another_program_does_not_hold_the_node(data):
    async with Services(data, durable=False):
        pass
    account = service_account()
    rights = {} if account.is_self else {"user": account.uid, "group": account.gid}
    other = subprocess.Popen(["/bin/sleep", "600"], **rights)
    stale = data / "postgres" / "postmaster.pid"
    write_private(account, stale, f"{other.pid}\n{data}/postgres\n1\n5432\n\n\n0 0\nready\n")
    began = time.monotonic()
    async with Services(data, durable=False):
        pass
    assert time.monotonic() - began < 10 and other.poll() is None
    other.kill()
    other.wait()


async def test_a_living_server_and_people_in_its_folder_are_let_be(data):
    async with Services(data, durable=False) as services:
        cluster, uid = services.postgres.cluster, services.account.uid
        server = unit_of(services, "postgres").process.pid
        looker = subprocess.Popen(["/bin/sleep", "600"], cwd=cluster)
        found = processes_in(cluster, uid)
        assert server in found and looker.pid not in found and os.getpid() not in found
        assert processes_in(data, uid) == set()
        looker.kill()
        looker.wait()
    await clear_leftovers(cluster, uid)
