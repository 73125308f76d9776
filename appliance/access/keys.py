"""API keys: rights lent to a program, never wider than the lender's own, never for good."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from appliance.access.bounds import check_not_staff, check_range, check_text
from appliance.access.rights import lend_profile, lendable_units
from appliance.access.tokens import KEY, make_token
from appliance.audit import audit_calls
from appliance.base.clock import now
from appliance.base.errors import FieldFault, Forbidden, Invalid
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx

DAYS_MAX = 366
NETWORKS_MAX = 20
UNITS_MAX = 500
_KEY = Statement(
    "INSERT INTO session (tenant_id, secret_hash, id, person_id, profile_id, sort, label, unit_ids, "
    "networks, epoch, expires_at) SELECT $1, $2, $3, $4, $5, 'api_key', $6, $7::uuid[], $8::text[], "
    "session_epoch, $9 FROM credential WHERE tenant_id = $1 AND person_id = $4 AND state = 'active'"
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


async def make_key(db: Database, ctx: Ctx, new: NewKey) -> MadeKey:
    """A key in the name of its maker. Raises Invalid, Refused, Forbidden."""
    check_range(new.days, DAYS_MAX, "/days")
    check_text(new.label, "/label")
    networks = _read_networks(new.networks)
    check_not_staff(ctx)
    lent = await lend_profile(db, ctx, new.profile)
    _check_units(lendable_units(ctx, lent), new.units)
    profile = UUID(lent.id)
    token, secret_hash = make_token(KEY, ctx.tenant)
    ident, ends = uuid7(), now() + timedelta(days=new.days)
    units = sorted(set(new.units) or ctx.units)
    async with db.transaction(ctx.tenant) as tx:
        made, *_ = await tx.run(
            (_KEY, (ctx.tenant, secret_hash, ident, ctx.actor, profile, new.label, units, networks, ends)),
            *audit_calls(ctx.tenant, "key.made", actor=ctx.actor, subject=ident,
                         request_id=ctx.request_id,
                         details={"profile": str(profile), "days": new.days, "units": len(units)}),
        )  # fmt: skip
        if not made.affected:
            raise Forbidden("Only a person who signs in here makes keys.")
    return MadeKey(ident, token, ends)


def _check_units(own: frozenset[UUID], units: list[UUID]) -> None:
    faults = [
        FieldFault(f"/units/{n}", "unit_unknown", "There is no such unit for you.")
        for n, unit in enumerate(units[:UNITS_MAX])
        if unit not in own
    ]
    if len(units) > UNITS_MAX:
        faults.append(FieldFault("/units", "too_many", f"At most {UNITS_MAX}."))
    if faults:
        raise Invalid("The key cannot be made like this.", faults=tuple(faults))


def _read_networks(given: list[str]) -> list[str]:
    found, faults = [], []
    for place, text in enumerate(given[:NETWORKS_MAX]):
        try:
            found.append(str(ipaddress.ip_network(text)))
        except ValueError:
            detail = "Expected a network like 192.0.2.0/24."
            faults.append(FieldFault(f"/networks/{place}", "network_malformed", detail))
    if len(given) > NETWORKS_MAX:
        faults.append(FieldFault("/networks", "too_many", f"At most {NETWORKS_MAX}."))
    if faults:
        raise Invalid("The key cannot be made like this.", faults=tuple(faults))
    return found
