"""Which tables a tenant consists of: read from the catalogue, so a new one cannot be forgotten.

Promises: every ordinary table of the placement schema with a `tenant_id` column is copied,
except those named in NOT_COPIED with the reason; the order is fixed; rows are read in the order
of their primary key under the C collation, so that equal rows give equal bytes on any server.
"""

from __future__ import annotations

import msgspec
from psycopg import sql

from appliance.base.errors import Misconfigured
from appliance.tenancy.servers import Connection

NOT_COPIED = {
    "tenant_fence": "says that this very placement does not take writes of the tenant",
}

_CATALOGUE = """
SELECT c.relname,
  (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
  (SELECT array_agg(a.attname::text ORDER BY k.place)
    FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
    JOIN pg_attribute a ON a.attnum = k.attnum
    WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid),
  (SELECT coalesce(array_agg(a.attname::text), '{}') FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attcollation <> 0),
  (SELECT coalesce(array_agg(a.attname::text), '{}') FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attidentity <> '')
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id'
    AND NOT a.attisdropped)
ORDER BY c.relname <> 'tenant_state', c.relname COLLATE "C"
"""
_REVISION = "SELECT version_num FROM public.alembic_version"


class Table(msgspec.Struct, frozen=True):
    """One table: columns in their order, key columns, those with a collation, with an identity."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    collated: tuple[str, ...]
    identities: tuple[str, ...]

    @property
    def identifier(self) -> sql.Composable:
        """The qualified, quoted name."""
        return sql.Identifier("public", self.name)

    @property
    def column_list(self) -> sql.Composable:
        """The quoted columns, comma-separated."""
        return sql.SQL(", ").join(map(sql.Identifier, self.columns))

    @property
    def order(self) -> sql.Composable:
        """The primary key for ORDER BY."""
        return sql.SQL(", ").join(
            sql.SQL("{} COLLATE {}").format(sql.Identifier(k), sql.Identifier("C"))
            if k in self.collated
            else sql.Identifier(k)
            for k in self.key
        )


async def load_tables(conn: Connection) -> tuple[Table, ...]:
    """Every copied table of a placement. Raises Misconfigured for a table without a key."""
    rows = await (await conn.execute(_CATALOGUE)).fetchall()
    tables = msgspec.convert(
        [dict(zip(Table.__struct_fields__, row, strict=True)) for row in rows if row[2]],
        tuple[Table, ...],
    )
    if not rows or len(tables) != len(rows):
        raise Misconfigured(
            "This database is not a placement of this program (no tables of tenants, or one "
            "without a primary key); run the migrations first."
        )
    return tuple(t for t in tables if t.name not in NOT_COPIED)


async def load_revision(conn: Connection) -> str:
    """The schema revision of a placement."""
    row = await (await conn.execute(_REVISION)).fetchone()
    return str(row[0]) if row else ""
