"""A file that people could read is taken back: who had it is written down, once for each recall."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.files.rows import File, as_system, read_row
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.write import Command, Op, apply
from appliance.write.load import COLUMNS, read_state

_NOBODY = UUID(int=0)
# An incident names the node whose readers it lists; one without a name is this node's.
_BY = "coalesce(data->'evidence'->>'node', $4) = $4"
_READERS = Statement(
    "SELECT actor::text, max(at)::text, count(*) FILTER (WHERE action = 'file.downloaded') FROM audit "
    "WHERE tenant_id = $1 AND subject = $2 AND action IN ('file.ticket_issued', 'file.downloaded') "
    "AND actor IS NOT NULL GROUP BY actor ORDER BY actor"
)
_KNOWN = Statement(
    "SELECT 1 FROM record WHERE tenant_id = $1 AND kind = 'sys.incident' AND t5 = $2 "
    f"AND data->'evidence'->>'verdict_at' = $3 AND {_BY}"
)
# Held by another node's word, read here, and nobody has written down by whom: the audit of reads
# stays where they were.
_MISSED = Statement(
    f"SELECT {COLUMNS} FROM record r WHERE tenant_id = $1 AND kind = 'sys.file' "
    "AND t2 IN ('recalled', 'rejected') AND EXISTS (SELECT FROM file_copy c "
    "WHERE c.tenant_id = $1 AND c.file_id = r.id AND c.read_at IS NOT NULL) "
    "AND NOT EXISTS (SELECT FROM record i WHERE i.tenant_id = $1 AND i.kind = 'sys.incident' "
    f"AND i.t5 = r.id::text AND {_BY.replace('$4', '$2')}) ORDER BY id LIMIT 100"
)


async def open_incident(
    db: Database, ctx: Ctx, file: File, at: datetime, findings: list[Json], *, by: str = ""
) -> None:
    """Write down who was given a ticket and who was sent bytes; `at` tells recalls apart.

    `by` is the reviewer who recalled it, where it was a person.
    """
    opened = at.isoformat()
    rows, known = await db.read(
        ctx.tenant,
        (_READERS, (ctx.tenant, str(file.id))),
        (_KNOWN, (ctx.tenant, str(file.id), opened, str(ctx.origin))),
    )
    if len(known):
        return
    readers: list[Json] = [
        {"person": _text(who), "last": _text(last), "downloads": int(count or 0)}
        for who, last, count in rows
    ]
    evidence: dict[str, Json] = {
        "file": str(file.id), "sha256": file.sha256, "findings": findings, "readers": readers,
        "verdict_at": opened, "recalled_by": by or None, "node": ctx.origin,
    }  # fmt: skip
    fields: dict[str, Json] = {
        "title": f"A file that was released is recalled; {len(readers)} had access to it.",
        "sort": "file.recalled", "severity": "high", "state": "open", "subject": str(file.id),
        "evidence": evidence, "opened_at": opened,
    }  # fmt: skip
    command = Command(op=Op.CREATE, kind="sys.incident", fields=fields, unit=file.unit, owner=None)
    system = msgspec.structs.replace(as_system(ctx), actor=_NOBODY)
    result = await apply(db, system, [command])
    if not result.committed:
        logs.event("files.incident_refused", level="error", tenant=ctx.tenant)


async def open_missed(db: Database, ctx: Ctx) -> int:
    """Write down the readers here of files that another node has recalled; how many incidents."""
    (rows,) = await db.read(ctx.tenant, (_MISSED, (ctx.tenant, str(ctx.origin))))
    for file in (read_row(read_state(row)) for row in rows):
        at = datetime.fromisoformat(file.judged_at) if file.judged_at else file.created_at
        found = file.verdict.get("findings")
        await open_incident(db, ctx, file, at, found if isinstance(found, list) else [])
    return len(rows)


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
