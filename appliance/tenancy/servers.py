"""Connections of the owner role: what tenancy works with, one place for their settings.

Promises: the owner is bound by forced row-level security like everybody else, so each session
names its tenant inside its transaction; text forms are the same on every server, because the
settings that shape them are fixed here; no pool, since these are rare and long pieces of work.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import tuple_row

from appliance.base.errors import Clash, Misconfigured
from appliance.db.database import translated

Connection = psycopg.AsyncConnection[tuple[object, ...]]
Progress = Callable[[str, int], None]

_LOCK_TIMEOUT_MS = 10_000
_CONNECT_TIMEOUT_S = 10
# Processes close their pools to a database without routes when they see the new routes.
_LET_GO_S = 10.0
# What the text form of a value depends on; hashes are taken over that form.
_SESSION = (
    "SELECT set_config('client_encoding', 'UTF8', false), set_config('datestyle', 'ISO, YMD', false), "
    "set_config('intervalstyle', 'iso_8601', false), set_config('timezone', 'UTC', false), "
    "set_config('bytea_output', 'hex', false), set_config('extra_float_digits', '1', false), "
    "set_config('search_path', 'public', false), set_config('statement_timeout', '0', false), "
    "set_config('idle_in_transaction_session_timeout', '0', false), "
    "set_config('lock_timeout', %s, false)"
)


class Servers(msgspec.Struct, frozen=True, kw_only=True):
    """Where the owner role logs in. The strings hold passwords: never log them.

    `placement_dsn` reaches our own server (its database name is replaced by a placement's
    target); `placements` maps the targets that live elsewhere to owner strings of their own.
    `ensure_database` and `drop_database` take a name; without them the owner role itself
    creates and drops (it needs CREATEDB).
    """

    control_dsn: str
    placement_dsn: str
    placements: Mapping[str, str] = {}
    ensure_database: Callable[[str], None] | None = None
    drop_database: Callable[[str], None] | None = None

    def dsn(self, target: str) -> str:
        """The owner's way to a placement's database."""
        return self.placements.get(target) or make_conninfo(self.placement_dsn, dbname=target)


@contextlib.asynccontextmanager
async def connect(dsn: str) -> AsyncIterator[Connection]:
    """An autocommit connection with the settings of this room. Driver errors leave as ours."""
    with translated():
        conn = await psycopg.AsyncConnection.connect(
            make_conninfo(dsn, connect_timeout=_CONNECT_TIMEOUT_S),
            autocommit=True,
            row_factory=tuple_row,
        )
        try:
            await conn.execute(_SESSION, (str(_LOCK_TIMEOUT_MS),))
            yield conn
        finally:
            await conn.close()


@contextlib.asynccontextmanager
async def entered(conn: Connection, tenant: UUID, *, snapshot: bool = False) -> AsyncIterator[None]:
    """A transaction inside one tenant; with `snapshot` a read-only one that sees one moment."""
    mode = " ISOLATION LEVEL REPEATABLE READ READ ONLY" if snapshot else ""
    await conn.execute(f"BEGIN{mode}".encode())
    try:
        await conn.execute("SELECT set_config('nexus.tenant', %s, true)", (str(tenant),))
        yield
    except BaseException:
        if not conn.closed:
            with contextlib.suppress(psycopg.Error):
                await conn.execute("ROLLBACK")
        raise
    await conn.execute("COMMIT")


@contextlib.asynccontextmanager
async def locked(servers: Servers, tenant: UUID) -> AsyncIterator[Connection]:
    """A control connection that holds this tenant's maintenance lock. Clash when taken.

    The lock is the session's: it goes when the process dies, so nothing stays locked. Routing
    is switched on the same connection, so who lost the lock cannot switch.
    """
    async with connect(servers.control_dsn) as conn:
        if not await try_lock(conn, tenant):
            raise Clash(
                "Another command is moving, restoring or erasing this tenant; repeat when it is done.",
                code="tenant.busy",
            )
        yield conn


async def try_lock(conn: Connection, tenant: UUID) -> bool:
    """Take the maintenance lock if it is free; it is held until the connection closes."""
    digest = hashlib.sha256(b"nexus.tenant" + tenant.bytes).digest()
    key = int.from_bytes(digest[:8], "big", signed=True)
    row = await (await conn.execute("SELECT pg_try_advisory_lock(%s)", (key,))).fetchone()
    return bool(row and row[0])


async def ensure_database(servers: Servers, name: str) -> None:
    """A database of this name on our own server, made when it is missing."""
    if servers.ensure_database is not None:
        await asyncio.to_thread(servers.ensure_database, name)
        return
    async with connect(servers.control_dsn) as conn:
        found = await conn.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
        if await found.fetchone() is None:
            await conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


async def drop_database(servers: Servers, name: str) -> None:
    """Drop a database on our own server. Clash while somebody is connected to it."""
    if servers.drop_database is not None:
        await asyncio.to_thread(servers.drop_database, name)
        return
    async with connect(servers.control_dsn) as conn:
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        end = time.monotonic() + _LET_GO_S
        while True:
            try:
                await conn.execute(drop)
            except (psycopg.errors.ObjectInUse, psycopg.errors.InsufficientPrivilege):
                if time.monotonic() < end:
                    await asyncio.sleep(0.5)
                    continue
                raise Clash(
                    f"Database {name} is still in use by other connections; stop the node's "
                    "processes and repeat.",
                    code="placement.in_use",
                ) from None
            return


def check_same_server(servers: Servers, target: str) -> None:
    """Refuse to create or drop a database on a server that is not ours to manage."""
    if target in servers.placements:
        raise Misconfigured(
            f"Placement target {target!r} is given by URL in the settings: create and drop its "
            "database with that server's own tools."
        )
