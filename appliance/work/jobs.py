"""Jobs as people see them: queue one, list, look, cancel; dead letters and their replay.

The outbox row is the work, the `job` row is what is shown of it; both are written in one
statement, so a job that is shown exists and one that exists is shown. This file imports no
broker: any room above the database may be handed these functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.base.errors import Clash, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Call, Statement

_COLUMNS = (
    "id, job_kind, state, progress, total, detail, cancel_asked, created_by, "
    "to_char(created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF'), "
    "to_char(updated_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF'), outbox_id"
)
_ENQUEUE = Statement(
    "WITH queued AS (INSERT INTO outbox (tenant_id, topic, payload) "
    "VALUES ($1, 'job.' || $3, $4::jsonb) RETURNING id) "
    "INSERT INTO job (tenant_id, id, outbox_id, job_kind, created_by) "
    "SELECT $1, $2, id, $3::text, $5 FROM queued",
    leaves=True,
)
_LIST = Statement(
    f"SELECT {_COLUMNS} FROM job WHERE tenant_id = $1 AND ($2::text IS NULL OR state = $2) "
    "AND ($3::uuid IS NULL OR (created_at, id) < (SELECT created_at, id FROM job "
    "WHERE tenant_id = $1 AND id = $3)) ORDER BY created_at DESC, id DESC LIMIT $4"
)
_GET = Statement(f"SELECT {_COLUMNS} FROM job WHERE tenant_id = $1 AND id = $2")
_LOCK = Statement("SELECT state, outbox_id FROM job WHERE tenant_id = $1 AND id = $2 FOR UPDATE")
_ASK = Statement(
    "UPDATE job SET cancel_asked = true, updated_at = now() WHERE tenant_id = $1 AND id = $2"
)
_CANCEL = Statement(
    "UPDATE job SET state = 'cancelled', outbox_id = NULL, runner = NULL, lease_until = NULL, "
    "cancel_asked = true, updated_at = now() WHERE tenant_id = $1 AND id = $2"
)
_DROP = Statement("DELETE FROM outbox WHERE tenant_id = $1 AND id = $2::bigint")
_DEAD = Statement(
    "SELECT id, topic, dead_reason, attempts, "
    "to_char(created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF') FROM outbox "
    "WHERE tenant_id = $1 AND dead_reason IS NOT NULL ORDER BY id LIMIT $2"
)
_REPLAY = Statement(
    "UPDATE outbox SET dead_reason = NULL, attempts = 0, sent_at = NULL, due_at = now() "
    "WHERE tenant_id = $1 AND id = $2 AND dead_reason IS NOT NULL",
    leaves=True,
)
_REQUEUE = Statement(
    "UPDATE job SET state = 'queued', detail = '', cancel_asked = false, updated_at = now() "
    "WHERE tenant_id = $1 AND outbox_id = $2"
)
_ENDED = frozenset({"done", "cancelled"})


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job; `total` is None while it is not known, `outbox_id` None when it has ended."""

    id: UUID
    job_kind: str
    state: str
    progress: int
    total: int | None
    detail: str
    cancel_asked: bool
    created_by: UUID | None
    created_at: datetime
    updated_at: datetime
    outbox_id: int | None


class JobPage(msgspec.Struct, frozen=True):
    """Newest first; `next` goes into `before` of the next call."""

    jobs: tuple[Job, ...]
    next: UUID | None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An outbox row that is not tried any more, and why."""

    outbox_id: int
    topic: str
    reason: str
    attempts: int
    created_at: datetime


def enqueue_call(
    tenant: UUID, kind: str, payload: Mapping[str, object], *, by: UUID | None = None
) -> tuple[UUID, Call]:
    """The job's id and the call that queues it; run the call in the transaction that needs it."""
    ident = uuid7()
    return ident, (_ENQUEUE, (tenant, ident, kind, msgspec.json.encode(payload).decode(), by))


async def enqueue(
    db: Database,
    tenant: UUID,
    kind: str,
    payload: Mapping[str, object],
    *,
    by: UUID | None = None,
) -> UUID:
    """Queue a job in a transaction of its own; its id."""
    ident, call = enqueue_call(tenant, kind, payload, by=by)
    async with db.transaction(tenant) as tx:
        await tx.run(call, commit=True)
    return ident


async def list_jobs(
    db: Database,
    tenant: UUID,
    *,
    state: str | None = None,
    limit: int = 50,
    before: UUID | None = None,
) -> JobPage:
    """A page of jobs, newest first."""
    (rows,) = await db.read(tenant, (_LIST, (tenant, state, before, min(limit, 200))))
    found = tuple(_job(row) for row in rows)
    return JobPage(found, found[-1].id if len(found) == min(limit, 200) else None)


async def get_job(db: Database, tenant: UUID, ident: UUID) -> Job:
    """One job. Raises Refused."""
    (rows,) = await db.read(tenant, (_GET, (tenant, ident)))
    row = rows.first()
    if row is None:
        raise _unknown()
    return _job(row)


async def cancel_job(db: Database, tenant: UUID, ident: UUID) -> Job:
    """Cancel at once what does not run; ask what runs to stop. Raises Refused, Clash."""
    async with db.transaction(tenant) as tx:
        (rows,) = await tx.run((_LOCK, (tenant, ident)))
        row = rows.first()
        if row is None:
            raise _unknown()
        state = _text(row[0])
        if state in _ENDED:
            raise Clash(f"This job is {state} already.", code="job.finished")
        if state == "running":
            await tx.run((_ASK, (tenant, ident)))
        else:
            outbox = int(row[1]) if row[1] else None
            await tx.run((_CANCEL, (tenant, ident)), (_DROP, (tenant, outbox)))
        (rows,) = await tx.run((_GET, (tenant, ident)))
    found = rows.first()
    assert found is not None, "the row is locked by this transaction"
    return _job(found)


async def dead_letters(db: Database, tenant: UUID, *, limit: int = 100) -> list[DeadLetter]:
    """What is not tried any more, oldest first."""
    (rows,) = await db.read(tenant, (_DEAD, (tenant, limit)))
    return [
        DeadLetter(
            outbox_id=int(i or 0),
            topic=_text(topic),
            reason=_text(reason),
            attempts=int(attempts or 0),
            created_at=datetime.fromisoformat(_text(at)),
        )
        for i, topic, reason, attempts, at in rows
    ]


async def replay(db: Database, tenant: UUID, outbox_id: int) -> None:
    """Try a dead letter again from the start. Raises Refused when there is none."""
    async with db.transaction(tenant) as tx:
        answers = await tx.run((_REQUEUE, (tenant, outbox_id)), (_REPLAY, (tenant, outbox_id)))
        if not answers[1].affected:
            raise _unknown()


def _unknown() -> Refused:
    return Refused("There is no such job here.", code="job.unknown")


def _text(value: bytes | None) -> str:
    return (value or b"").decode()


def _job(row: Sequence[bytes | None]) -> Job:
    return Job(
        id=UUID(_text(row[0])),
        job_kind=_text(row[1]),
        state=_text(row[2]),
        progress=int(row[3] or 0),
        total=int(row[4]) if row[4] is not None else None,
        detail=_text(row[5]),
        cancel_asked=row[6] == b"t",
        created_by=UUID(_text(row[7])) if row[7] else None,
        created_at=datetime.fromisoformat(_text(row[8])),
        updated_at=datetime.fromisoformat(_text(row[9])),
        outbox_id=int(row[10]) if row[10] else None,
    )
