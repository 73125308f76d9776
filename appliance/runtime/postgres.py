"""A PostgreSQL of our own: made once, started, healed after a crash, never deleted.

Unix socket only, so there is nothing to reach from outside and no TLS to manage; passwords are
generated, scram, in files that only the service account reads.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import subprocess
import time
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from appliance.base.errors import Misconfigured, Unavailable
from appliance.runtime.account import Account, child_setup, give, make_folder

OWNER, APP, SUPERUSER = "nexus_owner", "nexus_app", "postgres"
CONTROL_DB, POOL_DB = "nexus_control", "nexus_pool"
START_TIMEOUT_S = 60.0
_SOCKET_PATH_MAX = 90


class Postgres:
    """One cluster in `<data>/postgres`; `durable=False` is for tests only."""

    def __init__(
        self, bin_dir: Path, data: Path, account: Account, *, durable: bool = True
    ) -> None:
        self.bin_dir = bin_dir
        self.cluster = data / "postgres"
        self.account = account
        self._secrets = data / "secrets"
        self._durable = durable
        self.socket_dir = socket_folder(data, account)

    def prepare(self) -> None:
        """Make the cluster when there is none; write its configuration. Raises Misconfigured."""
        make_folder(self.account, self._secrets)
        self._check_version()
        if not (self.cluster / "PG_VERSION").exists():
            self._initdb()
        text = self._configuration()
        path = self.cluster / "nexus.conf"
        path.write_text(text, "utf-8")
        give(self.account, path, 0o600)

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
            [str(self.bin_dir / "postgres"), "--version"], capture_output=True, text=True, check=True
        )
        ours, theirs = done.stdout.split()[2].split(".")[0], marker.read_text().strip()
        if ours != theirs:
            raise Misconfigured(
                f"The data folder was made by PostgreSQL {theirs}, this node brings {ours}. "
                "Upgrade it first: docs/operating.md, section Upgrading PostgreSQL."
            )

    def _initdb(self) -> None:
        make_folder(self.account, self.cluster)
        password = self._secrets / f"{SUPERUSER}.password"
        self.password(SUPERUSER)
        command = [str(self.bin_dir / "initdb"), "-D", str(self.cluster), "-U", SUPERUSER, "-E", "UTF8"]
        command += ["-k", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += ["--auth-local=scram-sha-256", "--auth-host=reject", f"--pwfile={password}"]
        command += [] if self._durable else ["--no-sync"]
        done = subprocess.run(  # noqa: S603
            command, env=self.environment(), capture_output=True, text=True, check=False,
            preexec_fn=child_setup(self.account), cwd="/",  # noqa: PLW1509
        )  # fmt: skip
        if done.returncode:
            raise Misconfigured(f"PostgreSQL could not make its data folder: {done.stderr.strip()}")
        with (self.cluster / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\ninclude = 'nexus.conf'\n")

    def _configuration(self) -> str:
        lines = {
            "listen_addresses": "''",
            "unix_socket_directories": f"'{self.socket_dir}'",
            "unix_socket_permissions": "0770",
            "password_encryption": "'scram-sha-256'",
            "max_connections": "100",
            "shared_buffers": "'128MB'",
            "work_mem": "'8MB'",
            "maintenance_work_mem": "'64MB'",
            "random_page_cost": "1.1",
            "effective_io_concurrency": "64",
            "jit": "off",
            "wal_compression": "on",
            "max_wal_size": "'1GB'",
            "summarize_wal": "on",
            "timezone": "'UTC'",
            "log_timezone": "'UTC'",
            "log_statement": "'none'",
            "log_min_error_statement": "panic",
            "log_parameter_max_length": "0",
            "log_parameter_max_length_on_error": "0",
            "idle_in_transaction_session_timeout": "'60s'",
        }
        if not self._durable:
            lines |= {"fsync": "off", "full_page_writes": "off"}
        return "".join(f"{name} = {value}\n" for name, value in lines.items())

    def password(self, role: str) -> str:
        """A role's password, generated at first use."""
        path = self._secrets / f"{role}.password"
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(24))
            give(self.account, path, 0o600)
        return path.read_text("utf-8").strip()

    def dsn(self, role: str, database: str) -> str:
        """A connection string. It holds a password: never log it."""
        return make_conninfo(
            host=str(self.socket_dir), user=role, password=self.password(role), dbname=database
        )

    def is_ready(self) -> bool:
        """Whether the server accepts our superuser."""
        try:
            psycopg.connect(self.dsn(SUPERUSER, "postgres"), connect_timeout=3).close()
        except psycopg.OperationalError:
            return False
        return True

    async def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait for the server. Raises Unavailable."""
        end = time.monotonic() + timeout_s
        while not await asyncio.to_thread(self.is_ready):
            if time.monotonic() > end:
                raise Unavailable(
                    "PostgreSQL did not start; its log says why: log/postgres.log in the data folder.",
                    dependency="PostgreSQL",
                )
            await asyncio.sleep(0.05)

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
        for database in (CONTROL_DB, POOL_DB):
            self.ensure_database(database)

    def ensure_database(self, database: str) -> None:
        """A database of the owner role, with full-text match usable behind row security."""
        with psycopg.connect(self.dsn(SUPERUSER, "postgres"), autocommit=True) as conn:
            row = conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone()
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


def socket_folder(data: Path, account: Account) -> Path:
    """A folder for sockets: in the data folder, or a short one when its path is too long."""
    wanted = data / "run"
    if len(str(wanted)) > _SOCKET_PATH_MAX - len("/.s.PGSQL.5432"):
        digest = hashlib.sha256(str(data).encode()).hexdigest()[:12]
        wanted = Path("/tmp") / f"nexus-{digest}"  # noqa: S108
    if wanted.is_symlink() or (wanted.exists() and wanted.stat().st_uid not in (0, account.uid)):
        raise Misconfigured(f"{wanted} belongs to somebody else; remove it and start again.")
    return make_folder(account, wanted)
