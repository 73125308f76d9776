"""Runs that are read elsewhere: offered to a worker by name, taken for a while, frames kept.

A worker is known by its key alone and may die at any instruction. What it has posted is kept by
number, so a repeat changes nothing; who takes the run after it goes on there when it is the same
program, and starts anew when it is not. Frames go through the same staging as those of a child of
this node (posted.py).
"""

from __future__ import annotations

import re
from uuid import UUID

import msgspec

from appliance.base.errors import Clash, Invalid, TooLarge
from appliance.db.database import Database, Transaction
from appliance.db.wire import Row, Statement
from appliance.intake import runs
from appliance.intake.runs import IntakeRun
from connectors.sdk.contract import Done, Found, Mapping, Progress, Rows

LEASE_S = 120
# A file at which its worker has died so often is not read by it.
TAKES_MAX = 5
FRAMES_BYTES_MAX = 2 << 30
# Unless its plan was asked for long ago, whoever was about to ask for it is still at it.
_QUEUE_AGAIN_S = 60
_COLUMNS = (
    "epoch, holder::text, reader, next, bytes, takes, found, mapping, "
    "whole_at IS NOT NULL, is_queued"
)
_GET = Statement(f"SELECT {_COLUMNS} FROM intake_work WHERE tenant_id = $1 AND run = $2")
_LOCK = Statement(
    f"SELECT {_COLUMNS} FROM intake_work WHERE tenant_id = $1 AND run = $2 FOR UPDATE"
)
_OFFER = Statement(
    "INSERT INTO intake_work (tenant_id, run, worker) VALUES ($1, $2, $3) "
    "ON CONFLICT (tenant_id, run) DO UPDATE SET worker = $3, epoch = intake_work.epoch + 1, "
    "holder = NULL, lease_until = NULL, takes = 0, reader = '', found = NULL, mapping = NULL, "
    "next = 0, bytes = 0, done = 0, total = 0, whole_at = NULL, is_queued = false, "
    "offered_at = now() WHERE intake_work.mapping IS NOT NULL"
)
_TAKE = Statement(
    "UPDATE intake_work w SET epoch = w.epoch + 1, holder = $3, takes = w.takes + 1, "
    "lease_until = now() + $5::int * interval '1 second' FROM ("
    "SELECT o.run FROM intake_work o JOIN intake_run r ON r.tenant_id = o.tenant_id AND r.id = o.run "
    "AND r.state = 'received' AND r.connector = ANY($4::text[]) "
    "WHERE o.tenant_id = $1 AND o.worker = $2 AND o.whole_at IS NULL "
    "AND (o.lease_until IS NULL OR o.lease_until < now()) "
    "ORDER BY o.offered_at, o.run LIMIT 1 FOR UPDATE OF o SKIP LOCKED) f "
    "WHERE w.tenant_id = $1 AND w.run = f.run RETURNING w.run::text"
)
_START_ANEW = Statement(
    "UPDATE intake_work SET reader = $3, found = NULL, mapping = NULL, next = 0, bytes = 0, "
    "done = 0, total = 0 WHERE tenant_id = $1 AND run = $2"
)
_CLEAR = Statement("DELETE FROM intake_frame WHERE tenant_id = $1 AND run = $2")
_FOUND = Statement(
    "UPDATE intake_work SET found = $3, mapping = $4 WHERE tenant_id = $1 AND run = $2"
)
_KEEP = Statement("INSERT INTO intake_frame (tenant_id, run, no, data) VALUES ($1, $2, $3, $4)")
_COUNT = Statement(
    "UPDATE intake_work SET next = next + 1, bytes = bytes + $3, takes = 0, "
    "whole_at = CASE WHEN $4::boolean THEN now() END WHERE tenant_id = $1 AND run = $2"
)
_EXTEND = Statement(
    "UPDATE intake_work SET lease_until = now() + $3::int * interval '1 second', "
    "done = greatest(done, $4::bigint), total = greatest(total, $5::bigint) "
    "WHERE tenant_id = $1 AND run = $2"
)
_FORGET = Statement("DELETE FROM intake_work WHERE tenant_id = $1 AND run = $2")
_QUEUED = Statement("UPDATE intake_work SET is_queued = true WHERE tenant_id = $1 AND run = $2")
_LEFT = Statement(
    "SELECT w.run::text FROM intake_work w JOIN intake_run r ON r.tenant_id = w.tenant_id "
    "AND r.id = w.run AND r.state = 'received' WHERE w.tenant_id = $1 AND w.worker = $2 "
    f"AND NOT w.is_queued AND w.whole_at < now() - interval '{_QUEUE_AGAIN_S} seconds' LIMIT 20"
)
_HOW_FAR = Statement("SELECT done, total FROM intake_work WHERE tenant_id = $1 AND run = $2")
# PostgreSQL's JSON has no NUL: what holds one could never be staged.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_encode = msgspec.msgpack.encode


