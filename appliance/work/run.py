"""One start of one job: the lease that fences it, its progress, and how it ends.

Promises: at most one runner holds a job's lease, and every transaction of the runner that goes
through `checkpoint` or `complete` is refused when the lease is not its own any more, so effects
committed with them happen exactly once however often the message was delivered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from appliance.base.errors import Clash
from appliance.base.ids import uuid7
from appliance.db.database import Database, Transaction
from appliance.db.wire import Statement
from appliance.work.registry import Payload

LEASE_S = 20
KEEP_S = 5.0
BACKOFF_FIRST_S = 5
BACKOFF_MAX_S = 900
DETAIL_CHARS_MAX = 500

# Both rows or neither, without waiting: whoever holds one of them is working on this job.
_CLAIM = Statement(
    "WITH held AS (SELECT o.id, j.id AS job_id FROM outbox o "
    "JOIN job j ON j.tenant_id = o.tenant_id AND j.outbox_id = o.id "
    "WHERE o.tenant_id = $1 AND o.id = $2 AND o.dead_reason IS NULL "
    "AND (j.lease_until IS NULL OR j.lease_until < now()) FOR UPDATE OF o, j SKIP LOCKED), "
    "begun AS (UPDATE job SET state = 'running', runner = $3, updated_at = now(), "
    "lease_until = now() + make_interval(secs => $4) FROM held "
    "WHERE job.tenant_id = $1 AND job.id = held.job_id "
    "RETURNING job.id, job.resume_at, job.cancel_asked) "
    "UPDATE outbox SET attempts = attempts + 1, due_at = now() + make_interval(secs => $4) "
    "FROM begun WHERE outbox.tenant_id = $1 AND outbox.id = $2 "
    "RETURNING begun.id, begun.resume_at, begun.cancel_asked, outbox.attempts, outbox.payload"
)
_KEEP = Statement(
    "WITH kept AS (UPDATE job SET lease_until = now() + make_interval(secs => $4), "
    "progress = COALESCE($5::int, progress), total = COALESCE($6::int, total), "
    "detail = COALESCE($7::text, detail), resume_at = COALESCE($8::text, resume_at), "
    "updated_at = now() WHERE tenant_id = $1 AND id = $2 AND runner = $3 "
    "RETURNING outbox_id, cancel_asked) "
    "UPDATE outbox SET due_at = now() + make_interval(secs => $4) FROM kept "
    "WHERE outbox.tenant_id = $1 AND outbox.id = kept.outbox_id RETURNING kept.cancel_asked"
)
_END = Statement(
    "WITH ended AS (SELECT id, outbox_id FROM job WHERE tenant_id = $1 AND id = $2 "
    "AND runner = $3 FOR UPDATE), closed AS (UPDATE job SET state = $4, outbox_id = NULL, "
    "runner = NULL, lease_until = NULL, detail = COALESCE($5::text, detail), updated_at = now() "
    "FROM ended WHERE job.tenant_id = $1 AND job.id = ended.id) "
    "DELETE FROM outbox o USING ended WHERE o.tenant_id = $1 AND o.id = ended.outbox_id"
)
_YIELD = Statement(
    "WITH given AS (UPDATE job SET state = $4, runner = NULL, lease_until = NULL, detail = $5, "
    "updated_at = now() WHERE tenant_id = $1 AND id = $2 AND runner = $3 RETURNING outbox_id) "
    "UPDATE outbox SET sent_at = NULL, due_at = now() + make_interval(secs => $6), "
    "attempts = GREATEST(attempts - $7::int, 0), dead_reason = $8::text FROM given "
    "WHERE outbox.tenant_id = $1 AND outbox.id = given.outbox_id"
)


class LeaseLost(Clash):
    """The runner was taken for dead and another has the job now; nothing was written."""

    code = "job.lease_lost"
    title = "The job is run by another worker now"


class JobCancelled(Clash):
    """Somebody asked for the job to stop."""

    code = "job.cancelled"
    title = "The job was cancelled"


@dataclass(kw_only=True)
class Run:
    """What a handler is given to report with. `resume_at` is where an earlier start left off."""

    db: Database
    tenant: UUID
    job: UUID
    attempt: int
    payload: Payload
    resume_at: str
    is_cancelled: bool
    runner: UUID
    is_complete: bool = field(default=False, init=False)

    async def checkpoint(
        self,
        tx: Transaction,
        *,
        progress: int | None = None,
        total: int | None = None,
        resume_at: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Bind a batch to the lease and note how far it went, in the batch's transaction.

        Raises LeaseLost, JobCancelled: let them pass, so that the batch is rolled back.
        """
        key = (self.tenant, self.job, self.runner, LEASE_S)
        (rows,) = await tx.run((_KEEP, (*key, progress, total, _short(detail), resume_at)))
        row = rows.first()
        if row is None:
            raise LeaseLost
        if row[0] == b"t":
            self.is_cancelled = True
            raise JobCancelled

    async def report(self, progress: int, total: int | None = None, detail: str = "") -> None:
        """Progress in a transaction of its own; raises as `checkpoint` does."""
        async with self.db.transaction(self.tenant) as tx:
            await self.checkpoint(tx, progress=progress, total=total, detail=detail)

    async def complete(self, tx: Transaction, detail: str | None = None) -> None:
        """End the job in the transaction of its (last) effect. Raises LeaseLost."""
        await self._end(tx, "done", detail)
        self.is_complete = True

    async def keep(self) -> None:
        """Prolong the lease. Raises LeaseLost, JobCancelled, Unavailable."""
        async with self.db.transaction(self.tenant) as tx:
            await self.checkpoint(tx)

    async def finish(self) -> None:
        """End a job whose handler did not do so itself."""
        async with self.db.transaction(self.tenant) as tx:
            await self._end(tx, "done", None)

    async def cancel(self) -> None:
        """End a job that was asked to stop."""
        async with self.db.transaction(self.tenant) as tx:
            await self._end(tx, "cancelled", None)

    async def retry(self, detail: str) -> None:
        """Back to the queue, after a time that doubles with each attempt."""
        wait = min(BACKOFF_FIRST_S * 2 ** (self.attempt - 1), BACKOFF_MAX_S)
        await self._yield("queued", detail, wait_s=wait)

    async def bury(self, reason: str) -> None:
        """Try no more: a dead letter, seen in the list and replayable."""
        await self._yield("failed", reason, dead=reason)

    async def release(self) -> None:
        """Give it back untouched: this worker stops, the start does not count."""
        await self._yield("queued", "", forgiven=1)

    async def _end(self, tx: Transaction, state: str, detail: str | None) -> None:
        (rows,) = await tx.run((_END, (self.tenant, self.job, self.runner, state, _short(detail))))
        if not rows.affected:
            raise LeaseLost

    async def _yield(
        self,
        state: str,
        detail: str,
        *,
        wait_s: int = 0,
        forgiven: int = 0,
        dead: str | None = None,
    ) -> None:
        key = (self.tenant, self.job, self.runner, state, _short(detail))
        async with self.db.transaction(self.tenant) as tx:
            await tx.run((_YIELD, (*key, wait_s, forgiven, _short(dead))), commit=True)


def _short(text: str | None) -> str | None:
    return text[:DETAIL_CHARS_MAX] if text is not None else None


async def claim(db: Database, tenant: UUID, outbox_id: int) -> Run | None:
    """Take the lease; None when the job is done, dead, or in another runner's hands."""
    runner = uuid7()
    async with db.transaction(tenant) as tx:
        (rows,) = await tx.run((_CLAIM, (tenant, outbox_id, runner, LEASE_S)), commit=True)
    row = rows.first()
    if row is None:
        return None
    job, resume_at, cancelled, attempts, payload = row
    return Run(
        db=db,
        tenant=tenant,
        job=UUID((job or b"").decode()),
        attempt=int(attempts or 1),
        payload=msgspec.json.decode(payload or b"{}", type=dict),
        resume_at=(resume_at or b"").decode(),
        is_cancelled=cancelled == b"t",
        runner=runner,
    )
