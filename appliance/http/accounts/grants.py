"""API keys and grants for platform staff: rights lent out, never wider than the lender's own."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from appliance.access.tokens import make_token
from appliance.audit import audit_calls
from appliance.base.clock import now
from appliance.base.errors import FieldFault, Forbidden, Invalid, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Row, Statement
from appliance.http.accounts.rights import find_profile, is_within
from appliance.kernel.context import Ctx

KEY_DAYS_MAX = 366
STAFF_HOURS_MAX = 72
_NETWORKS_MAX = 20
_MOMENT = 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'
_KEY = Statement(
    "INSERT INTO session (tenant_id, secret_hash, id, person_id, profile_id, sort, label, unit_ids, "
    "networks, epoch, expires_at) SELECT $1, $2, $3, $4, $5, 'api_key', $6, $7::uuid[], $8::text[], "
    "session_epoch, $9 FROM credential WHERE tenant_id = $1 AND person_id = $4"
)
_GRANT = Statement(
    "INSERT INTO staff_grant (tenant_id, id, staff_id, staff_name, reason, profile_id, granted_by, "
    "expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
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


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key for a program: a profile, over units (yours if none), from networks (any if none)."""

    label: str
    profile: str
    days: int = 90
    units: list[UUID] = []
    networks: list[str] = []


class MadeKey(msgspec.Struct, frozen=True):
    """The token is shown this once."""

    id: UUID
    token: str
    expires_at: datetime


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


async def make_key(db: Database, ctx: Ctx, new: NewKey) -> MadeKey:
    """A key in the name of its maker. Raises Invalid, Refused, Forbidden."""
    _check_range(new.days, KEY_DAYS_MAX, "/days")
    _check_text(new.label, "/label")
    networks = _read_networks(new.networks)
    faults = tuple(
        FieldFault(f"/units/{n}", "unit_unknown", "There is no such unit for you.")
        for n, unit in enumerate(new.units)
        if unit not in ctx.subtree
    )
    if faults:
        raise Invalid("The key cannot be made like this.", faults=faults)
    profile = await _lent_profile(db, ctx, new.profile)
    token, secret_hash = make_token("nxk", ctx.tenant)
    ident, ends = uuid7(), now() + timedelta(days=new.days)
    units = sorted(new.units or ctx.units)
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(
            (_KEY, (ctx.tenant, secret_hash, ident, ctx.actor, profile, new.label, units, networks, ends)),
            *audit_calls(ctx.tenant, "key.made", actor=ctx.actor, subject=ident,
                         request_id=ctx.request_id, details={"profile": str(profile)}),
        )  # fmt: skip
    return MadeKey(ident, token, ends)


async def grant_staff(db: Database, ctx: Ctx, new: NewStaffGrant) -> UUID:
    """A time-boxed grant. Raises Invalid, Refused, Forbidden."""
    _check_range(new.hours, STAFF_HOURS_MAX, "/hours")
    _check_text(new.reason, "/reason")
    profile = await _lent_profile(db, ctx, new.profile)
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
    ident, ends = uuid7(), now() + timedelta(hours=new.hours)
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(
            (_GRANT, (ctx.tenant, ident, staff, name, new.reason, profile, ctx.actor, ends)),
            *audit_calls(ctx.tenant, "staff.granted", actor=ctx.actor, subject=ident,
                         request_id=ctx.request_id, details={"profile": str(profile), "hours": new.hours}),
        )  # fmt: skip
    return ident


async def list_staff_grants(db: Database, ctx: Ctx) -> list[StaffGrant]:
    """All of them, ended ones too, newest first."""
    (rows,) = await db.read(ctx.tenant, (_GRANTS, (ctx.tenant,)))
    return [_read(row) for row in rows]


async def revoke_staff(db: Database, ctx: Ctx, ident: UUID) -> None:
    """End a grant; the next request under it fails. Raises Refused."""
    async with db.transaction(ctx.tenant) as tx:
        done, *_ = await tx.run(
            (_REVOKE, (ctx.tenant, ident)),
            *audit_calls(ctx.tenant, "staff.revoked", actor=ctx.actor, subject=ident,
                         request_id=ctx.request_id),
        )  # fmt: skip
        if not done.affected:
            raise Refused("There is no such grant for you.", code="staff.unknown_grant")


async def _lent_profile(db: Database, ctx: Ctx, key: str) -> UUID:
    profile = await find_profile(db, ctx, key)
    if not is_within(profile, ctx.profile):
        raise Forbidden("This profile allows more than your own; lend one that does not.")
    return UUID(profile.id)


def _read_networks(given: list[str]) -> list[str]:
    found, faults = [], []
    for place, text in enumerate(given[: _NETWORKS_MAX + 1]):
        try:
            found.append(str(ipaddress.ip_network(text)))
        except ValueError:
            detail = "Expected a network like 192.0.2.0/24."
            faults.append(FieldFault(f"/networks/{place}", "network_malformed", detail))
    if len(given) > _NETWORKS_MAX:
        faults.append(FieldFault("/networks", "too_many", f"At most {_NETWORKS_MAX}."))
    if faults:
        raise Invalid("The key cannot be made like this.", faults=tuple(faults))
    return found


def _check_range(value: int, most: int, pointer: str) -> None:
    if not 0 < value <= most:
        detail = f"Expected 1 to {most}."
        raise Invalid(detail, faults=(FieldFault(pointer, "out_of_range", detail),))


def _check_text(value: str, pointer: str) -> None:
    if not 0 < len(value.strip()) <= 200:
        detail = "Expected 1 to 200 characters."
        raise Invalid(detail, faults=(FieldFault(pointer, "out_of_range", detail),))


def _read(row: Row) -> StaffGrant:
    text = [v.decode() if v is not None else None for v in row]
    return msgspec.convert(dict(zip(StaffGrant.__struct_fields__, text, strict=True)), StaffGrant)