class Work(msgspec.Struct, frozen=True):
    """How a run that is read elsewhere stands. `next`: the number of the frame that is awaited."""

    epoch: int
    holder: UUID | None
    reader: str
    next: int
    bytes: int
    takes: int
    found: Found | None
    mapping: Mapping | None
    is_whole: bool
    is_queued: bool


async def is_read(db: Database, tenant: UUID, run: IntakeRun) -> bool:
    """Whether all frames of its reading are here, under the mapping that counts now."""
    (rows,) = await db.read(tenant, (_GET, (tenant, run.id)))
    row = rows.first()
    if row is None:
        return False
    work = _work(row)
    return work.is_whole and work.mapping == run.mapping


async def offer(db: Database, tenant: UUID, run: IntakeRun) -> None:
    """Let the worker that the run names have it. What was read by another mapping goes."""
    text = f"It waits for the connector worker {run.options.worker} to read it."
    await runs.move(db, tenant, run.id, ["received", "preparing"], "received", text)
    async with db.transaction(tenant) as tx:
        (rows,) = await tx.run((_LOCK, (tenant, run.id)))
        row = rows.first()
        if row is not None and _work(row).mapping == run.mapping:
            # It was offered before, and is being read as it should be.
            return
        await tx.run(
            (_CLEAR, (tenant, run.id)), (_OFFER, (tenant, run.id, run.options.worker)),
            runs.set_call(tenant, run.id, "job_id", None), commit=True,
        )  # fmt: skip


async def take(
    db: Database, tenant: UUID, worker: str, *, holder: UUID | None, reader: str,
    connectors: list[str],
) -> UUID | None:  # fmt: skip
    """A run for this worker, the longest waiting first; None when there is none."""
    async with db.transaction(tenant) as tx:
        (rows,) = await tx.run((_TAKE, (tenant, worker, holder, connectors, LEASE_S)))
        row = rows.first()
        if row is None:
            return None
        run = UUID((row[0] or b"").decode())
        await tx.run(runs.taken_call(tenant, run))
        work = await _lock(tx, tenant, run)
        if work.reader != reader:
            await tx.run((_START_ANEW, (tenant, run, reader)), (_CLEAR, (tenant, run)))
    if work.takes <= TAKES_MAX:
        return run
    text = f"The worker {worker} has died at this file {TAKES_MAX} times; it was given up."
    await runs.move(db, tenant, run, ["received"], "failed", text)
    await forget(db, tenant, run)
    return None


async def hold(db: Database, tenant: UUID, run: IntakeRun, epoch: int, holder: UUID | None) -> Work:
    """How a run stands for who has taken it. Raises Clash for anybody else."""
    (rows,) = await db.read(tenant, (_GET, (tenant, run.id)))
    row = rows.first()
    if row is None:
        raise _lost()
    return _check(_work(row), run, epoch, holder)


async def keep_found(
    db: Database, tenant: UUID, run: IntakeRun, found: Found, mapping: Mapping | None
) -> None:
    """What the worker has found in the file, and the mapping it was told to read by."""
    check_storable(found)
    async with db.transaction(tenant) as tx:
        await tx.run(
            (_FOUND, (tenant, run.id, _encode(found), _encode(mapping))),
            (_EXTEND, (tenant, run.id, LEASE_S, 0, 0)), commit=True,
        )  # fmt: skip


