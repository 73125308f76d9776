"""What this node is, while it runs: its processes are started anew when that changes.

API and worker read the origin they write under, and the node's key, when they start. They change
when the node joins a hub, when its key is rotated, when a restored database is given a new incarnation, when a hub begins a new epoch: `nexus up`
looks for that and restarts both, then notes which origin they write under (`running_origin`), so
that whoever changed it knows when the old one is out of use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import psycopg

from appliance.base import logs
from appliance.base.roles import Role
from appliance.base.settings import Settings

POLL_S = 1.0
_READ = "SELECT origin, prefix, role, joined_at IS NOT NULL, public_key FROM node WHERE is_self"
_RUNNING = "UPDATE node SET running_origin = %s WHERE is_self"


class Identity(msgspec.Struct, frozen=True):
    """The row of this node, as far as its processes hold it in memory."""

    origin: int
    prefix: str
    role: str
    has_joined: bool
    public_key: bytes | None = None


async def read_identity(dsn: str) -> Identity:
    """The row of this node in the control plane at `dsn`."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        return await _read(conn)


async def adopt_role(settings: Settings, dsn: str) -> Settings:
    """The settings with the role that a node has for good once it joined a hub."""
    found = await read_identity(dsn)
    return (
        msgspec.structs.replace(settings, role=Role(found.role)) if found.has_joined else settings
    )


async def follow_identity(
    dsn: str, running: Identity, restart: Callable[[], Awaitable[None]]
) -> None:
    """Restart the processes whenever the row says another than they were started with; endless.

    `dsn` is the owner's. A control plane that does not answer is asked again.
    """
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
                await conn.execute(_RUNNING, (running.origin,))
                found = await _other_than(conn, running)
        except psycopg.Error:
            await asyncio.sleep(POLL_S)
            continue
        logs.event("node.identity_changed", level="warning", origin=found.origin)
        await restart()
        running = found


async def _other_than(conn: psycopg.AsyncConnection[Any], running: Identity) -> Identity:
    while True:
        found = await _read(conn)
        if found != running:
            return found
        await asyncio.sleep(POLL_S)


async def _read(conn: psycopg.AsyncConnection[Any]) -> Identity:
    row = await (await conn.execute(_READ)).fetchone()
    return Identity(*row) if row else Identity(1, "", Role.SOLO.value, has_joined=False)
