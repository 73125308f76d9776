"""Leave no byte of deleted rows in the database's own files.

A deleted row stays in its table's file, in the planner's statistics and in the write-ahead log.
Tables are written anew (VACUUM FULL, with all their indexes), what the planner remembers of their
columns is forgotten and counted again, and the log is switched until no segment is left that is
older than this. Blocks that the file system has freed are beyond a database's reach: a disk that
may be stolen is encrypted (docs/branches-scope.md).

Promises: harmless at any time and when repeated; only slower for the requests that wait for a
table meanwhile. What rights the server does not give (one given by URL) is said, not skipped over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege, UndefinedFunction

from appliance.base import logs
from appliance.db.database import Connection, Database

SWITCHES_MAX = 200
_WAIT_S = 0.05
_LOCK_WAIT = "30s"
# Not those of sign-in alone: whoever no longer belongs here leaves with a purge as well.
TABLES = (
    "record", "entry", "turnover", "change", "record_link", "unique_claim", "pending_ref", "early",
    "conflict", "parked", "stream", "stream_vector", "peer_stream", "clock_cut", "outbox",
    "command", "job", "intake_run", "intake_row", "intake_work", "intake_frame", "intake_source", "intake_lost", "session", "credential", "one_time_code",
    "known_person",
)  # fmt: skip
_OURS = (
    "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace "
    "AND c.relkind = 'r' AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid "
    "AND a.attname = 'tenant_id' AND NOT a.attisdropped) ORDER BY 1"
)
# An empty table keeps what was counted when it was not.
_FORGET = (
    "SELECT pg_clear_attribute_stats('public', c.relname::text, a.attname::text, false) "
    "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
    "WHERE c.relnamespace = 'public'::regnamespace AND c.relname = %s AND a.attnum > 0 "
    "AND NOT a.attisdropped"
)


async def scrub(db: Database, tenant: UUID, *, whole: bool = False) -> bool:
    """Write anew what rows of a tenant have left; `whole`: all tables of its placement.

    False when the server lets the application do only a part of it. Raises Unavailable, Clash.
    """
    target = db.routes.of(tenant, read=True).target
    async with db.wire(target) as wire:
        conn = wire.connection
        await _set(conn, "0", _LOCK_WAIT)
        try:
            await _rewrite(conn, await _all(conn) if whole else TABLES)
            is_done = await _forget(conn, await _all(conn) if whole else TABLES)
            return await _renew_log(conn) and is_done
        finally:
            if not conn.closed:
                await _reset(conn)


async def _rewrite(conn: Connection, tables: Sequence[str]) -> None:
    for table in tables:
        await conn.execute(sql.SQL("VACUUM (FULL) {}").format(sql.Identifier("public", table)))


async def _forget(conn: Connection, tables: Sequence[str]) -> bool:
    """Common values and histograms are copies of what stood in the columns."""
    is_done = True
    for table in tables:
        try:
            await conn.execute(_FORGET, (table,))
        except (InsufficientPrivilege, UndefinedFunction) as error:
            is_done = is_done and _is_refused("statistics", error)
        # Of a table that is empty now this counts nothing, of any other it replaces what was there.
        await conn.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("public", table)))
    try:
        await conn.execute("VACUUM (FULL) pg_catalog.pg_statistic")
    except InsufficientPrivilege as error:
        return _is_refused("statistics", error)
    return is_done


async def _renew_log(conn: Connection) -> bool:
    """Switch segments and make checkpoints until all that were there before are gone: those behind,
    and those ahead that the server has laid by for use again, old bytes and all.
    """
    try:
        first = await _place(conn)
        old = await _segments(conn)
        for _ in range(SWITCHES_MAX):
            await conn.execute("SELECT pg_logical_emit_message(true, 'nexus', '', true)")
            await conn.execute("SELECT pg_switch_wal()")
            at = await _place(conn)
            ahead = {s for s in old if s > at}
            if ahead:
                continue
            await conn.execute("CHECKPOINT")
            if not {s for s in await _segments(conn) if s <= first or s in old}:
                return True
            # The summarizer has to have read a segment before it may go.
            await asyncio.sleep(_WAIT_S)
    except InsufficientPrivilege as error:
        return _is_refused("wal", error)
    logs.event("sync.scrub_incomplete", level="warning", reason="wal_kept")
    return False


async def _segments(conn: Connection) -> set[str]:
    cursor = await conn.execute(
        "SELECT substr(name, 9) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'"
    )
    return {msgspec.convert(row, tuple[str])[0] for row in await cursor.fetchall()}


async def _all(conn: Connection) -> list[str]:
    rows = await (await conn.execute(_OURS)).fetchall()
    return [msgspec.convert(row, tuple[str])[0] for row in rows]


async def _place(conn: Connection) -> str:
    """The segment that is written now."""
    row = await (
        await conn.execute("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 9)")
    ).fetchone()
    return msgspec.convert(row, tuple[str])[0]


async def _set(conn: Connection, statement: str, lock: str) -> None:
    await conn.execute(
        "SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false)",
        (statement, lock),
    )


async def _reset(conn: Connection) -> None:
    await conn.execute("RESET statement_timeout")
    await conn.execute("RESET lock_timeout")


def _is_refused(what: str, error: psycopg.Error) -> bool:
    logs.event(
        "sync.scrub_incomplete", level="warning", reason=what, error_type=type(error).__name__
    )
    return False
