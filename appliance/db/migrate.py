"""Bring a database to this program's schema, or refuse with a sentence that says what to do.

Promises: migrations run under lock and statement time-outs, one transaction each; of several
starters one migrates and the others wait for it; a program older than the database refuses to
start; what a migration needs of the server is checked before the first one runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, create_engine, pool
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from appliance.base import logs
from appliance.base.errors import ApplianceError, Misconfigured, StorageFull, Unavailable

CONTROL = "control"
PLACEMENT = "placement"
LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "60s"
WAIT_S = 120.0
SERVER_MIN = 17
APP_ROLE = "nexus_app"
_LOCK_KEY = 0x4E657875
_POLL_S = 0.1


def upgrade(
    dsn: str,
    tree: str,
    *,
    extensions: Sequence[str] = (),
    wait_s: float = WAIT_S,
    to: str = "head",
) -> list[str]:
    """Run what is missing up to `to`; the revisions that ran, oldest first.

    `extensions` must be available on the server. `wait_s` bounds the wait for another starter.
    Raises Misconfigured (newer database, unfit server), Unavailable (down, busy), StorageFull.
    """
    with _opened(dsn, tree) as connection, _alone(connection, tree, wait_s):
        scripts = read_scripts(tree)
        at = current_revision(connection)
        check_known(scripts, at, tree)
        check_server(connection, tree, extensions)
        connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        connection.exec_driver_sql(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'")
        connection.commit()
        missing = find_missing(scripts, at, to)
        if missing:
            command.upgrade(_config(tree, connection), to)
            logs.event("schema.migrated", kind=tree, count=len(missing), version=missing[-1])
        return missing


def current(dsn: str, tree: str) -> str | None:
    """The revision a database is at; None when it is empty. Changes nothing."""
    with _opened(dsn, tree) as connection:
        return current_revision(connection)


def head(tree: str) -> str:
    """The revision this program brings a database to."""
    return str(read_scripts(tree).get_current_head())


def read_scripts(tree: str) -> ScriptDirectory:
    """The migration scripts of one tree."""
    return ScriptDirectory.from_config(_config(tree))


def find_missing(scripts: ScriptDirectory, at: str | None, to: str = "head") -> list[str]:
    """Revisions after `at` up to `to`, oldest first; empty when `to` is already behind."""
    done = {str(s.revision) for s in scripts.iterate_revisions(at, "base")} if at else set()
    wanted = [str(s.revision) for s in scripts.iterate_revisions(to, "base")]
    return [revision for revision in reversed(wanted) if revision not in done]


def current_revision(connection: Connection) -> str | None:
    """The revision of an open database; None when it is empty."""
    try:
        return MigrationContext.configure(connection).get_current_revision()
    finally:
        connection.rollback()


def check_known(scripts: ScriptDirectory, at: str | None, tree: str) -> None:
    """Refuse a database that a newer program has migrated."""
    known = {str(script.revision) for script in scripts.walk_revisions()}
    if at is not None and at not in known:
        raise Misconfigured(
            f"The {tree} database is at schema {at}, which this program does not know: it was "
            f"upgraded by a newer Nexus. This program knows up to {scripts.get_current_head()}. "
            "Install the newer version; nothing was changed."
        )


def check_server(connection: Connection, tree: str, extensions: Sequence[str] = ()) -> None:
    """Refuse a server whose version, encoding, roles or extensions do not fit."""
    row = connection.exec_driver_sql(
        "SELECT current_setting('server_version_num')::int / 10000, "
        "current_setting('server_encoding'), "
        "(SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = %s)",
        (APP_ROLE,),
    ).one()
    missing = connection.exec_driver_sql(
        "SELECT e FROM unnest(%s::text[]) AS e EXCEPT SELECT name FROM pg_available_extensions "
        "ORDER BY 1",
        (list(extensions),),
    ).scalars()
    faults = []
    if row[0] < SERVER_MIN:
        faults.append(f"PostgreSQL {SERVER_MIN} or newer is needed, this is {row[0]}")
    if row[1] != "UTF8":
        faults.append(f"its encoding must be UTF8, it is {row[1]}")
    if row[2] is None:
        faults.append(f"role {APP_ROLE} does not exist; create it as docs/operating.md says")
    elif row[2]:
        faults.append(f"role {APP_ROLE} must be neither superuser nor BYPASSRLS")
    faults += [f"extension {name} is not installed on the server" for name in missing]
    connection.rollback()
    if faults:
        raise Misconfigured(
            f"The {tree} database's server is not fit: {'; '.join(faults)}. Nothing was changed."
        )


@contextmanager
def _alone(connection: Connection, tree: str, wait_s: float) -> Iterator[None]:
    """Hold the starters' lock. A session lock: it goes with a killed process."""
    end = time.monotonic() + wait_s
    take = f"SELECT pg_try_advisory_lock({_LOCK_KEY})"
    while not connection.exec_driver_sql(take).scalar():
        connection.rollback()
        if time.monotonic() > end:
            raise Unavailable(
                f"Another process has been migrating the {tree} database for over {wait_s:.0f} s. "
                "Nothing was changed here; start again when it is done.",
                dependency="PostgreSQL",
            )
        time.sleep(_POLL_S)
    connection.commit()
    try:
        yield
    finally:
        # Closing the connection would free it as well; a lost one cannot be asked.
        if not connection.invalidated and not connection.closed:
            connection.rollback()
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_LOCK_KEY})")
            connection.commit()


@contextmanager
def _opened(dsn: str, tree: str) -> Iterator[Connection]:
    engine = create_engine(_url(dsn), poolclass=pool.NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        raise _translate(error.orig, tree) from error
    finally:
        engine.dispose()


def _translate(error: BaseException | None, tree: str) -> ApplianceError:
    match error:
        case pg.LockNotAvailable():
            text = (
                f"The {tree} database cannot be migrated now: a table is in use and its lock was "
                f"not granted within {LOCK_TIMEOUT}. Nothing was changed; stop long transactions "
                "and start the node again."
            )
        case pg.QueryCanceled():
            text = (
                f"The {tree} database cannot be migrated now: a step took over "
                f"{STATEMENT_TIMEOUT}. Nothing was changed; start the node again when it is quiet."
            )
        case pg.DiskFull():
            return StorageFull(
                f"The disk of the {tree} database is full; nothing was changed. Free space first.",
                dependency="PostgreSQL",
            )
        case pg.OperationalError():
            text = (
                f"The {tree} database does not answer, so it cannot be migrated. Nothing was "
                "changed; start the node again when PostgreSQL is up."
            )
        case _:
            state = getattr(error, "sqlstate", None) or "unknown"
            return Misconfigured(
                f"The {tree} database refused a migration (SQLSTATE {state}); the step was rolled "
                "back. It may have been changed by hand, or the owner role lacks rights."
            )
    return Unavailable(text, dependency="PostgreSQL")


def _config(tree: str, connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).parent / "migrations" / tree).replace("%", "%%")
    )
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _url(dsn: str) -> URL:
    parts = {k: str(v) for k, v in conninfo_to_dict(dsn).items() if v is not None}
    return URL.create(
        "postgresql+psycopg",
        username=parts.pop("user", None),
        password=parts.pop("password", None),
        database=parts.pop("dbname", None),
        query=parts,
    )