async def keep_frame(
    db: Database, tenant: UUID, run: IntakeRun, frame: Rows | Done, *,
    no: int, epoch: int, holder: UUID | None,
) -> Work:  # fmt: skip
    """Keep a frame under its number; one that is here already changes nothing.

    Raises Clash for a gap or a lease that is lost, Invalid for the
    end of the reading of another file, TooLarge.
    """
    check_storable(frame)
    data = _encode(frame)
    is_end = isinstance(frame, Done)
    if isinstance(frame, Done) and frame.sha256 != run.sha256:
        raise Invalid("Other bytes were read than those of this run.", code="intake.other_file")
    async with db.transaction(tenant) as tx:
        work = _check(await _lock(tx, tenant, run.id), run, epoch, holder)
        if no < work.next:
            return work
        if no > work.next or work.is_whole or work.mapping is None:
            raise Clash("Frames come in order.", code="intake.frame_gap")
        if work.bytes + len(data) > FRAMES_BYTES_MAX:
            raise TooLarge(f"The rows of one run take at most {FRAMES_BYTES_MAX} bytes.")
        await tx.run(
            (_KEEP, (tenant, run.id, no, data)),
            (_COUNT, (tenant, run.id, len(data), is_end)),
            (_EXTEND, (tenant, run.id, LEASE_S, 0, 0)),
            *([runs.read_call(tenant, run.id, frame)] if isinstance(frame, Done) else []),
            commit=True,
        )  # fmt: skip
    return msgspec.structs.replace(work, next=no + 1, is_whole=is_end)


async def note_progress(db: Database, tenant: UUID, run: IntakeRun, at: Progress) -> None:
    """The worker is alive, and so far."""
    rows, total = (max(0, min(n, 2**62)) for n in (at.rows, at.total))
    async with db.transaction(tenant) as tx:
        await tx.run((_EXTEND, (tenant, run.id, LEASE_S, rows, total)), commit=True)


async def how_far(db: Database, tenant: UUID, run: UUID) -> tuple[int, int | None]:
    """Rows that a worker elsewhere has read, and of how many."""
    (rows,) = await db.read(tenant, (_HOW_FAR, (tenant, run)))
    row = rows.first()
    return (int(row[0] or 0), int(row[1] or 0) or None) if row else (0, None)


async def note_queued(db: Database, tenant: UUID, run: UUID) -> None:
    """Its plan was asked for."""
    async with db.transaction(tenant) as tx:
        await tx.run((_QUEUED, (tenant, run)), commit=True)


async def left_unasked(db: Database, tenant: UUID, worker: str) -> list[UUID]:
    """Runs whose frames are whole and whose plan nobody asked for: a process died in between."""
    (rows,) = await db.read(tenant, (_LEFT, (tenant, worker)))
    return [UUID((r or b"").decode()) for r in rows.column()]


async def forget(db: Database, tenant: UUID, run: UUID) -> None:
    """Its frames are staged, or of no use."""
    async with db.transaction(tenant) as tx:
        await tx.run((_CLEAR, (tenant, run)), (_FORGET, (tenant, run)), commit=True)


async def get_work(db: Database, tenant: UUID, run: UUID) -> Work:
    """How a run that is read elsewhere stands. Raises Clash."""
    (rows,) = await db.read(tenant, (_GET, (tenant, run)))
    row = rows.first()
    if row is None:
        raise _lost()
    return _work(row)


def check_storable(frame: msgspec.Struct) -> None:
    """Raises Invalid for texts that could never be staged."""
    if _NUL.search(msgspec.json.encode(frame)):
        raise Invalid("A text holds a character that cannot be stored.", code="text.unstorable")


async def _lock(tx: Transaction, tenant: UUID, run: UUID) -> Work:
    (rows,) = await tx.run((_LOCK, (tenant, run)))
    row = rows.first()
    if row is None:
        raise _lost()
    return _work(row)


def _check(work: Work, run: IntakeRun, epoch: int, holder: UUID | None) -> Work:
    if work.epoch != epoch or work.holder != holder or run.state != "received":
        raise _lost()
    return work


def _lost() -> Clash:
    return Clash("This run is not yours any more; leave it.", code="intake.lease_lost")


def _work(row: Row) -> Work:
    found, mapping = (bytes.fromhex(v[2:].decode()) if v else b"" for v in (row[6], row[7]))
    return Work(
        int(row[0] or 0), UUID(row[1].decode()) if row[1] else None, (row[2] or b"").decode(),
        int(row[3] or 0), int(row[4] or 0), int(row[5] or 0),
        msgspec.msgpack.decode(found, type=Found) if found else None,
        msgspec.msgpack.decode(mapping, type=Mapping | None) if mapping else None,
        row[8] == b"t", row[9] == b"t",
    )  # fmt: skip
