"""What is kept no longer: uploads that never ended, rejected bytes, deleted files.

The bytes go, with their key first; name, hash and verdict stay as the record of what was.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from uuid import UUID

from appliance.base.clock import now
from appliance.base.errors import Clash, Locked, Refused
from appliance.content import LOST, ContentPlane
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.files.copies import purge_left
from appliance.files.incidents import open_missed
from appliance.files.parts import SILENT
from appliance.files.rows import move, read_row
from appliance.files.states import FileState
from appliance.files.upload import job_of
from appliance.kernel.context import Ctx
from appliance.write.load import COLUMNS, read_state
from quarantine.contract import UPLOAD_S

UPLOAD_HOURS = 24
REJECTED_DAYS = 7
DELETED_DAYS = 30
MISSED_MINUTES = 30
_MOST = 500
# Whether an upload goes on is known to the node that takes it, and to no other.
_MADE_HERE = "split_part(stamps, '.', 1) = $4"
# What comes in parts has said its size, and lasts as long as parts come: the plane knows.
_IN_PARTS = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND kind = 'sys.file' "
    "AND t2 = 'receiving' AND n1 IS NOT NULL AND created_at < $2 AND deleted_at IS NULL "
    f"AND {_MADE_HERE} ORDER BY id LIMIT $3"
)
_DUE = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND kind = 'sys.file' AND ("
    f"(t2 = 'receiving' AND n1 IS NULL AND created_at < $2 AND {_MADE_HERE}) OR "
    "(t2 IN ('rejected', 'expired') AND updated_at < $5) OR "
    "(t2 = 'recalled' AND updated_at < $6)) AND deleted_at IS NULL ORDER BY id LIMIT $3"
)
# A week in which the chore comes by many times; to purge again what is purged changes nothing.
_GONE = Statement(
    "SELECT id::text FROM record WHERE tenant_id = $1 AND kind = 'sys.file' AND deleted_at < $2 "
    "AND deleted_at > $2 - interval '7 days' ORDER BY id"
)
_WAITING = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND kind = 'sys.file' "
    "AND t2 IN ('receiving', 'held') AND updated_at < $2 AND deleted_at IS NULL ORDER BY id LIMIT $3"
)


async def ask_for_missed(
    db: Database, ctx: Ctx, plane: ContentPlane, *, at: datetime | None = None
) -> int:
    """Have files judged again that the plane has judged and the node still holds: a word of it was
    lost, with a folder that came back from a backup or a notice that could not be taken. How many.
    Raises Unavailable.
    """
    before = (at or now()) - timedelta(minutes=MISSED_MINUTES)
    (rows,) = await db.read(ctx.tenant, (_WAITING, (ctx.tenant, before, _MOST)))
    count = 0
    for file in (read_row(read_state(row)) for row in rows):
        try:
            look = await plane.look(ctx.tenant, file.id)
        except Refused:
            continue
        if look.verdict is not None:
            await plane.scan(job_of(file, ctx.tenant, priority=0))
            count += 1
    return count


async def purge_due(
    db: Database, ctx: Ctx, plane: ContentPlane, *, at: datetime | None = None
) -> int:
    """One round in one tenant; how many. Raises Unavailable; doing it again changes nothing."""
    moment = at or now()
    kept = moment - timedelta(days=DELETED_DAYS)
    begun, rejected = moment - timedelta(hours=UPLOAD_HOURS), moment - timedelta(days=REJECTED_DAYS)
    due = (_DUE, (ctx.tenant, begun, _MOST, str(ctx.origin), rejected, kept))
    rows, gone = await db.read(ctx.tenant, due, (_GONE, (ctx.tenant, kept)))
    for ident in gone.column():
        await plane.purge(ctx.tenant, UUID((ident or b"").decode()))
    await purge_left(db, ctx, plane, kept)
    await open_missed(db, ctx)
    count = await _expire_silent(db, ctx, plane, moment - timedelta(seconds=UPLOAD_S))
    for file in (read_row(read_state(row)) for row in rows):
        to = FileState.EXPIRED if file.state is FileState.RECEIVING else FileState.PURGED
        if to is FileState.PURGED:
            await plane.purge(ctx.tenant, file.id)
        try:
            await move(
                db, ctx, file, to, f"file.{to}", {"reason": file.reason or "It was not kept."}
            )
        except Clash:
            continue
        count += 1
    return count


async def _expire_silent(db: Database, ctx: Ctx, plane: ContentPlane, before: datetime) -> int:
    """Expire the uploads in parts that the plane has given up; how many. Raises Unavailable."""
    (rows,) = await db.read(ctx.tenant, (_IN_PARTS, (ctx.tenant, before, _MOST, str(ctx.origin))))
    count = 0
    for file in (read_row(read_state(row)) for row in rows):
        try:
            await plane.progress(job_of(file, ctx.tenant, priority=0))
        except Locked:
            continue
        except Refused as refused:
            if refused.code != LOST:
                continue
            with contextlib.suppress(Clash):
                await move(db, ctx, file, FileState.EXPIRED, "file.expired", {"reason": SILENT})
                count += 1
    return count
