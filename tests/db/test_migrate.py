"""Migrations on real databases: run once, refuse what is newer or unfit, say so in a sentence."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from appliance.base.errors import Misconfigured, Unavailable
from appliance.db import migrate

_names = iter(range(10**9))


@pytest.fixture
def empty(dsns):
    """The owner's way to a new, empty database."""
    name = f"nexus_m{next(_names)}"
    with psycopg.connect(dsns.pool_owner, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
        yield make_conninfo(dsns.pool_owner, dbname=name)
        for left in range(50, -1, -1):
            try:
                conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
                break
            except psycopg.errors.InsufficientPrivilege:
                # The server's own vacuum is at it: nobody but a superuser may end that.
                if not left:
                    raise
                time.sleep(0.1)


@pytest.mark.parametrize("tree", [migrate.CONTROL, migrate.PLACEMENT])
def test_runs_once_and_reports_what_ran(empty, tree):
    assert migrate.current(empty, tree) is None
    ran = migrate.upgrade(empty, tree)
    assert ran and ran[-1] == migrate.head(tree) == migrate.current(empty, tree)
    assert migrate.upgrade(empty, tree) == []


def test_goes_step_by_step_and_never_back(empty):
    assert migrate.upgrade(empty, migrate.PLACEMENT, to="0001") == ["0001"]
    assert migrate.current(empty, migrate.PLACEMENT) == "0001"
    assert migrate.upgrade(empty, migrate.PLACEMENT)[0] == "0002"
    assert migrate.upgrade(empty, migrate.PLACEMENT, to="0001") == []
    assert migrate.current(empty, migrate.PLACEMENT) == migrate.head(migrate.PLACEMENT)


def test_several_starters_migrate_once(empty):
    gate = threading.Barrier(4)

    def start(_):
        gate.wait()
        return migrate.upgrade(empty, migrate.PLACEMENT)

    with ThreadPoolExecutor(4) as pool:
        ran = sorted(pool.map(start, range(4)), key=len)
    assert ran[:3] == [[], [], []] and ran[3][-1] == migrate.head(migrate.PLACEMENT)


def test_a_newer_database_is_refused_and_left_alone(empty):
    migrate.upgrade(empty, migrate.CONTROL)
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(Misconfigured, match="9999.*newer Nexus.*Install the newer version"):
            migrate.upgrade(empty, migrate.CONTROL)
        assert conn.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]


def test_waits_for_another_starter_only_so_long(empty):
    with psycopg.connect(empty, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (migrate._LOCK_KEY,))
        with pytest.raises(Unavailable, match="Another process has been migrating"):
            migrate.upgrade(empty, migrate.CONTROL, wait_s=0.3)
    assert migrate.upgrade(empty, migrate.CONTROL)


def test_a_lock_that_is_not_granted_is_a_sentence_and_changes_nothing(empty, monkeypatch):
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "200ms")
    migrate.upgrade(empty, migrate.PLACEMENT, to="0001")
    with psycopg.connect(empty) as other:
        other.execute("LOCK TABLE session IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="lock was not granted within 200ms") as busy:
            migrate.upgrade(empty, migrate.PLACEMENT)
        assert busy.value.dependency == "PostgreSQL"
        found = other.execute("SELECT to_regclass('tenant_fence')").fetchone()
        assert found == (None,)
    assert migrate.current(empty, migrate.PLACEMENT) == "0001"
    assert migrate.upgrade(empty, migrate.PLACEMENT)


def test_a_database_changed_by_hand_is_refused_without_a_trace(empty):
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute("CREATE TABLE tenant (secret text)")
        with pytest.raises(Misconfigured, match="SQLSTATE 42P07") as refused:
            migrate.upgrade(empty, migrate.CONTROL)
        assert "secret" not in refused.value.detail
        assert conn.execute("SELECT to_regclass('node')").fetchone() == (None,)


def test_missing_extensions_are_named(empty):
    with pytest.raises(Misconfigured, match="extension no_such_thing is not installed"):
        migrate.upgrade(empty, migrate.PLACEMENT, extensions=("plpgsql", "no_such_thing"))
    assert migrate.current(empty, migrate.PLACEMENT) is None
    assert migrate.upgrade(empty, migrate.PLACEMENT, extensions=("plpgsql",))


def test_an_unfit_role_is_refused(empty, dsns, monkeypatch):
    monkeypatch.setattr(migrate, "APP_ROLE", "nobody_such")
    with pytest.raises(Misconfigured, match="role nobody_such does not exist"):
        migrate.upgrade(empty, migrate.CONTROL)
    monkeypatch.setattr(migrate, "APP_ROLE", "postgres")
    with pytest.raises(Misconfigured, match="neither superuser nor BYPASSRLS"):
        migrate.upgrade(empty, migrate.CONTROL)


def test_a_server_that_is_down_is_named(tmp_path):
    dsn = f"host={tmp_path} user=nexus_owner dbname=none password=very-secret"
    with pytest.raises(Unavailable, match="does not answer") as down:
        migrate.upgrade(dsn, migrate.CONTROL)
    assert "very-secret" not in str(down.value)
