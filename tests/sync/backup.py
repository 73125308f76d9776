"""A tenant's rows of one database as they were at a moment, to be put back there: a backup."""

import contextlib
import io

import psycopg

from appliance.sync.nodes import run_control
from appliance.sync.outgoing import forget_pages

_TABLES = (
    "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
    "WHERE c.relkind = 'r' AND a.attname = 'tenant_id' AND c.relnamespace = 'public'::regnamespace "
    "ORDER BY 1"
)


def keep(dsns, tenant):
    """Take a backup."""
    kept = {}
    with psycopg.connect(dsns.superuser) as conn:
        for (table,) in conn.execute(_TABLES).fetchall():
            out = io.BytesIO()
            rows = f"COPY (SELECT * FROM {table} WHERE tenant_id = '{tenant}') TO STDOUT"
            with conn.cursor().copy(rows) as copy:
                for piece in copy:
                    out.write(piece)
            kept[table] = out.getvalue()
    return kept


def put_back(dsns, tenant, kept, db):
    """Put it back: what was written since is gone."""
    with psycopg.connect(dsns.superuser) as conn:
        conn.execute("SET session_replication_role = replica")
        for table, rows in kept.items():
            conn.execute(f"DELETE FROM {table} WHERE tenant_id = %s", (tenant,))
            with conn.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                copy.write(rows)
    forget_pages(db)


@contextlib.asynccontextmanager
async def hub_stays(db):
    """Whatever epoch and origin the hub takes in the block, it has its own again afterwards."""
    epoch = await run_control(db, "SELECT id, number, began_at FROM hub_epoch")
    me = await run_control(db, "SELECT id, origin, former_origins, incarnation FROM node "
                               "WHERE is_self")  # fmt: skip
    try:
        yield
    finally:
        await run_control(db, "UPDATE hub_epoch SET id = %s, number = %s, began_at = %s", *epoch[0])
        await run_control(
            db, "UPDATE node SET origin = %s, former_origins = %s, incarnation = %s WHERE id = %s",
            *me[0][1:], me[0][0],
        )  # fmt: skip
