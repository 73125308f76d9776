"""Runs as rows: made, looked at, moved from state to state by guarded updates only.

received → preparing → planned → applying → applied → reverting → reverted; failed and cancelled
end a run that has applied nothing, a run that was stopped while applying can be taken back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from appliance.base.errors import Clash, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Call, Row, Statement
from appliance.kernel.context import Ctx
from connectors.sdk.contract import Done, Fault, Inspection, Mapping, Used
from connectors.sdk.wire import Budget


def _moment(column: str) -> str:
    return f'to_char({column}, \'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"\')'


_MOMENTS = ("created_at", "coalesce(begun_at, created_at)", "started_at", "read_at",
            "planned_at", "approved_at", "applied_at", "dismissed_at")  # fmt: skip
_COLUMNS = (
    "id::text, connector, source, file_name, sha256, size::text, state, detail, inspection, mapping, "
    "options, counts, held_by, job_id::text, array_to_json(change_sets)::text, created_by::text, "
    "profile_id::text, array_to_json(units)::text, approved_by::text, "
    "blob::text, told, used, source_key, " + ", ".join(map(_moment, _MOMENTS))
)
_INSERT = Statement(
    "INSERT INTO intake_run (tenant_id, id, connector, source, file_name, sha256, size, mapping, "
    "options, created_by, profile_id, units, blob, source_key) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9::jsonb, $10, $11, $12::uuid[], $13, $14)"
)
_GET = Statement(f"SELECT {_COLUMNS} FROM intake_run WHERE tenant_id = $1 AND id = $2")
_LIST = Statement(
    f"SELECT {_COLUMNS} FROM intake_run WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id < $2) "
    "ORDER BY id DESC LIMIT $3"
)
_WAITING = Statement(
    f"SELECT {_COLUMNS} FROM intake_run WHERE tenant_id = $1 AND blob = $2 AND state = 'received' "
    "AND job_id IS NULL"
)
# What starts anew has nothing behind it.
_ANEW = "$4::text = 'received' AND state <> 'received'"
_MOVE = Statement(
    "UPDATE intake_run SET state = $4::text, detail = $5, updated_at = now(), "
    f"begun_at = CASE WHEN {_ANEW} THEN now() ELSE begun_at END, "
    f"started_at = CASE WHEN {_ANEW} THEN NULL WHEN $4::text = 'preparing' "
    "THEN coalesce(started_at, now()) ELSE started_at END, "
    f"read_at = CASE WHEN {_ANEW} THEN NULL ELSE read_at END, "
    f"planned_at = CASE WHEN {_ANEW} THEN NULL WHEN $4::text = 'planned' THEN now() "
    "ELSE planned_at END, "
    "approved_at = CASE WHEN $4::text = 'applying' THEN now() ELSE approved_at END, "
    "applied_at = CASE WHEN $4::text = 'applied' AND state = 'applying' THEN now() "
    "ELSE applied_at END, "
    "dismissed_at = CASE WHEN $4::text = 'failed' THEN NULL ELSE dismissed_at END "
    "WHERE tenant_id = $1 AND id = $2 AND state = ANY($3::text[])"
)
# To a plan from when its file came, to the end of its writing from when it was approved.
_COUNT = Statement(
    "INSERT INTO intake_tally AS t (tenant_id, connector, ending, runs, rows, ms) "
    "SELECT tenant_id, connector, state, 1, coalesce((counts->>CASE WHEN state = 'planned' "
    "THEN 'rows' ELSE 'applied' END)::bigint, 0), coalesce((extract(epoch FROM now() - "
    "CASE WHEN state = 'applied' THEN approved_at ELSE coalesce(begun_at, created_at) END) "
    "* 1000)::bigint, 0) "
    "FROM intake_run WHERE tenant_id = $1 AND id = $2 "
    "ON CONFLICT (tenant_id, connector, ending) DO UPDATE SET runs = t.runs + 1, "
    "rows = t.rows + excluded.rows, ms = t.ms + excluded.ms"
)
COUNTED = ("planned", "applied", "failed", "cancelled", "reverted")
_GIVEN = Statement(
    "SELECT id::text, sha256 FROM intake_run WHERE tenant_id = $1 AND source_key = $2 "
    "AND file_name = $3 AND created_by = $4 ORDER BY id DESC LIMIT 1"
)
_READ = Statement(
    "UPDATE intake_run SET read_at = coalesce(read_at, now()), used = $3::jsonb "
    "WHERE tenant_id = $1 AND id = $2"
)
_TAKEN = Statement(
    "UPDATE intake_run SET started_at = coalesce(started_at, now()) "
    "WHERE tenant_id = $1 AND id = $2"
)
_SET = {
    name: Statement(
        f"UPDATE intake_run SET {name} = ${3}::{type_}, updated_at = now() "
        "WHERE tenant_id = $1 AND id = $2"
    )
    for name, type_ in (
        ("inspection", "jsonb"), ("mapping", "jsonb"), ("counts", "jsonb"), ("held_by", "jsonb"),
        ("job_id", "uuid"), ("approved_by", "uuid"), ("options", "jsonb"), ("told", "jsonb"),
    )
}  # fmt: skip
_TWIN = Statement(
    "SELECT id::text FROM intake_run WHERE tenant_id = $1 AND connector = $2 AND source = $3 "
    "AND sha256 = $4 AND state = 'applied' ORDER BY id DESC LIMIT 1"
)
_APPLIED = Statement(
    "UPDATE intake_run SET change_sets = array_append(change_sets, $3::uuid), updated_at = now() "
    "WHERE tenant_id = $1 AND id = $2 AND NOT change_sets @> ARRAY[$3::uuid]"
)


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a run is to be judged and applied; shares and factors are plain numbers.

    `gone_share_max` left out is the target's own: 20 % of a price list, 10 % of a catalogue.
    `balance_gap`: whether a statement that does not begin where the last one ended waits for
    somebody (`hold`) or is only told (`warn`). `worker`: the connector worker elsewhere that reads
    the file; without one this node does. `memory_mb_max`, `cpu_s_max`, `seconds_max`, `rows_max`: the
    run's own budget; a file that needs more is refused.
    """

    valid_from: str | None = None
    gone_share_max: int | None = None
    changed_share_max: int = 100
    faulty_share_max: int = 5
    price_factor_max: int = 3
    four_eyes: bool = False
    balance_gap: Literal["hold", "warn"] = "hold"
    worker: Annotated[str, msgspec.Meta(pattern="^([a-z0-9][a-z0-9_-]{0,39})?$")] = ""
    memory_mb_max: Annotated[int, msgspec.Meta(ge=128, le=2_048)] = 2_048
    cpu_s_max: Annotated[int, msgspec.Meta(ge=1, le=900)] = 900
    seconds_max: Annotated[int, msgspec.Meta(ge=5, le=3_600)] = 3_600
    rows_max: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 10_000_000

    @property
    def budget(self) -> Budget:
        """What the reading may cost."""
        return Budget(self.memory_mb_max, self.cpu_s_max, self.seconds_max, self.rows_max)


