"""People come and go: in with one call, out with one call.

The person and the memberships are records, written through the write path under the rights of
whoever asks; what signs them in is the room access's.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.audit import audit_calls
from appliance.base.clock import now
from appliance.base.errors import Clash, FieldFault, Invalid, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.http.accounts import codes
from appliance.http.accounts.rights import is_last_manager
from appliance.http.accounts.sessions import EVERYTHING, list_sessions
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Json
from appliance.kernel.profile import Profile
from appliance.meta import load_schema
from appliance.write import Command, Op, Result, apply, owned, reassign

# More records than this move in a job, so that the call itself stays short.
MOVED_AT_ONCE = 2_000
_STATES = Statement("SELECT person_id::text, state FROM credential WHERE tenant_id = $1")
_PERSON = Statement(
    "SELECT data->>'state' FROM record WHERE tenant_id = $1 AND id = $2 AND kind = 'sys.person' "
    "AND deleted_at IS NULL"
)


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


class Leaving(msgspec.Struct, frozen=True):
    """What hangs on a person: sessions and keys that end, records that move, by kind."""

    person: UUID
    sessions: int
    keys: int
    records: dict[str, int]
    moved_by_job: UUID | None = None
    is_preview: bool = False


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
    await _set_state(db, ctx, person, "active")


async def look_at_leaving(db: Database, ctx: Ctx, person: UUID) -> Leaving:
    """What offboarding would do. Raises Refused."""
    await _check_known(db, ctx, person)
    rows = await list_sessions(db, ctx.tenant, person, EVERYTHING)
    keys = sum(r.sort == "api_key" for r in rows)
    records = await owned(db, ctx, person)
    return Leaving(person, len(rows) - keys, keys, records, is_preview=True)


async def offboard(db: Database, ctx: Ctx, person: UUID, heir: UUID | None) -> Leaving:
    """Close every door of a person and hand on what they own; all but large moves at once.

    First the doors, in one transaction: whatever fails later, nobody is left signed in.
    Raises Refused, Clash, Invalid.
    """
    if person == ctx.actor:
        raise Clash("Let somebody else do this: nobody offboards themselves.", code="person.self")
    if await is_last_manager(db, ctx, person):
        raise Clash("This is the last person who manages profiles.", code="person.last_manager")
    if heir is not None:
        await _check_heir(db, ctx, person, heir)
    leaving = msgspec.structs.replace(await look_at_leaving(db, ctx, person), is_preview=False)
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(
            *codes.suspend_calls(ctx, person),
            *audit_calls(ctx.tenant, "person.offboarded", actor=ctx.actor, subject=person,
                         request_id=ctx.request_id, details={"sessions": leaving.sessions,
                                                             "keys": leaving.keys}),
        )  # fmt: skip
    system = msgspec.structs.replace(ctx, door=Door.SYSTEM)
    await _set_state(db, system, person, "gone")
    if heir is not None and sum(leaving.records.values()) <= MOVED_AT_ONCE:
        moved = await reassign(db, system, from_owner=person, to_owner=heir)
        return msgspec.structs.replace(leaving, records=moved)
    return leaving


async def _set_state(db: Database, ctx: Ctx, person: UUID, state: str) -> Result:
    command = Command(op=Op.UPDATE, kind="sys.person", id=person, fields={"state": state})
    return await apply(db, ctx, [command])


async def _check_known(db: Database, ctx: Ctx, person: UUID) -> str:
    (rows,) = await db.read(ctx.tenant, (_PERSON, (ctx.tenant, person)))
    row = rows.first()
    if row is None:
        raise Refused("There is no such person for you.", code="person.unknown")
    return (row[0] or b"active").decode()


async def _check_heir(db: Database, ctx: Ctx, person: UUID, heir: UUID) -> None:
    problem = "The records need another person." if heir == person else ""
    try:
        if await _check_known(db, ctx, heir) in ("gone", "suspended"):
            problem = "This person has left as well."
    except Refused:
        problem = "There is no such person for you."
    if problem:
        raise Invalid(problem, faults=(FieldFault("/to", "heir_unfit", problem),))
