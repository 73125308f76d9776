"""Embedded services as a node runs them: real processes, real kills."""

import os
import shutil
import time
from pathlib import Path

import psycopg
import pytest
import redis

from appliance.base.errors import Misconfigured
from appliance.runtime.account import service_account
from appliance.runtime.engines import locate_postgres
from appliance.runtime.postgres import Postgres
from appliance.runtime.services import Given, Services
from tests.runtime.conftest import alive, kill, tree, unit_of, until

pytestmark = pytest.mark.anyio
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to drop")


def rows(dsn, text):
    with psycopg.connect(dsn, autocommit=True) as conn:
        cursor = conn.execute(text)
        return cursor.fetchall() if cursor.description else []


async def test_services_start_heal_stop_and_keep_their_data(data):
    services = Services(data, durable=False)
    ends = await services.start()
    rows(ends.pool_owner_dsn, "CREATE TABLE kept AS SELECT 1 AS n")
    with pytest.raises(Misconfigured, match=str(os.getpid())):
        await Services(data, durable=False).start()
    kill(unit_of(services, "postgres").process.pid)
    await until(lambda: not services.postgres.is_ready())
    await until(services.postgres.is_ready)
    kill(unit_of(services, "valkey").process.pid)
    await until(lambda: unit_of(services, "valkey").restarts == 1)
    await until(services.valkey.is_ready)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(ends.pool_dsn, "SELECT * FROM kept")
    pids = [p for u in services.supervisor._units for p in tree(u.process.pid)]
    await services.stop()
    assert not any(map(alive, pids))
    again = Services(data, durable=False)
    assert await again.start() == ends
    assert rows(ends.pool_owner_dsn, "SELECT n FROM kept") == [(1,)]
    await again.stop()


async def test_the_cluster_is_made_as_the_node_needs_it(data):
    async with Services(data, durable=False) as services:
        ends = services.endpoints()
        services.ensure_database()("nexus_t_firm")
        services.postgres.bootstrap()
        roles = rows(
            ends.superuser_dsn,
            "SELECT rolname, rolsuper, rolbypassrls, rolcreatedb, rolcanlogin FROM pg_roles "
            "WHERE rolname LIKE 'nexus%' ORDER BY 1",
        )
        assert roles == [
            ("nexus_app", False, False, False, True), ("nexus_owner", False, False, True, True),
        ]  # fmt: skip
        owned = rows(
            ends.superuser_dsn,
            "SELECT datname, datlocprovider::text, pg_encoding_to_char(encoding), datlocale "
            "FROM pg_database WHERE pg_get_userbyid(datdba) = 'nexus_owner' ORDER BY 1",
        )
        names = ("nexus_control", "nexus_pool", "nexus_t_firm")
        assert owned == [(name, "b", "UTF8", "C.UTF-8") for name in names]
        for name in names:
            dsn = services.postgres.dsn("postgres", name)
            text = "SELECT proleakproof FROM pg_proc WHERE oid = 'ts_match_vq(tsvector,tsquery)'::regprocedure"
            assert rows(dsn, text) == [(True,)]
        wanted = {
            "listen_addresses": "", "jit": "off", "data_checksums": "on", "log_statement": "none",
            "password_encryption": "scram-sha-256", "shared_buffers": "128MB",
            "max_connections": "100", "wal_compression": "pglz", "log_error_verbosity": "terse",
        }  # fmt: skip
        found = {name: rows(ends.superuser_dsn, f"SHOW {name}")[0][0] for name in wanted}
        assert found == wanted
        assert rows(ends.superuser_dsn, "SELECT DISTINCT auth_method FROM pg_hba_file_rules ORDER BY 1") == [
            ("reject",), ("scram-sha-256",),
        ]  # fmt: skip
        settings = redis.Redis.from_url(ends.redis_url).config_get("*")
        assert settings["port"] == "0" or settings["port"] == 0
        assert settings["appendonly"] == "yes" and settings["maxmemory-policy"] == "noeviction"


@AS_ROOT
async def test_root_drops_to_the_account_and_only_it_reads_the_secrets(data):
    account = service_account()
    async with Services(data, durable=False) as services:
        for unit in services.supervisor._units:
            for pid in tree(unit.process.pid):
                status = Path(f"/proc/{pid}/status").read_text()
                ids = [
                    line.split()[1:]
                    for line in status.splitlines()
                    if line.startswith(("Uid:", "Gid:", "Groups:"))
                ]
                assert ids == [[str(account.uid)] * 4, [str(account.gid)] * 4, []]
        private = [
            *(data / "secrets").iterdir(),
            data / "valkey/valkey.conf",
            data / "postgres/nexus.conf",
        ]
        assert {(p.stat().st_mode & 0o777, p.stat().st_uid) for p in private} == {
            (0o600, account.uid)
        }
        assert services.postgres.socket_dir.stat().st_mode & 0o777 == 0o700