class Unmapped(msgspec.Struct, frozen=True):
    """A value of the source that is nothing here yet: how many rows wait for it. The setting of
    the mapping that says what it is: `<what>:<value>`.
    """

    what: str
    value: str
    rows: int


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the whole of a reading said (see connectors.sdk.contract.Summary), and what nobody has
    mapped yet, the most wanted first.
    """

    entities: dict[str, int] = {}
    totals: dict[str, str] = {}
    facts: dict[str, str] = {}
    warnings: tuple[Fault, ...] = ()
    unmapped: tuple[Unmapped, ...] = ()


class IntakeRun(msgspec.Struct, frozen=True):
    """One import."""

    id: UUID
    connector: str
    source: str
    file_name: str
    sha256: str
    size: int
    state: str
    detail: str
    inspection: Inspection | None
    mapping: Mapping | None
    options: Options
    counts: dict[str, int]
    held_by: list[str]
    job: UUID | None
    change_sets: list[UUID]
    created_by: UUID
    profile: UUID
    units: list[UUID]
    approved_by: UUID | None
    blob: UUID | None
    told: Told
    used: Used
    source_key: str
    created_at: datetime
    begun_at: datetime
    started_at: datetime | None
    read_at: datetime | None
    planned_at: datetime | None
    approved_at: datetime | None
    applied_at: datetime | None
    dismissed_at: datetime | None

    @property
    def mapping_version(self) -> str:
        """Names the mapping that it is read by: equal ones have the same; empty for none yet."""
        if self.mapping is None:
            return ""
        return hashlib.sha256(msgspec.json.encode(self.mapping, order="sorted")).hexdigest()[:16]


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made of. `blob`: the file of the content plane, whose bytes come when clean.
    `source_key`: the source of a connector worker that it comes from.
    """

    connector: str
    source: str
    file_name: str
    sha256: str
    size: int
    mapping: Mapping | None = None
    options: Options = Options()
    blob: UUID | None = None
    source_key: str = ""


