"""A PostgreSQL of our own: made once, started, healed after a crash, never deleted.

Unix socket only, so there is nothing to reach from outside and no TLS to manage; passwords are
generated, scram, in files that only the service account reads.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from enum import Enum
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from appliance.base.errors import Misconfigured, Unavailable
from appliance.runtime.account import (
    Account,
    child_setup,
    keep_secret,
    make_folder,
    write_private,
)
from appliance.runtime.leftovers import clear_leftovers
from appliance.runtime.sockets import socket_folder

OWNER, APP, SUPERUSER = "nexus_owner", "nexus_app", "postgres"
CONTROL_DB, POOL_DB = "nexus_control", "nexus_pool"
START_TIMEOUT_S = 60.0
RECOVERY_TIMEOUT_S = 900.0
STRAGGLER_WAIT_S = 5.0
SHARED_BUFFERS = "128MB"


class Answer(Enum):
    """What a server says to a new connection."""

    READY = "ready"
    BUSY = "busy"
    LOCKED_OUT = "locked_out"
    SILENT = "silent"


class Postgres:
    """One cluster in `<data>/postgres`; `durable=False` is for tests only."""

    def __init__(
        self,
        bin_dir: Path,
        data: Path,
        account: Account,
        *,
        durable: bool = True,
        shared_buffers: str = SHARED_BUFFERS,
    ) -> None:
        self.bin_dir = bin_dir
        self.cluster = data.absolute() / "postgres"
        self.account = account
        self._secrets = data.absolute() / "secrets"
        self._durable = durable
        self._shared_buffers = shared_buffers
        self.socket_dir = socket_folder(data, account)

    def prepare(self) -> None:
        """Make the cluster when there is none; write its configuration. Raises Misconfigured."""
        make_folder(self.account, self._secrets)
        self._check_version()
        if not (self.cluster / "PG_VERSION").exists():
            self._initdb()
        write_private(self.account, self.cluster / "nexus.conf", self._configuration())

    async def clear(self) -> None:
        """Wait for what a killed server left; see leftovers.clear_leftovers."""
        await clear_leftovers(self.cluster, self.account.uid)

    def argv(self) -> list[str]:
        """The server's command line."""
        return [str(self.bin_dir / "postgres"), "-D", str(self.cluster)]

    def environment(self) -> dict[str, str]:
        """The server's whole environment."""
        return {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "TZ": "UTC"}

    def _check_version(self) -> None:
        marker = self.cluster / "PG_VERSION"
        if not marker.exists():
            return
        done = subprocess.run(  # noqa: S603
            [str(self.bin_dir / "postgres"), "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        ours, theirs = done.stdout.split()[2].split(".")[0], marker.read_text().strip()
        if ours != theirs:
            raise Misconfigured(
                f"The data folder was made by PostgreSQL {theirs}, this node brings {ours}. "
                "Upgrade it first: docs/operating.md, section Upgrading PostgreSQL."
            )
        if not (self.cluster / "global" / "pg_control").exists():
            raise Misconfigured(
                f"{self.cluster} is not a whole PostgreSQL data folder (global/pg_control is "
                "missing). Put it back from a backup, or move it away to begin with an empty one."
            )

    def _initdb(self) -> None:
        """Made beside and renamed: a start that was killed half-way leaves no half cluster."""
        making = self.cluster.with_name("postgres.making")
        _remove_whole(making)  # No server ever ran in it.
        make_folder(self.account, making)
        self.password(SUPERUSER)
        password = self._secrets / f"{SUPERUSER}.password"
        command = [str(self.bin_dir / "initdb"), "-D", str(making), "-U", SUPERUSER, "-E", "UTF8"]
        command += ["-k", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += ["--auth-local=scram-sha-256", "--auth-host=reject", f"--pwfile={password}"]
        command += [] if self._durable else ["--no-sync"]
        done = subprocess.run(  # noqa: S603
            command, env=self.environment(), capture_output=True, text=True, check=False,
            preexec_fn=child_setup(self.account), cwd="/",
        )  # fmt: skip
        if done.returncode:
            raise Misconfigured(f"PostgreSQL could not make its data folder: {done.stderr.strip()}")
        own = (making / "postgresql.conf").read_text("utf-8")
        write_private(self.account, making / "postgresql.conf", own + "\ninclude = 'nexus.conf'\n")
        try:
            making.rename(self.cluster)
        except OSError:
            raise Misconfigured(
                f"{self.cluster} holds files but no PostgreSQL data (no PG_VERSION). Put the data "
                "back from a backup, or move the folder away to begin with an empty one."
            ) from None
        _sync_folder(self.cluster.parent)

    def _configuration(self) -> str:
        lines = {
            "listen_addresses": "''",
            "unix_socket_directories": f"'{self.socket_dir}'",
            "unix_socket_permissions": "0770",
            "password_encryption": "'scram-sha-256'",
            "max_connections": "100",
            "shared_buffers": f"'{self._shared_buffers}'",
            "work_mem": "'8MB'",
            "maintenance_work_mem": "'64MB'",
            "random_page_cost": "1.1",
            "effective_io_concurrency": "64",
            "jit": "off",
            "wal_compression": "on",
            # A segment that is done with is removed, not laid by with its old bytes: what was
            # withdrawn from this node has to leave its disk (docs/branches-scope.md).
            "wal_recycle": "off",
            "max_wal_size": "'1GB'",
            "summarize_wal": "on",
            "timezone": "'UTC'",
            "log_timezone": "'UTC'",
            "log_statement": "'none'",
            # A row's values stand in the DETAIL of a message, its statement beside it: neither
            # belongs in a log.
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
            "log_parameter_max_length": "0",
            "log_parameter_max_length_on_error": "0",
            "idle_in_transaction_session_timeout": "'60s'",
        }
        if not self._durable:
            lines |= {"fsync": "off", "full_page_writes": "off"}
        return "".join(f"{name} = {value}\n" for name, value in lines.items())

    def password(self, role: str) -> str:
        """A role's password, generated at first use. Never log it."""
        return keep_secret(self.account, self._secrets / f"{role}.password")

    def dsn(self, role: str, database: str) -> str:
        """A connection string. It holds a password: never log it."""
        return make_conninfo(
            host=str(self.socket_dir), user=role, password=self.password(role), dbname=database
        )

    def is_ready(self) -> bool:
        """Whether the server accepts our superuser."""
        return self.ask() is Answer.READY

    def ask(self) -> Answer:
        """Try to connect as the superuser and say what came of it."""
        try:
            psycopg.connect(self.dsn(SUPERUSER, "postgres"), connect_timeout=3).close()
        except psycopg.OperationalError as refused:
            # libpq gives a refused connection no code; the server's language is C by its LC_ALL.
            text = str(refused)
            if "password authentication failed" in text:
                return Answer.LOCKED_OUT
            return Answer.BUSY if "the database system is" in text else Answer.SILENT
        return Answer.READY

    async def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait for the server, longer while it recovers. Raises Misconfigured, Unavailable."""
        began = time.monotonic()
        while (answer := await asyncio.to_thread(self.ask)) is not Answer.READY:
            if answer is Answer.LOCKED_OUT:
                raise Misconfigured(
                    f"The server over {self.cluster} does not take the password in "
                    f"secrets/{SUPERUSER}.password: the two folders are not of the same node. "
                    "Restore both from one backup."
                )
            bound = RECOVERY_TIMEOUT_S if answer is Answer.BUSY else timeout_s
            if time.monotonic() - began > bound:
                raise Unavailable(
                    "PostgreSQL did not start; its log says why: log/postgres.log in the data folder.",
                    dependency="PostgreSQL",
                )
            await asyncio.sleep(0.02)

    def bootstrap(self) -> None:
        """Roles and databases, and what only a superuser may do; harmless when repeated."""
        with psycopg.connect(self.dsn(SUPERUSER, "postgres"), autocommit=True) as conn:
            known = {r[0] for r in conn.execute("SELECT rolname FROM pg_roles").fetchall()}
            for role, rights in ((OWNER, "CREATEDB"), (APP, "NOCREATEDB")):
                verb = "ALTER" if role in known else "CREATE"
                conn.execute(
                    sql.SQL(
                        f"{verb} ROLE {{}} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE {rights} PASSWORD {{}}"
                    ).format(sql.Identifier(role), sql.Literal(self.password(role)))
                )
            conn.execute(sql.SQL("GRANT pg_checkpoint TO {}").format(sql.Identifier(APP)))
        for database in (CONTROL_DB, POOL_DB):
            self.ensure_database(database)

    def ensure_database(self, database: str) -> None:
        """A database of the owner role, with full-text match usable behind row security."""
        with psycopg.connect(self.dsn(SUPERUSER, "postgres"), autocommit=True) as conn:
            row = conn.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", (database,)
            ).fetchone()
            if row is None:
                conn.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(
                        sql.Identifier(database), sql.Identifier(OWNER)
                    )
                )
        with psycopg.connect(self.dsn(SUPERUSER, database), autocommit=True) as conn:
            conn.execute("ALTER FUNCTION ts_match_vq(tsvector, tsquery) LEAKPROOF")
            conn.execute(
                sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database))
            )
            conn.execute(
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
                    sql.Identifier(database), sql.Identifier(APP)
                )
            )
            # What a purge needs to leave no byte: docs/branches-scope.md.
            for right in (
                "MAINTAIN ON pg_catalog.pg_statistic",
                "EXECUTE ON FUNCTION pg_switch_wal(), pg_ls_waldir()",
            ):
                conn.execute(sql.SQL(f"GRANT {right} TO {{}}").format(sql.Identifier(APP)))


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_whole(folder: Path) -> None:
    """Gone, whatever is still writing into it: a killed initdb's child lives a moment longer."""
    began = time.monotonic()
    while folder.exists() and time.monotonic() - began < STRAGGLER_WAIT_S:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)
