"""Bring a database to this program's schema, or refuse with a sentence that says what to do.

Promises: migrations run under lock and statement time-outs, one transaction each; two nodes
starting at once do not run them twice; a program older than the database refuses to start.
"""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, pool
from sqlalchemy.exc import OperationalError

from appliance.base import logs
from appliance.base.errors import Misconfigured, Unavailable

CONTROL = "control"
PLACEMENT = "placement"
LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "60s"
_LOCK_KEY = 0x4E657875


def scripts(tree: str) -> ScriptDirectory:
    """The migration scripts of one tree."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations" / tree))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def upgrade(dsn: str, tree: str) -> list[str]:
    """Run what is missing; the revisions that ran. Raises Misconfigured, Unavailable."""
    engine = create_engine(_sqlalchemy_url(dsn), poolclass=pool.NullPool)
    try:
        with engine.connect() as connection:
            return _upgrade(connection, scripts(tree), tree)
    except OperationalError as error:
        raise Unavailable(
            f"The {tree} database cannot be migrated now: it does not answer or a lock was not "
            "granted in time. Nothing was changed; start the node again.",
            dependency="PostgreSQL",
        ) from error
    finally:
        engine.dispose()


def _upgrade(connection: Connection, tree: ScriptDirectory, name: str) -> list[str]:
    # A session lock: the second starter waits here and then finds nothing to do.
    connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK_KEY})")
    connection.commit()
    try:
        at = current_revision(connection)
        check_known(tree, at, name)
        connection.rollback()
        connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        connection.exec_driver_sql(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'")
        connection.commit()
        head = tree.get_current_head()
        if at == head:
            return []
        config = tree_config(tree, connection)
        ran: list[str] = []

        def steps(revision: object, _: object) -> object:
            found = tree._upgrade_revs(head or "head", revision)  # type: ignore[arg-type]
            ran.extend(str(step.revision.revision) for step in found)  # type: ignore[attr-defined]
            return found

        with EnvironmentContext(config, tree, fn=steps):  # type: ignore[arg-type]
            tree.run_env()
        connection.commit()
        logs.event("schema.migrated", kind=name, count=len(ran), version=head)
        return ran
    finally:
        connection.rollback()
        connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_LOCK_KEY})")
        connection.commit()


def tree_config(tree: ScriptDirectory, connection: Connection) -> Config:
    """An Alembic configuration that carries our open connection."""
    config = Config()
    config.set_main_option("script_location", str(tree.dir))
    config.attributes["connection"] = connection
    return config


def current_revision(connection: Connection) -> str | None:
    """The revision the database is at; None when it is empty."""
    return MigrationContext.configure(connection).get_current_revision()


def check_known(tree: ScriptDirectory, at: str | None, name: str) -> None:
    """Refuse a database that a newer program has migrated."""
    known = {str(script.revision) for script in tree.walk_revisions()}
    if at is not None and at not in known:
        raise Misconfigured(
            f"The {name} database is at schema {at}, which this program does not know: it was "
            f"upgraded by a newer Nexus. This program knows up to {tree.get_current_head()}. "
            "Install the newer version; nothing was changed."
        )


def _sqlalchemy_url(dsn: str) -> str:
    from psycopg.conninfo import conninfo_to_dict
    from sqlalchemy.engine import URL

    parts = {k: str(v) for k, v in conninfo_to_dict(dsn).items() if v is not None}
    return URL.create(
        "postgresql+psycopg",
        username=parts.pop("user", None),
        password=parts.pop("password", None),
        database=parts.pop("dbname", None),
        query=parts,
    ).render_as_string(hide_password=False)