def insert_call(ctx: Ctx, ident: UUID, new: NewRun) -> Call:
    """Make a run in the caller's name."""
    mapping = _json(new.mapping) if new.mapping else None
    return _INSERT, (
        ctx.tenant, ident, new.connector, new.source, new.file_name, new.sha256, new.size, mapping,
        _json(new.options), ctx.actor, UUID(ctx.profile.id), sorted(ctx.units),
        new.blob, new.source_key,
    )  # fmt: skip


def new_id() -> UUID:
    """The id of a run."""
    return uuid7()


async def get_run(db: Database, tenant: UUID, ident: UUID) -> IntakeRun:
    """One run. Raises Refused."""
    (rows,) = await db.read(tenant, (_GET, (tenant, ident)))
    row = rows.first()
    if row is None:
        raise Refused("There is no such import for you.", code="intake.run_unknown")
    return _read(row)


async def waiting_for(db: Database, tenant: UUID, blob: UUID) -> list[IntakeRun]:
    """The runs that wait for a file's verdict."""
    (rows,) = await db.read(tenant, (_WAITING, (tenant, blob)))
    return [_read(row) for row in rows]


async def list_runs(
    db: Database, tenant: UUID, *, before: UUID | None, limit: int
) -> list[IntakeRun]:
    """Newest first."""
    (rows,) = await db.read(tenant, (_LIST, (tenant, before, limit)))
    return [_read(row) for row in rows]


async def find_twin(db: Database, tenant: UUID, new: NewRun | IntakeRun) -> UUID | None:
    """The run that has applied the very same file from the same source, if there is one."""
    args = (tenant, new.connector, new.source, new.sha256)
    (rows,) = await db.read(tenant, (_TWIN, args))
    row = rows.first()
    return UUID((row[0] or b"").decode()) if row else None


async def move(
    db: Database, tenant: UUID, ident: UUID, start: Sequence[str], end: str, detail: str = ""
) -> None:
    """From one of some states to another. Raises Clash when the run is in none of them."""
    async with db.transaction(tenant) as tx:
        (done,) = await tx.run((_MOVE, (tenant, ident, list(start), end, detail[:500])))
        if not done.affected:
            wanted = " or ".join(start)
            raise Clash(f"This import is not {wanted} any more; look again.", code="intake.state")
        if end in COUNTED:
            await tx.run((_COUNT, (tenant, ident)))


async def find_given(
    db: Database, tenant: UUID, actor: UUID, *, source_key: str, name: str, sha256: str
) -> UUID | None:
    """The run that a source's file has already made, if the last one of this name has these bytes:
    an answer was lost, or another worker has taken the source over.
    """
    (rows,) = await db.read(tenant, (_GIVEN, (tenant, source_key, name, actor)))
    row = rows.first()
    return UUID(text_of(row[0])) if row is not None and text_of(row[1]) == sha256 else None


def read_call(tenant: UUID, ident: UUID, done: Done) -> Call:
    """Note that all of it is read, and what that has cost."""
    used = done.used if isinstance(done.used, Used) else Used()
    return _READ, (tenant, ident, _json(used))


def taken_call(tenant: UUID, ident: UUID) -> Call:
    """Note that somebody has begun to read it."""
    return _TAKEN, (tenant, ident)


def set_call(tenant: UUID, ident: UUID, name: str, value: Any) -> Call:
    """Set one thing of a run."""
    text = value if value is None or isinstance(value, UUID) else _json(value)
    return _SET[name], (tenant, ident, text)


def applied_call(tenant: UUID, ident: UUID, change_set: UUID) -> Call:
    """Note a change set of a run, once."""
    return _APPLIED, (tenant, ident, change_set)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _read(row: Row) -> IntakeRun:
    text = [v.decode() if v is not None else None for v in row]
    decoded = [
        msgspec.json.decode(v) if v is not None and n in (8, 9, 10, 11, 12, 14, 17, 20, 21) else v
        for n, v in enumerate(text)
    ]
    named = dict(zip(IntakeRun.__struct_fields__, decoded, strict=True))
    return msgspec.convert(named, IntakeRun, strict=False)
