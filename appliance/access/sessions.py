"""Sessions and API keys as people see them: list, end one, end all but this one, end all."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from appliance.audit import audit_calls
from appliance.base.errors import Refused
from appliance.db.database import Database
from appliance.db.wire import Call, Row, Statement
from appliance.kernel.context import Ctx

_MOMENT = 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'
_COLUMNS = (
    "id::text, person_id::text, profile_id::text, sort, label, "
    + ", ".join(
        f"to_char({c} AT TIME ZONE 'UTC', '{_MOMENT}')"
        for c in ("created_at", "seen_at", "expires_at")
    )
    + ", array_to_json(networks)::text, array_to_json(unit_ids)::text"
)
_LIVE = "tenant_id = $1 AND ended_at IS NULL AND expires_at > now()"
_LIST = Statement(
    f"SELECT {_COLUMNS} FROM session WHERE {_LIVE} AND ($2::uuid IS NULL OR person_id = $2) "
    "AND sort = ANY($3::text[]) ORDER BY created_at DESC, id LIMIT 1000"
)
_END = Statement(
    f"UPDATE session SET ended_at = now(), ended_reason = $4 WHERE {_LIVE} AND id = $2 "
    "AND ($3::uuid IS NULL OR person_id = $3) AND sort = ANY($5::text[])"
)
_END_ALL = Statement(
    f"UPDATE session SET ended_at = now(), ended_reason = $3 WHERE {_LIVE} AND person_id = $2 "
    "AND ($4::uuid IS NULL OR id <> $4) AND sort = ANY($5::text[])"
)
_EPOCH = Statement(
    "UPDATE credential SET session_epoch = session_epoch + 1 WHERE tenant_id = $1 AND person_id = $2"
)
LOGINS = ("login", "staff")
KEYS = ("api_key",)
EVERYTHING = (*LOGINS, *KEYS)


class SessionRow(msgspec.Struct, frozen=True):
    """One live session or key. The token itself is nowhere."""

    id: UUID
    person: UUID
    profile: UUID
    sort: str
    label: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    networks: list[str]
    units: list[UUID] | None


async def list_sessions(
    db: Database, tenant: UUID, person: UUID | None, sorts: tuple[str, ...]
) -> list[SessionRow]:
    """Live ones, newest first; of one person or of all."""
    (rows,) = await db.read(tenant, (_LIST, (tenant, person, list(sorts))))
    return [_read(row) for row in rows]


async def end_session(
    db: Database, ctx: Ctx, ident: UUID, *, own: bool, sorts: tuple[str, ...], reason: str
) -> None:
    """End one; `own` only one's own. Raises Refused for any other."""
    person = ctx.actor if own else None
    async with db.transaction(ctx.tenant) as tx:
        ended, *_ = await tx.run(
            (_END, (ctx.tenant, ident, person, reason, list(sorts))),
            *audit_calls(ctx.tenant, "session.ended", actor=ctx.actor, subject=ident,
                         request_id=ctx.request_id, outcome=reason),
        )  # fmt: skip
        if not ended.affected:
            raise Refused("There is no such session for you.", code="session.unknown")


async def end_others(db: Database, ctx: Ctx) -> int:
    """End all one's own sessions but this one; keys stay. How many ended."""
    async with db.transaction(ctx.tenant) as tx:
        ended, *_ = await tx.run(
            end_all_call(ctx, ctx.actor, "ended_by_person", keep=ctx.session, sorts=LOGINS),
            *audit_calls(ctx.tenant, "session.others_ended", actor=ctx.actor, subject=ctx.actor,
                         request_id=ctx.request_id),
            commit=True,
        )  # fmt: skip
        return ended.affected


async def end_person(db: Database, ctx: Ctx, person: UUID, reason: str) -> int:
    """End everything of a person, keys too, and void what might yet be made of the old epoch."""
    async with db.transaction(ctx.tenant) as tx:
        _, ended, *_ = await tx.run(
            epoch_call(ctx, person),
            end_all_call(ctx, person, reason, keep=None, sorts=EVERYTHING),
            *audit_calls(ctx.tenant, "session.all_ended", actor=ctx.actor, subject=person,
                         request_id=ctx.request_id, outcome=reason),
            commit=True,
        )  # fmt: skip
        return ended.affected


def end_all_call(
    ctx: Ctx, person: UUID, reason: str, *, keep: UUID | None, sorts: tuple[str, ...]
) -> Call:
    """End all sessions of a person but one, in the caller's transaction."""
    return _END_ALL, (ctx.tenant, person, reason, keep, list(sorts))


def epoch_call(ctx: Ctx, person: UUID) -> Call:
    """Void every session of a person that was made before, also one being made just now."""
    return _EPOCH, (ctx.tenant, person)


def _read(row: Row) -> SessionRow:
    text = [v.decode() if v is not None else None for v in row]
    named = {
        "id": text[0], "person": text[1], "profile": text[2], "sort": text[3], "label": text[4],
        "created_at": text[5], "seen_at": text[6], "expires_at": text[7],
        "networks": msgspec.json.decode(text[8] or "[]"),
        "units": msgspec.json.decode(text[9]) if text[9] else None,
    }  # fmt: skip
    return msgspec.convert(named, SessionRow)