@AS_ROOT
async def test_a_folder_that_the_account_cannot_pass_is_refused(data):
    data.chmod(0o700)
    with pytest.raises(Misconfigured, match=rf"cannot pass {data}\."):
        await Services(data / "node", durable=False).start()
    data.chmod(0o755)
    assert list((data / "node").iterdir()) == []


async def test_a_killed_supervisor_leaves_no_process_and_starts_again(data, start_node):
    child = start_node(data)
    pids = [p for unit in child.stdout.readline().split() for p in tree(int(unit))]
    assert len(pids) > 5
    child.kill()
    child.wait()
    assert await until(lambda: not any(map(alive, pids))) < 5
    async with Services(data, durable=False):
        pass


async def test_after_the_death_of_everything_no_acknowledged_row_is_lost(data, start_node):
    child = start_node(data, "durable")
    units = [int(p) for p in child.stdout.readline().split()]
    account = service_account()
    server = Postgres(locate_postgres(data, account), data, account)
    owner = server.dsn("nexus_owner", "nexus_pool")
    acknowledged = 0
    with psycopg.connect(owner, autocommit=True) as conn:
        conn.execute("CREATE TABLE ack (n int PRIMARY KEY)")
        for acknowledged in range(1, 51):
            conn.execute("INSERT INTO ack VALUES (%s)", (acknowledged,))
        everything = {child.pid, *(p for unit in units for p in tree(unit))}
        kill(*everything)
    child.wait()
    services = Services(data)
    ends = await services.start()
    assert rows(ends.pool_owner_dsn, "SELECT count(*), max(n) FROM ack") == [(50, acknowledged)]
    await services.stop()


async def test_a_start_killed_while_it_makes_the_cluster_is_made_good(data, start_node):
    child = start_node(data)
    await until((data / "postgres.making" / "base").exists)
    child.kill()
    child.wait()
    assert not (data / "postgres").exists()
    async with Services(data, durable=False) as services:
        assert services.postgres.is_ready()


@pytest.mark.parametrize("name", ["Дані вузла, 1", 'it\'s "100%" #1', "long" * 30])
async def test_the_data_folder_may_have_any_name(data, name, monkeypatch):
    monkeypatch.chdir(data)
    async with Services(Path(name), durable=False) as services:
        ends = services.endpoints()
        assert rows(ends.pool_dsn, "SELECT 1") == [(1,)]
        assert redis.Redis.from_url(ends.redis_url).ping()
        sockets = services.postgres.socket_dir
    for folder in (sockets, Path(f"{sockets}-scan")):
        if folder.parent == Path("/tmp"):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(("version", "sentence"), [("12", "PostgreSQL 12"), ("18", "pg_control")])
async def test_foreign_and_broken_data_is_refused_and_left_alone(data, version, sentence):
    (data / "postgres").mkdir()
    (data / "postgres" / "PG_VERSION").write_text(f"{version}\n")
    with pytest.raises(Misconfigured, match=sentence):
        await Services(data, durable=False).start()
    assert [p.name for p in (data / "postgres").iterdir()] == ["PG_VERSION"]


async def test_a_lost_password_is_said_at_once(data):
    async with Services(data, durable=False):
        pass
    (data / "secrets" / "postgres.password").unlink()
    began = time.monotonic()
    with pytest.raises(Misconfigured, match=r"secrets/postgres\.password"):
        await Services(data, durable=False).start()
    assert time.monotonic() - began < 10
    async with Services(data.parent / "other", durable=False) as other:
        assert other.postgres.is_ready(), "nothing of the failed start holds anything"


async def test_what_is_given_by_url_is_not_started(data):
    given = Given(
        url="host=/db user=nexus_app dbname=nexus_pool", owner_url="host=/db user=nexus_owner dbname=nexus_pool",
        redis_url="redis://cache/0",
    )  # fmt: skip
    async with Services(data, given) as services:
        ends = services.endpoints()
        assert services.supervisor._units == [] and not (data / "engines").exists()
        with pytest.raises(Misconfigured, match="administrator"):
            services.ensure_database()
    assert sorted(ends.control_dsn.split()) == [
        "dbname=nexus_control",
        "host=/db",
        "user=nexus_app",
    ]
    assert (ends.pool_owner_dsn, ends.superuser_dsn, ends.redis_url) == (
        given.owner_url,
        "",
        "redis://cache/0",
    )
    for half in (Given(url="host=/db"), Given(owner_url="host=/db")):
        with pytest.raises(Misconfigured, match="owns the tables"):
            await Services(data, half).start()
