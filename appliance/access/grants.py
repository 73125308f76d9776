"""Letting platform staff in, as the tenant sees it: requests, grants, their end.

A grant names one of the staff, a reason, a profile within the granter's own rights, the
granter's units and an end; without a live one no session of staff exists here.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import msgspec

from appliance.access.bounds import check_not_staff, check_range, check_text
from appliance.access.rights import lend_profile
from appliance.audit import audit_calls
from appliance.base.clock import now
from appliance.base.errors import Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database, Transaction
from appliance.db.wire import Call, Row, Statement
from appliance.kernel.context import Ctx

T = TypeVar("T", bound=msgspec.Struct)
HOURS_MAX = 72
_MOMENT = 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'
_GRANT = Statement(
    "INSERT INTO staff_grant (tenant_id, id, staff_id, staff_name, reason, profile_id, unit_ids, "
    "granted_by, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7::uuid[], $8, $9)"
)
_GRANTS = Statement(
    "SELECT id::text, staff_name, reason, profile_id::text, granted_by::text, "
    f"to_char(granted_at AT TIME ZONE 'UTC', '{_MOMENT}'), "
    f"to_char(expires_at AT TIME ZONE 'UTC', '{_MOMENT}'), "
    f"to_char(revoked_at AT TIME ZONE 'UTC', '{_MOMENT}') FROM staff_grant WHERE tenant_id = $1 "
    "ORDER BY granted_at DESC, id LIMIT 500"
)
_REVOKE = Statement(
    "UPDATE staff_grant SET revoked_at = now() WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL"
)
_END = Statement(
    "UPDATE session SET ended_at = now(), ended_reason = 'grant_revoked' "
    "WHERE tenant_id = $1 AND staff_grant_id = $2 AND ended_at IS NULL"
)
_REQUESTS = Statement(
    "SELECT id::text, staff_name, reason, hours::text, "
    f"to_char(requested_at AT TIME ZONE 'UTC', '{_MOMENT}') FROM staff_request "
    "WHERE tenant_id = $1 AND answered_at IS NULL ORDER BY requested_at, id LIMIT 500"
)
_TAKE = Statement(
    "UPDATE staff_request SET answered_at = now(), answered_by = $3, grant_id = $4 "
    "WHERE tenant_id = $1 AND id = $2 AND answered_at IS NULL "
    "RETURNING staff_id::text, staff_name, reason, hours"
)


class NewStaffGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Let one of the platform's staff in, under a profile, for hours."""

    staff_email: str
    profile: str
    reason: str
    hours: int = 8


class StaffGrant(msgspec.Struct, frozen=True):
    """Who of the platform's staff may (or might) see this tenant, why and how long."""

    id: UUID
    staff_name: str
    reason: str
    profile: UUID
    granted_by: UUID
    granted_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class StaffRequest(msgspec.Struct, frozen=True):
    """Who of the platform's staff asks to be let in, why and for how long."""

    id: UUID
    staff_name: str
    reason: str
    hours: int
    requested_at: datetime


class _Terms(msgspec.Struct, frozen=True):
    staff: UUID
    name: str
    reason: str
    hours: int


async def grant_staff(db: Database, ctx: Ctx, new: NewStaffGrant) -> UUID:
    """A time-boxed grant. Raises Invalid, Refused, Forbidden."""
    check_range(new.hours, HOURS_MAX, "/hours")
    check_text(new.reason, "/reason")
    check_not_staff(ctx)
    profile = UUID((await lend_profile(db, ctx, new.profile)).id)
    async with db.control.connection() as conn:
        cursor = await conn.execute(
            "SELECT id, name FROM staff WHERE email = %s AND state = 'active'",
            (new.staff_email.strip().casefold()[:254],),
        )
        row = await cursor.fetchone()
    if row is None:
        raise Refused(
            "There is nobody of the platform's staff with this address.", code="staff.unknown"
        )
    staff, name = msgspec.convert(row, tuple[UUID, str])
    ident = uuid7()
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(*_grant_calls(ctx, ident, profile, _Terms(staff, name, new.reason, new.hours)))
    return ident


