"""The fence: a row in a placement that stops writes of one tenant there, enforced by triggers.

Promises: once `await_writers` has returned, no transaction that passed the fence before it was
raised is still open, so a snapshot taken then holds everything that was ever acknowledged.
Whether a process knows the new route does not matter for that.
"""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from appliance.base.errors import Clash
from appliance.tenancy.servers import Connection, entered

LEAVING = "leaving"
ARRIVING = "arriving"
WRITERS_WAIT_S = 45.0
_POLL_S = 0.02

# A writer holds RowExclusiveLock on its table before it takes the snapshot it writes under.
_WRITERS = """
SELECT DISTINCT l.virtualtransaction FROM pg_locks l
JOIN pg_attribute a ON a.attrelid = l.relation AND a.attname = 'tenant_id'
WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def raise_fence(conn: Connection, tenant: UUID, reason: str) -> None:
    """Stop writes of the tenant here; part of the caller's transaction inside the tenant."""
    await conn.execute(
        "INSERT INTO tenant_fence (tenant_id, reason) VALUES (%s, %s) "
        "ON CONFLICT (tenant_id) DO UPDATE SET reason = EXCLUDED.reason, at = now()",
        (tenant, reason),
    )


async def lift_fence(conn: Connection, tenant: UUID) -> None:
    """Let writes pass again; its own transaction."""
    async with entered(conn, tenant):
        await conn.execute("DELETE FROM tenant_fence WHERE tenant_id = %s", (tenant,))


async def find_fence(conn: Connection, tenant: UUID) -> str | None:
    """Why writes of the tenant are stopped here, or None."""
    found = await conn.execute("SELECT reason FROM tenant_fence WHERE tenant_id = %s", (tenant,))
    row = await found.fetchone()
    return str(row[0]) if row else None


async def await_writers(conn: Connection, *, wait_s: float = WRITERS_WAIT_S) -> None:
    """Wait until every transaction that was writing has ended. Clash when one outlasts `wait_s`."""
    end = time.monotonic() + wait_s
    open_then = await _writers(conn)
    while open_then := open_then & await _writers(conn):
        if time.monotonic() > end:
            raise Clash(
                f"A transaction has been writing in this placement for over {wait_s:.0f} s; "
                "nothing was moved. Repeat when it is done.",
                code="tenant.busy",
            )
        await asyncio.sleep(_POLL_S)


async def _writers(conn: Connection) -> set[str]:
    rows = await (await conn.execute(_WRITERS)).fetchall()
    return {str(row[0]) for row in rows}
