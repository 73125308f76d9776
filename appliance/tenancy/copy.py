"""The one way a tenant leaves a placement or an archive and enters a placement.

Promises: rows come out under one snapshot and as one stream of parts; going in, every table is
counted and hashed twice, as it arrives and as it is read back from the table, inside the one
transaction that the caller commits. Forced row-level security stays on all the way: COPY out of
a query obeys it; COPY into a table is not allowed under it, therefore rows go into a temporary
table and from there by INSERT, where the policy refuses rows of any other tenant.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql

from appliance.base.errors import Clash, Invalid
from appliance.tenancy.servers import Connection, Progress
from appliance.tenancy.tables import Table, load_tables

CHUNK_BYTES = 256 * 1024
_PROGRESS_ROWS = 10_000


class TableStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of this table follow, with these columns."""

    name: str
    columns: tuple[str, ...]


class TableEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was sent for a table: `sha256` is hexadecimal, over PostgreSQL's COPY text of all rows."""

    name: str
    rows: int
    sha256: str


Part = TableStart | bytes | TableEnd


async def read_tenant(
    conn: Connection, tenant: UUID, progress: Progress | None = None
) -> AsyncGenerator[Part, None]:
    """A tenant whole, table by table. The caller has opened a snapshot inside the tenant."""
    for table in await load_tables(conn):
        yield TableStart(table.name, table.columns)
        digest, rows, told = hashlib.sha256(), 0, 0
        async with aclosing(read_table(conn, table, tenant)) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
                rows += chunk.count(b"\n")
                yield chunk
                if progress and rows - told >= _PROGRESS_ROWS:
                    told = rows
                    progress(table.name, rows)
        if progress:
            progress(table.name, rows)
        yield TableEnd(table.name, rows, digest.hexdigest())


async def read_table(conn: Connection, table: Table, tenant: UUID) -> AsyncGenerator[bytes, None]:
    """COPY text of one table's rows in key order, in chunks of whole rows."""
    # The tenant is in the query as well: two walls, and the owner may see more of some tables.
    query = sql.SQL("COPY (SELECT {} FROM {} WHERE tenant_id = {} ORDER BY {}) TO STDOUT").format(
        table.column_list, table.identifier, sql.Literal(str(tenant)), table.order
    )
    buffer = bytearray()
    async with conn.cursor() as cursor, cursor.copy(query) as copy:
        while row := await copy.read():
            buffer += row
            if len(buffer) >= CHUNK_BYTES:
                yield bytes(buffer)
                buffer.clear()
    if buffer:
        yield bytes(buffer)


async def write_tenant(
    conn: Connection, tenant: UUID, parts: AsyncIterator[Part], progress: Progress | None = None
) -> dict[str, TableEnd]:
    """Load and verify; the caller has begun a transaction inside the tenant and commits it.

    Raises Invalid naming the table and what was expected; Clash when a row is here already.
    """
    known = {table.name: table for table in await load_tables(conn)}
    loaded: dict[str, TableEnd] = {}
    async for part in parts:
        if not isinstance(part, TableStart) or part.name in loaded:
            raise Invalid("The stream of tables is out of step.", code="archive.broken")
        table = known.get(part.name)
        if table is None or table.columns != part.columns:
            expected = "no such table" if table is None else ", ".join(table.columns)
            raise Invalid(
                f"Table {part.name} has other columns than here; expected {expected}. Use the "
                "program version that wrote it.",
                code="archive.columns",
            )
        loaded[table.name] = await _write_table(conn, table, tenant, parts)
        if progress:
            progress(table.name, loaded[table.name].rows)
    if missing := sorted(set(known) - set(loaded)):
        raise Invalid(
            f"Table {missing[0]} is missing; expected {len(known)} tables, found {len(loaded)}.",
            code="archive.incomplete",
        )
    await _advance_sequences(conn, known.values(), tenant)
    return loaded


