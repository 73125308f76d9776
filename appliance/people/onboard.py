"""Somebody comes: the person and the memberships as one batch, and the record of having accepted.

They are records, written through the write path under the rights of whoever invites; the code
that lets them in is the room access's.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Json
from appliance.kernel.profile import Profile
from appliance.meta import load_schema
from appliance.write import Command, Op, Result, apply

_STATES = Statement("SELECT person_id::text, state FROM credential WHERE tenant_id = $1")


class NewMembership(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A profile over units (all when none), from and to a date."""

    profile: UUID
    units: list[UUID] = []
    valid_from: str | None = None
    valid_to: str | None = None


class NewPerson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody to invite."""

    name: str
    email: str
    memberships: list[NewMembership] = []
    phone: str | None = None
    locale: str | None = None
    tz: str | None = None


def person_commands(new: NewPerson) -> tuple[UUID, list[Command]]:
    """The person and the memberships, as one batch."""
    ident = uuid7()
    values: dict[str, Json] = {"name": new.name, "email": new.email, "state": "invited"}
    optional = {"phone": new.phone, "locale": new.locale, "tz": new.tz}
    values |= {k: v for k, v in optional.items() if v is not None}
    commands = [Command(op=Op.CREATE, kind="sys.person", id=ident, fields=values)]
    for member in new.memberships:
        fields: dict[str, Json] = {"person": str(ident), "profile": str(member.profile)}
        if member.units:
            fields["units"] = [str(u) for u in member.units]
        dates = {"valid_from": member.valid_from, "valid_to": member.valid_to}
        fields |= {k: v for k, v in dates.items() if v is not None}
        commands.append(Command(op=Op.CREATE, kind="sys.membership", fields=fields))
    return ident, commands


async def sign_in_states(db: Database, tenant: UUID) -> dict[str, str]:
    """Who may sign in: the state of each person's credential."""
    (rows,) = await db.read(tenant, (_STATES, (tenant,)))
    return {(i or b"").decode(): (s or b"").decode() for i, s in rows}


async def activate(db: Database, tenant: UUID, person: UUID, request_id: UUID, origin: int) -> None:
    """The record of somebody who has accepted says so too."""
    ctx = Ctx(
        tenant=tenant, origin=origin, actor=person, profile=Profile(id="", key=""),
        schema=await load_schema(db, tenant), door=Door.SYSTEM, request_id=request_id, at=now(),
    )  # fmt: skip
    await set_state(db, ctx, person, "active")


async def set_state(db: Database, ctx: Ctx, person: UUID, state: str) -> Result:
    """Say in the record of a person what became of their sign-in."""
    command = Command(op=Op.UPDATE, kind="sys.person", id=person, fields={"state": state})
    return await apply(db, ctx, [command])
