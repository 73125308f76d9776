"""Sources of connector workers: how they say they are, what people want of them.

The key decides: one source has one row whatever number of workers name it, and its lease says which
of them looks at it; another takes over once that one is silent. What is asked for is a number that
only grows, so a lost answer asks for nothing twice.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from appliance.audit import audit_calls
from appliance.base.errors import Clash, FieldFault, Invalid, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Call, Row, Statement
from appliance.kernel.context import Ctx
from connectors.sdk.schedule import overdue_since
from connectors.sdk.wire import (
    FILES_MAX,
    SOURCE_LEASE_S,
    FileTold,
    FileWish,
    SourcesTold,
    SourceTold,
    SourceWish,
)

# A worker that has ended by itself (`--once` by a clock of its own) is missed only this long after
# its next look.
LEFT_S = 3_600
# So many looks in a row are more than a passing trouble.
FAILING_FROM = 3
# States that somebody has to hear of, the most urgent first.
ALERTS = ("stopped", "silent", "overdue", "failing")
_TELL = Statement(
    "INSERT INTO intake_source (tenant_id, key, worker, instance, lease_until, has_left, created_by, "
    "units, told, no) SELECT $1, t->>'key', $2, $3, now() + $4::int * interval '1 second', "
    "$5::boolean, $6, $7::uuid[], t, $9::bigint FROM jsonb_array_elements($8::jsonb) t ORDER BY 2 "
    "ON CONFLICT (tenant_id, key) DO UPDATE SET worker = excluded.worker, "
    "instance = excluded.instance, lease_until = excluded.lease_until, "
    "has_left = excluded.has_left, created_by = excluded.created_by, units = excluded.units, "
    "told = excluded.told, told_at = now(), no = excluded.no, "
    "look = greatest(intake_source.look, (excluded.told->>'heard_look')::bigint), "
    "resume = greatest(intake_source.resume, (excluded.told->>'heard_resume')::bigint) "
    # Of one worker the later word counts, unless its clock was set back a good while ago.
    "WHERE CASE WHEN intake_source.instance = excluded.instance THEN "
    "intake_source.no <= excluded.no OR intake_source.lease_until < now() - interval '1 minute' "
    "ELSE intake_source.lease_until < now() END "
    "RETURNING key"
)
_WANTED = Statement(
    "SELECT s.key, s.worker, s.is_paused, s.look, s.resume, coalesce((SELECT jsonb_agg(f) FROM ("
    "SELECT jsonb_build_object('name', l.name, 'wish', l.wish, 'asked', l.asked) AS f "
    "FROM intake_lost l WHERE l.tenant_id = $1 AND l.source_key = s.key AND l.wish <> '' "
    f"ORDER BY l.id LIMIT {FILES_MAX}) w), '[]')::text "
    "FROM intake_source s WHERE s.tenant_id = $1 AND s.key = ANY($2::text[])"
)
_FAILED = Statement(
    "INSERT INTO intake_lost (tenant_id, id, source_key, name, source, connector, code, detail, "
    "failed_at, created_by, units) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::uuid[]) "
    "ON CONFLICT (tenant_id, source_key, name) DO UPDATE SET state = 'open', "
    "source = excluded.source, connector = excluded.connector, code = excluded.code, "
    "detail = excluded.detail, failed_at = excluded.failed_at, tries = intake_lost.tries + 1, "
    "note = '', created_by = excluded.created_by, units = excluded.units, "
    "asked = greatest(intake_lost.asked, $12::bigint), "
    "wish = CASE WHEN $12::bigint >= intake_lost.asked THEN '' ELSE intake_lost.wish END "
    "WHERE intake_lost.failed_at <> excluded.failed_at"
)
_ENDED = Statement(
    "UPDATE intake_lost SET state = $4, wish = '' WHERE tenant_id = $1 AND source_key = $2 "
    "AND name = $3 AND (failed_at <= $5 OR $6::bigint > 0) "
    "AND (wish = '' OR asked <= $6::bigint OR $4 = 'given')"
)
_COLUMNS = (
    "s.key, s.worker, s.told::text, s.is_paused, s.has_left, s.lease_until < now(), s.alerted, "
    'to_char(s.known_at, \'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"\'), '
    'to_char(s.told_at, \'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"\'), '
    "(SELECT count(*) FROM intake_lost l WHERE l.tenant_id = $1 AND l.source_key = s.key "
    "AND l.state = 'open')"
)
_LIST = Statement(
    f"SELECT {_COLUMNS} FROM intake_source s WHERE s.tenant_id = $1 ORDER BY s.key LIMIT $2"
)
_GET = Statement(f"SELECT {_COLUMNS} FROM intake_source s WHERE s.tenant_id = $1 AND s.key = $2")
_LOOK = Statement("UPDATE intake_source SET look = look + 1 WHERE tenant_id = $1 AND key = $2")
_PAUSE = Statement("UPDATE intake_source SET is_paused = true WHERE tenant_id = $1 AND key = $2")
_RESUME = Statement(
    "UPDATE intake_source SET is_paused = false, resume = resume + 1, look = look + 1 "
    "WHERE tenant_id = $1 AND key = $2"
)
_FORGET = Statement(
    "DELETE FROM intake_source WHERE tenant_id = $1 AND key = $2 AND lease_until < now()"
)
_ALERTED = Statement(
    "UPDATE intake_source SET alerted = $3 WHERE tenant_id = $1 AND key = $2 AND alerted <> $3"
)
LIST_MAX = 1_000
_encode = msgspec.json.encode


class SourceRow(msgspec.Struct, frozen=True):
    """One source as it is kept. `is_quiet`: its lease is over; `lost`: its files that failed."""

    key: str
    worker: str
    told: SourceTold
    is_paused: bool
    has_left: bool
    is_quiet: bool
    alerted: str
    known_at: datetime
    told_at: datetime
    lost: int


async def keep_report(db: Database, ctx: Ctx, report: SourcesTold) -> list[SourceWish]:
    """Take what a worker says of its sources; what is wanted of each. Raises Invalid."""
    keys = [s.key for s in report.sources]
    if len(set(keys)) < len(keys):
        detail = "A source stands twice in the report."
        raise Invalid(detail, faults=(FieldFault("/sources", "repeated", detail),))
    bare = [msgspec.structs.replace(s, ended=()) for s in report.sources]
    lease_s = 0 if report.is_leaving else SOURCE_LEASE_S
    args = (
        ctx.tenant, report.worker, report.instance, lease_s, report.is_leaving, ctx.actor,
        sorted(ctx.units), _encode(bare).decode(), report.no,
    )  # fmt: skip
    async with db.transaction(ctx.tenant) as tx:
        (taken,) = await tx.run((_TELL, args))
        ours = {text_of(key) for key in taken.column()}
        told = [_ended(ctx, s, f) for s in report.sources if s.key in ours for f in s.ended]
        if told:
            await tx.run(*told)
        (rows,) = await tx.run((_WANTED, (ctx.tenant, keys)), commit=True)
    return [_wish(row, ours) for row in rows]


async def list_sources(db: Database, tenant: UUID) -> list[SourceRow]:
    """All sources, by key."""
    (rows,) = await db.read(tenant, (_LIST, (tenant, LIST_MAX)))
    return [_row(row) for row in rows]


async def get_source(db: Database, tenant: UUID, key: str) -> SourceRow:
    """One source. Raises Refused."""
    (rows,) = await db.read(tenant, (_GET, (tenant, key)))
    row = rows.first()
    if row is None:
        raise Refused("There is no such source for you.", code="source.unknown")
    return _row(row)


def state_of(row: SourceRow, now: datetime) -> str:
    """In one word: stopped, silent, paused, overdue, failing, new or ok."""
    if row.told.is_stopped:
        return "stopped"
    if row.is_quiet and not row.is_paused and not _is_awaited(row, now):
        return "silent"
    if row.is_paused:
        return "paused"
    if overdue(row, now) is not None:
        return "overdue"
    if row.told.failures >= FAILING_FROM:
        return "failing"
    return "ok" if row.told.last_good_at is not None else "new"


def overdue(row: SourceRow, now: datetime) -> datetime | None:
    """Since when a file is awaited in vain."""
    told = row.told
    return overdue_since(told.schedule, now, last_file=told.last_file_at, known_since=row.known_at)


async def ask_look(db: Database, ctx: Ctx, key: str) -> None:
    """Have it looked at now. Raises Refused, Clash."""
    source = await get_source(db, ctx.tenant, key)
    if source.is_paused or source.told.is_stopped:
        how = "paused" if source.is_paused else "stopped"
        raise Clash(f"The source {key} is {how}; resume it.", code="source.still")
    await _set(db, ctx, _LOOK, key, "source.look_asked")


async def pause(db: Database, ctx: Ctx, key: str) -> None:
    """No look begins before somebody resumes it. Raises Refused."""
    await _set(db, ctx, _PAUSE, key, "source.paused")


async def resume(db: Database, ctx: Ctx, key: str) -> None:
    """Go on after a pause, or after permanent trouble, with a look at once. Raises Refused."""
    await _set(db, ctx, _RESUME, key, "source.resumed")


async def forget(db: Database, ctx: Ctx, key: str) -> None:
    """Take it off the list: no worker has it any more. Raises Refused, Clash."""
    source = await get_source(db, ctx.tenant, key)
    if not source.is_quiet:
        text = f"A worker looks at {key}; take it out of that worker's file first."
        raise Clash(text, code="source.in_use")
    await _set(db, ctx, _FORGET, key, "source.forgotten")


async def note_alert(db: Database, tenant: UUID, key: str, state: str) -> bool:
    """Whether this is news; it is not the next time."""
    async with db.transaction(tenant) as tx:
        (done,) = await tx.run((_ALERTED, (tenant, key, state)), commit=True)
    return bool(done.affected)


def _is_awaited(row: SourceRow, now: datetime) -> bool:
    """Whether a worker that has ended may still come back in time."""
    due = row.told.next_look_at or row.told_at
    return row.has_left and now < due + timedelta(seconds=LEFT_S)


def _ended(ctx: Ctx, source: SourceTold, file: FileTold) -> Call:
    if file.end != "failed":
        return _ENDED, (ctx.tenant, source.key, file.name, file.end, file.at, file.asked)
    return _FAILED, (
        ctx.tenant, uuid7(), source.key, file.name, source.name, source.connector, file.code,
        file.detail, file.at, ctx.actor, sorted(ctx.units), file.asked,
    )  # fmt: skip


async def _set(db: Database, ctx: Ctx, statement: Statement, key: str, action: str) -> None:
    event = audit_calls(ctx.tenant, action, actor=ctx.actor, subject=key, request_id=ctx.request_id)
    async with db.transaction(ctx.tenant) as tx:
        (done,) = await tx.run((statement, (ctx.tenant, key)))
        if not done.affected:
            raise Refused("There is no such source for you.", code="source.unknown")
        await tx.run(*event, commit=True)


def _wish(row: Row, ours: set[str]) -> SourceWish:
    key = text_of(row[0])
    is_yours = key in ours
    return SourceWish(
        key, is_yours, "" if is_yours else text_of(row[1]), row[2] == b"t", int(row[3] or 0),
        int(row[4] or 0), msgspec.json.decode(row[5] or b"[]", type=tuple[FileWish, ...]),
    )  # fmt: skip


def _row(row: Row) -> SourceRow:
    known, told = (datetime.fromisoformat(text_of(v)) for v in (row[7], row[8]))
    return SourceRow(
        text_of(row[0]), text_of(row[1]), msgspec.json.decode(row[2] or b"", type=SourceTold),
        row[3] == b"t", row[4] == b"t", row[5] == b"t", text_of(row[6]), known, told,
        int(row[9] or 0),
    )  # fmt: skip
