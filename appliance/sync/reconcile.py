"""At the hub: withdrawals that follow from what a node holds and what it had, whoever changed it.

A scope changes by `change_scope`, but what it reaches changes with the tree of units as well: a
unit that is moved from below a site's own has to leave that site, with what was made there before
it heard. What a node had is what it has pulled (`peer_stream`).
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.db.database import Connection, Database
from appliance.db.wire import Statement
from appliance.sync.scope import reach_of, read_scope

_HAD = Statement(
    "SELECT DISTINCT stream::text FROM peer_stream WHERE tenant_id = $1 AND peer = ANY($2::bigint[])"
)
# Granted: what was proved gone is history, what was to go stays; but for what comes again, which
# has to go first.
_GRANTED = (
    "DELETE FROM stream_withdrawal WHERE node_id = %s AND tenant_id = %s AND stream = ANY(%s) "
    "AND (purged_at IS NOT NULL OR NOT is_again)"
)
_MISSING = (
    "INSERT INTO stream_withdrawal (node_id, tenant_id, stream, name, epoch) "
    "VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
)


async def reconcile(db: Database, conn: Connection, node: UUID, tenant: UUID) -> None:
    """Write down withdrawals that nobody has, strike out those that do not hold any more.

    `conn` is one to the control database, outside of a transaction. May be repeated.
    """
    scope = await read_scope(conn, node, tenant)
    if scope is None:
        return
    row = await (
        await conn.execute("SELECT origin, former_origins FROM node WHERE id = %s", (node,))
    ).fetchone()
    origin, former = msgspec.convert(row, tuple[int, list[int]])
    names, below = await reach_of(db, tenant, scope.units)
    granted = below if scope.state == "active" else frozenset()
    (rows,) = await db.read(tenant, (_HAD, (tenant, [origin, *former])))
    had = {UUID((stream or b"").decode()) for stream in rows.column()}
    await conn.execute(_GRANTED, (node, tenant, sorted(granted)))
    count = 0
    for stream in sorted((had & names.keys()) - granted):
        done = await conn.execute(_MISSING, (node, tenant, stream, names[stream], scope.epoch))
        count += done.rowcount
    if count:
        logs.event("sync.streams_withdrawn", tenant=tenant, node=node, count=count)
