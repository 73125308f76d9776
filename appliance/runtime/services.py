"""The services of one node, ours or given by URL: the same for `nexus up` and for the tests."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
from psycopg.conninfo import make_conninfo

from appliance.base.errors import Misconfigured
from appliance.runtime.account import Account, service_account
from appliance.runtime.clamd import ScannerState, scanner_state
from appliance.runtime.engines import Engines, locate
from appliance.runtime.postgres import APP, CONTROL_DB, OWNER, POOL_DB, SUPERUSER, Postgres
from appliance.runtime.supervisor import Supervisor, Unit
from appliance.runtime.valkey import Valkey


class Endpoints(msgspec.Struct, frozen=True):
    """Where everything is. The strings hold passwords: never log them."""

    control_owner_dsn: str
    control_dsn: str
    pool_owner_dsn: str
    pool_dsn: str
    superuser_dsn: str
    redis_url: str
    scanner: ScannerState


class Given(msgspec.Struct, frozen=True):
    """Services given by URL; an empty text means: start our own."""

    url: str = ""
    owner_url: str = ""
    control_url: str = ""
    control_owner_url: str = ""
    redis_url: str = ""


class Services:
    """Starts what is not given, in order, under a supervisor that keeps it alive."""

    def __init__(self, data: Path, given: Given | None = None, *, durable: bool = True) -> None:
        self.data = data
        self.given = given or Given()
        self.account: Account = service_account()
        self._durable = durable
        self._engines: Engines | None = None
        self.supervisor = Supervisor(data, self.account)
        self.postgres: Postgres | None = None
        self.valkey: Valkey | None = None

    async def start(self) -> Endpoints:
        """Everything up and ready. Raises Misconfigured, Unavailable."""
        self.data.mkdir(parents=True, exist_ok=True)
        if not self.account.is_self:
            # The data folder must be passable for the account; what is inside has its own modes.
            self.data.chmod(0o755)
        self.supervisor.lock()
        self._engines = locate(self.data, self.account)
        if not self.given.url:
            await self._start_postgres(self._engines)
        if not self.given.redis_url:
            await self._start_valkey(self._engines)
        return self.endpoints()

    async def _start_postgres(self, engines: Engines) -> None:
        server = Postgres(engines.postgres_bin, self.data, self.account, durable=self._durable)
        server.prepare()
        await self.supervisor.start(
            Unit(
                "postgres", server.argv(), self.account, server.wait_ready, server.environment(),
                stop_signal=signal.SIGINT, grace_s=60.0,
            )
        )  # fmt: skip
        server.bootstrap()
        self.postgres = server

    async def _start_valkey(self, engines: Engines) -> None:
        server = Valkey(engines.valkey, self.data, self.account)
        server.prepare()
        env = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
        await self.supervisor.start(
            Unit("valkey", server.argv(), self.account, server.wait_ready, env)
        )
        self.valkey = server

    def endpoints(self) -> Endpoints:
        """Ours and given ones in one form. Raises Misconfigured for a half-given database."""
        given, ours = self.given, self.postgres
        if ours is not None:
            dsns = [
                ours.dsn(OWNER, CONTROL_DB), ours.dsn(APP, CONTROL_DB), ours.dsn(OWNER, POOL_DB),
                ours.dsn(APP, POOL_DB), ours.dsn(SUPERUSER, "postgres"),
            ]  # fmt: skip
        else:
            if not given.owner_url:
                raise Misconfigured(
                    "database.url is set but database.owner_url is not: the node needs a role that "
                    "owns the tables for migrations, and another one for its work."
                )
            dsns = [
                given.control_owner_url or make_conninfo(given.owner_url, dbname=CONTROL_DB),
                given.control_url or make_conninfo(given.url, dbname=CONTROL_DB),
                given.owner_url, given.url, "",
            ]  # fmt: skip
        redis_url = self.valkey.url if self.valkey else given.redis_url
        clamd = self._engines.clamd if self._engines else None
        return Endpoints(*dsns, redis_url, scanner_state(clamd))

    def ensure_database(self) -> Callable[[str], None]:
        """Make a database for a dedicated placement on our own server. Raises Misconfigured."""
        server = self.postgres
        if server is None:
            raise Misconfigured(
                "The database server is given by URL: let its administrator make the database, and "
                "name it under [placements] in nexus.toml."
            )
        return server.ensure_database

    async def stop(self) -> None:
        """Everything down, in reverse; the data folder is free again."""
        await self.supervisor.stop()
        self.supervisor.unlock()