async def answer_request(
    db: Database, ctx: Ctx, request: UUID, profile: str, *, hours: int | None = None
) -> UUID:
    """Grant what was asked for, for `hours` (as asked, if none). Raises Invalid, Refused, Forbidden."""
    if hours is not None:
        check_range(hours, HOURS_MAX, "/hours")
    check_not_staff(ctx)
    lent = UUID((await lend_profile(db, ctx, profile)).id)
    ident = uuid7()
    async with db.transaction(ctx.tenant) as tx:
        terms = await _take(tx, ctx, request, ident)
        terms = msgspec.structs.replace(terms, hours=hours or terms.hours)
        await tx.run(*_grant_calls(ctx, ident, lent, terms))
    return ident


async def refuse_request(db: Database, ctx: Ctx, request: UUID) -> None:
    """Say no to a request. Raises Refused."""
    async with db.transaction(ctx.tenant) as tx:
        await _take(tx, ctx, request, None)
        await tx.run(
            *audit_calls(ctx.tenant, "staff.request_refused", actor=ctx.actor, subject=request,
                         request_id=ctx.request_id)
        )  # fmt: skip


async def list_staff_grants(db: Database, ctx: Ctx) -> list[StaffGrant]:
    """All of them, ended ones too, newest first."""
    (rows,) = await db.read(ctx.tenant, (_GRANTS, (ctx.tenant,)))
    return [_read(row, StaffGrant) for row in rows]


async def list_staff_requests(db: Database, ctx: Ctx) -> list[StaffRequest]:
    """Those that wait for an answer, oldest first."""
    (rows,) = await db.read(ctx.tenant, (_REQUESTS, (ctx.tenant,)))
    return [_read(row, StaffRequest) for row in rows]


async def revoke_staff(db: Database, ctx: Ctx, ident: UUID) -> None:
    """End a grant; the next request under it fails. Raises Refused."""
    async with db.transaction(ctx.tenant) as tx:
        done, *_ = await tx.run(
            (_REVOKE, (ctx.tenant, ident)),
            (_END, (ctx.tenant, ident)),
            *audit_calls(ctx.tenant, "staff.revoked", actor=ctx.actor, subject=ident,
                         request_id=ctx.request_id),
        )  # fmt: skip
        if not done.affected:
            raise Refused("There is no such grant for you.", code="staff.unknown_grant")


def _grant_calls(ctx: Ctx, ident: UUID, profile: UUID, terms: _Terms) -> list[Call]:
    ends, units = now() + timedelta(hours=terms.hours), sorted(ctx.units)
    row = (
        ctx.tenant,
        ident,
        terms.staff,
        terms.name,
        terms.reason,
        profile,
        units,
        ctx.actor,
        ends,
    )
    details: dict[str, object] = {
        "profile": str(profile),
        "hours": terms.hours,
        "staff": str(terms.staff),
    }
    event = audit_calls(ctx.tenant, "staff.granted", actor=ctx.actor, subject=ident,
                        request_id=ctx.request_id, details=details)  # fmt: skip
    return [(_GRANT, row), *event]


async def _take(tx: Transaction, ctx: Ctx, request: UUID, grant: UUID | None) -> _Terms:
    (rows,) = await tx.run((_TAKE, (ctx.tenant, request, ctx.actor, grant)))
    row = rows.first()
    if row is None:
        raise Refused("There is no such request for you.", code="staff.unknown_request")
    text = [(v or b"").decode() for v in row]
    return _Terms(UUID(text[0]), text[1], text[2], int(text[3]))


def _read(row: Row, shape: type[T]) -> T:
    text = [v.decode() if v is not None else None for v in row]
    return msgspec.convert(
        dict(zip(shape.__struct_fields__, text, strict=True)), shape, strict=False
    )
