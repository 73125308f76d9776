"""The delivery state of one webhook in SQL: who holds it, what waits, how each try ended.

Promises: one runner at a time holds a webhook, and nothing that a former runner finds out is
written; events enter together with the cursor that covers them; of each record only the oldest
waiting event is handed out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.base.ids import uuid_of
from appliance.db.database import Database
from appliance.db.wire import Call, Row, Statement
from appliance.kernel.kind import Json
from appliance.webhooks.events import Event, Found

LEASE_S = 30
ROOM = 2_000

# What was written while the clock was ahead of its time holds nobody up once it was put right.
_IS_FREE = (
    "coalesce(w.lease_until NOT BETWEEN now() AND now() + interval '1 minute', true) "
    "AND coalesce(w.rest_until NOT BETWEEN now() AND now() + interval '25 hours', true)"
)
_IS_DUE = "due_at NOT BETWEEN now() AND now() + interval '25 hours'"
_CLAIM = Statement(
    "UPDATE webhook w SET runner = $3, lease_until = now() + make_interval(secs => $4) "
    "FROM record r WHERE w.tenant_id = $1 AND w.id = $2 AND w.state = 'active' "
    f"AND {_IS_FREE} AND r.tenant_id = $1 AND r.id = w.id "
    "AND r.kind = 'sys.webhook' AND r.deleted_at IS NULL "
    "RETURNING r.data, w.secret, CASE WHEN w.former_until > now() THEN w.former END"
)
_KEEP = Statement(
    "UPDATE webhook SET lease_until = now() + make_interval(secs => $4) "
    "WHERE tenant_id = $1 AND id = $2 AND runner = $3 AND state = 'active'"
)
_RELEASE = Statement(
    "UPDATE webhook SET runner = NULL, lease_until = NULL "
    "WHERE tenant_id = $1 AND id = $2 AND runner = $3"
)
_DUE = Statement(
    "SELECT w.id::text FROM webhook w WHERE w.tenant_id = $1 AND w.state = 'active' "
    f"AND {_IS_FREE} "
    "AND (EXISTS (SELECT FROM webhook_event e WHERE e.tenant_id = $1 AND e.webhook = w.id "
    f"AND e.state = 'waiting' AND e.{_IS_DUE}) OR EXISTS (SELECT FROM stream s "
    "WHERE s.tenant_id = $1 AND s.head > coalesce((w.cursors->>s.id::text)::bigint, 0)))"
)
_WAITING = Statement(
    "SELECT count(*) FROM webhook_event WHERE tenant_id = $1 AND webhook = $2 AND state = 'waiting'"
)
_AGAIN = Statement(
    "DELETE FROM webhook_event WHERE tenant_id = $1 AND webhook = $2 AND id = ANY($3::uuid[])"
)
_ENTER = Statement(
    "INSERT INTO webhook_event (tenant_id, webhook, id, kind, record_id, action, fids, actor, "
    "change_set, occurred_at, stream, seq) SELECT $1, $2, x.id, x.kind, x.record, x.action, x.fids, "
    "x.actor, x.change_set, x.at, x.stream, x.seq FROM jsonb_to_recordset($3::jsonb) AS x(id uuid, "
    "kind text, record uuid, action text, fids text[], actor uuid, change_set uuid, at timestamptz, "
    "stream uuid, seq bigint, n int) ORDER BY x.n ON CONFLICT DO NOTHING",
    leaves=True,
)
_ADVANCE = Statement(
    "UPDATE webhook SET cursors = cursors || $4::jsonb, "
    "missed_at = CASE WHEN $5 THEN now() ELSE missed_at END "
    "WHERE tenant_id = $1 AND id = $2 AND runner = $3 RETURNING 1"
)
_NEXT = Statement(
    "SELECT id::text, kind, record_id::text, action, array_to_json(fids), actor::text, "
    "change_set::text, (extract(epoch FROM occurred_at) * 1000)::bigint, attempts FROM ("
    "SELECT DISTINCT ON (record_id) * FROM webhook_event WHERE tenant_id = $1 AND webhook = $2 "
    "AND state = 'waiting' ORDER BY record_id, no) AS first "
    f"WHERE {_IS_DUE} "
    "ORDER BY no LIMIT $3"
)
_TAKEN = Statement(
    "WITH mine AS (UPDATE webhook SET delivered = delivered + 1, failures = 0, "
    "failing_since = NULL, rest_until = NULL, last_at = now(), last_ok_at = now() "
    "WHERE tenant_id = $1 AND id = $2 AND runner = $3 RETURNING 1) "
    "UPDATE webhook_event e SET state = 'delivered', attempts = attempts + 1, "
    "first_at = coalesce(first_at, now()), last_at = now(), status = $5, code = '', "
    "duration_ms = $6 FROM mine WHERE e.tenant_id = $1 AND e.webhook = $2 AND e.id = $4 "
    "AND e.state = 'waiting' RETURNING 1"
)
_NOTHING = Statement(
    "DELETE FROM webhook_event WHERE tenant_id = $1 AND webhook = $2 AND id = $3 "
    "AND state = 'waiting'"
)
_KNOWN = Statement(
    "INSERT INTO webhook_seen (tenant_id, webhook, record_id) VALUES ($1, $2, $3) "
    "ON CONFLICT DO NOTHING"
)
_UNKNOWN = Statement(
    "DELETE FROM webhook_seen WHERE tenant_id = $1 AND webhook = $2 AND record_id = $3"
)
_FAILED = Statement(
    "UPDATE webhook SET failed = failed + 1, failures = failures + 1, last_at = now(), "
    "failing_since = coalesce(failing_since, now()) "
    "WHERE tenant_id = $1 AND id = $2 AND runner = $3 "
    "RETURNING failures, extract(epoch FROM now() - failing_since)"
)
_TRIED = Statement(
    "UPDATE webhook_event SET attempts = attempts + 1, first_at = coalesce(first_at, now()), "
    "last_at = now(), status = $4, code = $5, duration_ms = $6, "
    "due_at = now() + make_interval(secs => $7), "
    "state = CASE WHEN $8 OR (attempts + 1 >= $9 AND first_at < (SELECT w.last_ok_at FROM webhook w "
    "WHERE w.tenant_id = $1 AND w.id = $2)) THEN 'dead' ELSE 'waiting' END "
    "WHERE tenant_id = $1 AND webhook = $2 AND id = $3 AND state = 'waiting'"
)
_REST = Statement(
    "UPDATE webhook SET rest_until = now() + make_interval(secs => $4) "
    "WHERE tenant_id = $1 AND id = $2 AND runner = $3"
)
_STOP = Statement(
    "UPDATE webhook SET state = $4, reason = $5, rest_until = NULL "
    "WHERE tenant_id = $1 AND id = $2 AND runner = $3 AND state = 'active'"
)
_decode = msgspec.json.Decoder(dict[str, Json]).decode


class Claimed(msgspec.Struct, frozen=True):
    """A webhook that this runner holds: its record's values and its sealed secrets."""

    values: dict[str, Json]
    secret: bytes
    former: bytes | None


