"""The services of one node, ours or given by URL: the same for `nexus up` and for the tests."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from psycopg.conninfo import make_conninfo

from appliance.base.errors import Misconfigured
from appliance.runtime.account import (
    Account,
    helper_account,
    open_data_folder,
    service_account,
)
from appliance.runtime.clamd import SIGNATURES, Clamd, ScannerState, given_scanner, scanner_state
from appliance.runtime.content import ACCOUNT as CONTENT_ACCOUNT
from appliance.runtime.content import Content
from appliance.runtime.engines import (
    locate_clamd,
    locate_freshclam,
    locate_postgres,
    locate_valkey,
)
from appliance.runtime.freshclam import Freshclam
from appliance.runtime.postgres import APP, CONTROL_DB, OWNER, POOL_DB, SUPERUSER, Postgres
from appliance.runtime.supervisor import Supervisor, Unit
from appliance.runtime.valkey import Valkey

POSTGRES_GRACE_S = 60.0
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "TZ": "UTC"}


class Endpoints(msgspec.Struct, frozen=True):
    """Where everything is. The strings hold passwords: never log them."""

    control_owner_dsn: str
    control_dsn: str
    pool_owner_dsn: str
    pool_dsn: str
    superuser_dsn: str
    redis_url: str
    scanner: ScannerState
    files_redis_url: str = ""
    # Where the node of this folder listens; a command that is told no port goes there.
    port: int = 0


class Given(msgspec.Struct, frozen=True):
    """Services given by URL, clamd by its socket; an empty text means: start our own."""

    url: str = ""
    owner_url: str = ""
    control_url: str = ""
    control_owner_url: str = ""
    redis_url: str = ""
    scanner_socket: str = ""


class Services:
    """Starts what is not given, in order, under a supervisor that keeps it alive.

    `async with services:` starts and stops them. A start that fails stops what it had started
    and gives the data folder back. `signatures` is where the system keeps ClamAV's data; with
    `freshclam` the node fetches it by itself, into its own folder.
    """

    def __init__(
        self,
        data: Path,
        given: Given | None = None,
        *,
        durable: bool = True,
        signatures: Path = SIGNATURES,
        freshclam: bool = False,
        scans: bool = True,
    ) -> None:
        self.data = data.absolute()
        self.given = given or Given()
        self.account: Account = service_account()
        self._durable = durable
        self._signatures = signatures
        self._freshclam = freshclam
        self._scans = scans
        self._scanner = scanner_state(None)
        self.content = Content(
            self.data, self.account, helper_account(self.account, CONTENT_ACCOUNT)
        )
        self._keeper: asyncio.Task[None] | None = None
        self.supervisor = Supervisor(self.data, self.account)
        self.postgres: Postgres | None = None
        self.valkey: Valkey | None = None
        self.clamd: Clamd | None = None

    async def start(self) -> Endpoints:
        """Everything up and ready. Raises Misconfigured, Unavailable."""
        _check_given(self.given)
        open_data_folder(self.account, self.data)
        self.supervisor.lock()
        try:
            if not self.given.url:
                await self._start_postgres()
            if not self.given.redis_url:
                await self._start_valkey()
            await self._start_clamd()
        except BaseException:
            await self.stop()
            raise
        return self.endpoints()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _start_postgres(self) -> None:
        programs = locate_postgres(self.data, self.account)
        server = Postgres(programs, self.data, self.account, durable=self._durable)
        server.prepare()
        await self.supervisor.start(
            Unit(
                "postgres", server.argv(), self.account, server.wait_ready, server.environment(),
                stop_signal=signal.SIGINT, grace_s=POSTGRES_GRACE_S, clear=server.clear,
                # On SIGQUIT the server takes its children with it; SIGKILL would orphan them.
                death_signal=signal.SIGQUIT,
            )
        )  # fmt: skip
        await asyncio.to_thread(server.bootstrap)
        self.postgres = server

    async def _start_valkey(self) -> None:
        server = Valkey(
            locate_valkey(self.data, self.account), self.data, self.account,
            client=self.content.account,
        )  # fmt: skip
        server.prepare()
        await self.supervisor.start(
            Unit("valkey", server.argv(), self.account, server.wait_ready, _ENVIRONMENT)
        )
        self.valkey = server

    async def _start_clamd(self) -> None:
        if not self._scans:
            return
        if self.given.scanner_socket:
            self._scanner = given_scanner(self.given.scanner_socket)
            return
        program = locate_clamd(self.account)
        if program is None:
            return
        folders = [self._signatures]
        fetcher = locate_freshclam(self.account) if self._freshclam else None
        if fetcher is not None:
            ours = Freshclam(fetcher, self.data, self.account)
            ours.prepare()
            folders.insert(0, ours.database)
            await self.supervisor.start(ours.unit())
        server = Clamd(
            program, self.data, self.account, signatures=folders, client=self.content.account
        )
        server.prepare()
        self.clamd = server
        self._scanner = scanner_state(program, server.socket, signatures=folders)
        # In the background: copying and loading ClamAV's data takes longer than a start may.
        self._keeper = asyncio.create_task(server.run(self.supervisor), name="keep-signatures")

    def endpoints(self) -> Endpoints:
        """Ours and given ones in one form."""
        given, ours = self.given, self.postgres
        redis_url = self.valkey.url if self.valkey else given.redis_url
        if ours is not None:
            return Endpoints(
                control_owner_dsn=ours.dsn(OWNER, CONTROL_DB),
                control_dsn=ours.dsn(APP, CONTROL_DB),
                pool_owner_dsn=ours.dsn(OWNER, POOL_DB),
                pool_dsn=ours.dsn(APP, POOL_DB),
                superuser_dsn=ours.dsn(SUPERUSER, "postgres"),
                redis_url=redis_url,
                scanner=self._scanner,
                files_redis_url=self.valkey.files_url if self.valkey else given.redis_url,
            )
        return Endpoints(
            control_owner_dsn=given.control_owner_url
            or make_conninfo(given.owner_url, dbname=CONTROL_DB),
            control_dsn=given.control_url or make_conninfo(given.url, dbname=CONTROL_DB),
            pool_owner_dsn=given.owner_url,
            pool_dsn=given.url,
            superuser_dsn="",
            redis_url=redis_url,
            scanner=self._scanner,
            files_redis_url=self.valkey.files_url if self.valkey else given.redis_url,
        )

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
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        await self.supervisor.stop()
        if self.clamd is not None:
            self.clamd.remove_temporary()
        self.supervisor.unlock()


def _check_given(given: Given) -> None:
    if bool(given.url) != bool(given.owner_url):
        there, missing = ("url", "owner_url") if given.url else ("owner_url", "url")
        raise Misconfigured(
            f"database.{there} is set but database.{missing} is not: the node needs a role that "
            "owns the tables for migrations, and another one for its work."
        )
