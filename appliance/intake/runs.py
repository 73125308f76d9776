"""Runs as rows: made, looked at, moved from state to state by guarded updates only.

received → preparing → planned → applying → applied → reverting → reverted; failed and cancelled
end a run that has applied nothing, a run that was stopped while applying can be taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from appliance.base.errors import Clash, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Call, Row, Statement
from appliance.kernel.context import Ctx
from connectors.sdk.contract import Fault, Inspection, Mapping

_COLUMNS = (
    "id::text, connector, source, file_name, sha256, size::text, state, detail, inspection, mapping, "
    "options, counts, held_by, job_id::text, array_to_json(change_sets)::text, created_by::text, "
    "profile_id::text, array_to_json(units)::text, approved_by::text, "
    "blob::text, told, "
    'to_char(created_at, \'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"\')'
)
_INSERT = Statement(
    "INSERT INTO intake_run (tenant_id, id, connector, source, file_name, sha256, size, mapping, "
    "options, created_by, profile_id, units, blob) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9::jsonb, $10, $11, $12::uuid[], $13)"
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
_MOVE = Statement(
    "UPDATE intake_run SET state = $4, detail = $5, updated_at = now() "
    "WHERE tenant_id = $1 AND id = $2 AND state = ANY($3::text[])"
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
    the file; without one this node does.
    """

    valid_from: str | None = None
    gone_share_max: int | None = None
    changed_share_max: int = 100
    faulty_share_max: int = 5
    price_factor_max: int = 3
    four_eyes: bool = False
    balance_gap: Literal["hold", "warn"] = "hold"
    worker: Annotated[str, msgspec.Meta(pattern="^([a-z0-9][a-z0-9_-]{0,39})?$")] = ""


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
    created_at: datetime


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made of. `blob`: the file of the content plane, whose bytes come when clean."""

    connector: str
    source: str
    file_name: str
    sha256: str
    size: int
    mapping: Mapping | None = None
    options: Options = Options()
    blob: UUID | None = None


def insert_call(ctx: Ctx, ident: UUID, new: NewRun) -> Call:
    """Make a run in the caller's name."""
    mapping = _json(new.mapping) if new.mapping else None
    return _INSERT, (
        ctx.tenant, ident, new.connector, new.source, new.file_name, new.sha256, new.size, mapping,
        _json(new.options), ctx.actor, UUID(ctx.profile.id), sorted(ctx.units),
        new.blob,
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
        msgspec.json.decode(v) if v is not None and n in (8, 9, 10, 11, 12, 14, 17, 20) else v
        for n, v in enumerate(text)
    ]
    named = dict(zip(IntakeRun.__struct_fields__, decoded, strict=True))
    return msgspec.convert(named, IntakeRun, strict=False)