class Waiting(msgspec.Struct, frozen=True):
    """An event whose turn it is, and how often it was tried."""

    event: Event
    attempts: int


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """How a failed try is written: when it is due again, and whether it is given up."""

    status: int | None
    code: str
    duration_ms: int
    again_s: float
    is_dead: bool
    attempts_max: int


class Hold:
    """One runner's hold on one webhook."""

    def __init__(self, db: Database, tenant: UUID, webhook: UUID, runner: UUID) -> None:
        self.db, self.tenant, self.webhook, self.runner = db, tenant, webhook, runner
        self._key = (tenant, webhook, runner)

    async def claim(self) -> Claimed | None:
        """Take it; None when it is not to be run, or held by another."""
        async with self.db.transaction(self.tenant) as tx:
            (rows,) = await tx.run((_CLAIM, (*self._key, LEASE_S)), commit=True)
        row = rows.first()
        if row is None:
            return None
        former = _bytes(row[2]) if row[2] is not None else None
        return Claimed(_decode(row[0] or b"{}"), _bytes(row[1]), former)

    async def keep(self) -> bool:
        """Hold it for longer; false when it was stopped or lost."""
        async with self.db.transaction(self.tenant) as tx:
            (rows,) = await tx.run((_KEEP, (*self._key, LEASE_S)), commit=True)
        return rows.affected > 0

    async def release(self) -> None:
        """Let it go."""
        await self._write((_RELEASE, self._key))

    async def room(self) -> int:
        """How many more events may wait."""
        (rows,) = await self.db.read(self.tenant, (_WAITING, (self.tenant, self.webhook)))
        return ROOM - int((rows.first() or (b"0",))[0] or 0)

    async def enter(self, found: Found) -> bool:
        """Note events and the cursor behind them, both or neither; false when the hold is lost."""
        body = msgspec.json.encode(
            [{**msgspec.to_builtins(e), "n": n} for n, e in enumerate(found.events)]
        ).decode()
        ids = [e.id for e in found.events]
        cursors = msgspec.json.encode(found.cursors).decode()
        async with self.db.transaction(self.tenant) as tx:
            (mine,) = await tx.run((_ADVANCE, (*self._key, cursors, found.is_cut)))
            if not len(mine):
                return False
            if ids:
                key = (self.tenant, self.webhook)
                await tx.run((_AGAIN, (*key, ids)), (_ENTER, (*key, body)), commit=True)
        return True

    async def next(self, most: int) -> list[Waiting]:
        """Due events, of each record the oldest one."""
        (rows,) = await self.db.read(self.tenant, (_NEXT, (self.tenant, self.webhook, most)))
        return [_waiting(row) for row in rows]

    async def taken(
        self, event: Event, *, status: int | None, duration_ms: int, is_known: bool | None
    ) -> None:
        """The receiver has it."""
        done: Call = (_TAKEN, (*self._key, event.id, status, duration_ms))
        key = (self.tenant, self.webhook, event.record)
        known: list[Call] = []
        if is_known is not None:
            known = [(_KNOWN if is_known else _UNKNOWN, key)]
        await self._write(done, *known)

    async def nothing(self, event: Event) -> None:
        """There is nothing in it for this receiver."""
        await self._write((_NOTHING, (self.tenant, self.webhook, event.id)))

    async def failed(self, event: Event, tried: Try) -> tuple[int, float] | None:
        """Note a failed try: how many in a row there were and for how long; None when not held."""
        async with self.db.transaction(self.tenant) as tx:
            (mine,) = await tx.run((_FAILED, self._key))
            row = mine.first()
            if row is None:
                return None
            await tx.run(
                (
                    _TRIED,
                    (self.tenant, self.webhook, event.id, tried.status, tried.code,
                     tried.duration_ms, _seconds(tried.again_s), tried.is_dead, tried.attempts_max),
                ),
                commit=True,
            )  # fmt: skip
        return int(row[0] or 0), float(row[1] or 0)

    async def rest(self, seconds: float) -> None:
        """Nothing is tried for a while."""
        await self._write((_REST, (*self._key, _seconds(seconds))))

    async def stop(self, state: str, reason: str) -> None:
        """End it until somebody resumes it."""
        await self._write((_STOP, (*self._key, state, reason[:300])))

    async def _write(self, *calls: Call) -> None:
        async with self.db.transaction(self.tenant) as tx:
            await tx.run(*calls, commit=True)


def due_call(tenant: UUID) -> Call:
    """Ask which webhooks of a tenant have something to do; ids as text."""
    return _DUE, (tenant,)


def _waiting(row: Row) -> Waiting:
    text: Sequence[str] = [(v or b"").decode() for v in row]
    event = Event(
        id=uuid_of(text[0]), kind=text[1], record=uuid_of(text[2]), action=text[3],
        fids=tuple(msgspec.json.decode(text[4], type=list[str])), actor=uuid_of(text[5]),
        change_set=uuid_of(text[6]),
        at=datetime.fromtimestamp(int(text[7]) / 1000, UTC),
    )  # fmt: skip
    return Waiting(event, int(text[8]))


def _seconds(value: float) -> Decimal:
    return Decimal(str(round(value, 3)))


def _bytes(value: bytes | None) -> bytes:
    """A bytea in its text form."""
    return bytes.fromhex((value or b"").decode()[2:])
