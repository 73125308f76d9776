"""Hand the records of one person to another: the record part of offboarding, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx
from appliance.write.command import Command, Op
from appliance.write.outcome import Applied
from appliance.write.pipeline import apply

_COUNT = Statement(
    "SELECT kind, count(*) FROM record WHERE tenant_id = $1 AND owner_id = $2 "
    "AND deleted_at IS NULL AND kind = ANY($3::text[]) GROUP BY kind ORDER BY kind"
)
_NEXT = Statement(
    "SELECT id::text FROM record WHERE tenant_id = $1 AND owner_id = $2 AND kind = $3 "
    "AND deleted_at IS NULL AND id > $4 ORDER BY id LIMIT $5"
)
_FIRST = UUID(int=0)


async def owned(db: Database, ctx: Ctx, owner: UUID) -> dict[str, int]:
    """How many live records of each kind a person owns: the preview."""
    kinds = sorted(ctx.schema.kinds)
    (rows,) = await db.read(ctx.tenant, (_COUNT, (ctx.tenant, owner, kinds)))
    return {(k or b"").decode(): int(n or 0) for k, n in rows}


async def reassign(
    db: Database,
    ctx: Ctx,
    *,
    from_owner: UUID,
    to_owner: UUID,
    kinds: Sequence[str] | None = None,
) -> dict[str, int]:
    """Change the owner everywhere; records moved by kind. Resumable: what is moved is moved."""
    moved: dict[str, int] = {}
    for kind in kinds or sorted(await owned(db, ctx, from_owner)):
        last = _FIRST
        while True:
            batch = min(limits.BATCH_COMMANDS_MAX, 1_000)
            (rows,) = await db.read(
                ctx.tenant, (_NEXT, (ctx.tenant, from_owner, kind, last, batch))
            )
            ids = [UUID((i or b"").decode()) for i in rows.column()]
            if not ids:
                break
            last = ids[-1]
            commands = [Command(op=Op.UPDATE, kind=kind, id=i, owner=to_owner) for i in ids]
            # Each batch is a change set of its own, so that one can be undone.
            step = msgspec.structs.replace(ctx, request_id=uuid7())
            result = await apply(db, step, commands, atomic=False)
            done = sum(isinstance(o, Applied) for o in result.outcomes)
            moved[kind] = moved.get(kind, 0) + done
    return moved
