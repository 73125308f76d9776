"""Which files' bytes are on this node, and who wants those that are not.

A file is a record on every node of its stream; its bytes are where somebody needs them
(appliance/sync/blobs.py brings them). The content plane is the truth of what is here: rows of
`file_copy` remember what was found out, what people wait for, and what was read last.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from appliance.base.errors import Clash, Refused
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.db.wire import Call, Statement
from appliance.files.rows import File
from appliance.kernel.context import Ctx
from quarantine.contract import Look

NOT_HERE = "file.not_here"
COMING = "It waits for its bytes, which come from the node that has them."
_MOST = 500
_HERE = Statement(
    "INSERT INTO file_copy (tenant_id, file_id, here_at) VALUES ($1, $2, now()) "
    "ON CONFLICT (tenant_id, file_id) DO UPDATE SET here_at = now(), dropped_at = NULL"
)
_READ = Statement(
    "INSERT INTO file_copy (tenant_id, file_id, here_at, read_at) VALUES ($1, $2, now(), now()) "
    "ON CONFLICT (tenant_id, file_id) DO UPDATE SET read_at = now(), asked_at = NULL"
)
_ASK = Statement(
    "INSERT INTO file_copy (tenant_id, file_id, asked_at) VALUES ($1, $2, now()) "
    "ON CONFLICT (tenant_id, file_id) DO UPDATE SET here_at = NULL, asked_at = now(), due = now()"
)
_LEFT = Statement(
    "SELECT c.file_id::text FROM file_copy c JOIN record r ON r.tenant_id = c.tenant_id "
    "AND r.id = c.file_id WHERE c.tenant_id = $1 AND c.here_at IS NOT NULL "
    "AND (r.t2 IN ('purged', 'expired') OR r.deleted_at < $2) ORDER BY c.file_id LIMIT $3"
)
_GONE = Statement("DELETE FROM file_copy WHERE tenant_id = $1 AND file_id = $2")


def here_call(tenant: UUID, file: UUID) -> Call:
    """Note that all bytes of a file are here."""
    return _HERE, (tenant, file)


def read_call(tenant: UUID, file: UUID) -> Call:
    """Note that a file was given out here just now."""
    return _READ, (tenant, file)


async def look_here(db: Database, ctx: Ctx, plane: ContentPlane, file: File) -> Look:
    """How the bytes of a file stand on this node; those that are not here are asked for.

    Raises Clash (`file.not_here`), Unavailable.
    """
    try:
        return await plane.look(ctx.tenant, file.id)
    except Refused:
        async with db.transaction(ctx.tenant) as tx:
            await tx.run((_ASK, (ctx.tenant, file.id)), commit=True)
        raise Clash(
            "The bytes of this file are not on this node yet; it is being fetched from the node "
            "that has it. Ask again in a while.",
            code=NOT_HERE,
        ) from None


async def purge_left(db: Database, ctx: Ctx, plane: ContentPlane, deleted_before: datetime) -> int:
    """Let bytes go whose file another node has ended; how many. Raises Unavailable."""
    (rows,) = await db.read(ctx.tenant, (_LEFT, (ctx.tenant, deleted_before, _MOST)))
    idents = [UUID((ident or b"").decode()) for ident in rows.column()]
    for ident in idents:
        await plane.purge(ctx.tenant, ident)
        async with db.transaction(ctx.tenant) as tx:
            await tx.run((_GONE, (ctx.tenant, ident)), commit=True)
    return len(idents)