async def _write_table(
    conn: Connection, table: Table, tenant: UUID, parts: AsyncIterator[Part]
) -> TableEnd:
    staging = sql.Identifier(f"staging_{table.name}")
    await conn.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {}) ON COMMIT DROP").format(
            staging, table.identifier
        )
    )
    into = sql.SQL("COPY pg_temp.{} ({}) FROM STDIN").format(staging, table.column_list)
    move = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM pg_temp.{}").format(
        table.identifier, table.column_list, table.column_list, staging
    )
    digest, rows, said = hashlib.sha256(), 0, None
    try:
        async with conn.cursor() as cursor, cursor.copy(into) as copy:
            async for part in parts:
                if not isinstance(part, bytes):
                    said = part
                    break
                digest.update(part)
                rows += part.count(b"\n")
                await copy.write(part)
        found = TableEnd(table.name, rows, digest.hexdigest())
        compare(said, found, "arrived")
        await conn.execute(move)
    except psycopg.errors.UniqueViolation:
        raise Clash(
            f"Table {table.name} already holds rows of this tenant here; nothing was written.",
            code="tenant.exists",
        ) from None
    except psycopg.errors.InsufficientPrivilege:
        raise Invalid(
            f"Table {table.name} holds rows of another tenant; expected only rows of {tenant}. "
            "Nothing was written.",
            code="archive.foreign_rows",
        ) from None
    except (psycopg.DataError, psycopg.IntegrityError):
        raise Invalid(
            f"Table {table.name} holds a row that its columns do not accept; nothing was written.",
            code="archive.rows",
        ) from None
    await conn.execute(sql.SQL("DROP TABLE pg_temp.{}").format(staging))
    stored = await digest_table(conn, table, tenant)
    compare(found, stored, "were stored")
    return stored


async def digest_table(conn: Connection, table: Table, tenant: UUID) -> TableEnd:
    """Count and hash of what a table holds of a tenant now."""
    digest, rows = hashlib.sha256(), 0
    async for chunk in read_table(conn, table, tenant):
        digest.update(chunk)
        rows += chunk.count(b"\n")
    return TableEnd(table.name, rows, digest.hexdigest())


def compare(expected: Part | None, found: TableEnd, verb: str) -> None:
    """Raise Invalid when what was found is not what was said."""
    if not isinstance(expected, TableEnd):
        raise Invalid(
            f"Table {found.name} breaks off after {found.rows} rows; expected its end mark with "
            "count and hash. Nothing was written.",
            code="archive.truncated",
        )
    if expected != found:
        raise Invalid(
            f"Table {found.name}: expected {expected.rows} rows with SHA-256 {expected.sha256}; "
            f"{found.rows} rows with {found.sha256} {verb}. Nothing was written.",
            code="archive.mismatch",
        )


async def _advance_sequences(conn: Connection, tables: Iterable[Table], tenant: UUID) -> None:
    """Identity counters move past the loaded rows, never back, and not under a concurrent user."""
    for table in tables:
        for column in table.identities:
            found = await conn.execute(
                "SELECT pg_get_serial_sequence(%s, %s)", (f"public.{table.name}", column)
            )
            row = await found.fetchone()
            name = sql.Identifier(*str(row[0] if row else "").split("."))
            # A change that changes nothing, for its lock: nextval of others waits for our commit.
            await conn.execute(sql.SQL("ALTER SEQUENCE {} NO CYCLE").format(name))
            await conn.execute(
                sql.SQL(
                    "SELECT setval({}, m.high) FROM (SELECT max({}) AS high FROM {} WHERE "
                    "tenant_id = {}) AS m, {} AS s WHERE m.high > s.last_value"
                ).format(
                    sql.Literal(str(row[0] if row else "")),
                    sql.Identifier(column),
                    table.identifier,
                    sql.Literal(str(tenant)),
                    name,
                )
            )


async def delete_tenant(conn: Connection, tenant: UUID) -> int:
    """Delete every copied row of a tenant; the caller's transaction commits it. Rows deleted."""
    count = 0
    for table in await load_tables(conn):
        done = await conn.execute(
            sql.SQL("DELETE FROM {} WHERE tenant_id = %s").format(table.identifier), (tenant,)
        )
        count += done.rowcount
    return count


async def holds_tenant(conn: Connection, tenant: UUID) -> bool:
    """Whether the placement has this tenant's state row; inside the tenant."""
    found = await conn.execute("SELECT FROM public.tenant_state WHERE tenant_id = %s", (tenant,))
    return await found.fetchone() is not None
