"""Somebody goes, in one call: every door closed, records handed on, and what that did.

First the doors, in one transaction: whatever fails later, nobody is left signed in.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.access.offboard import check_replaceable, close_calls, look_at_doors
from appliance.audit import audit_calls
from appliance.base.errors import Clash, FieldFault, Invalid, Refused
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx, Door
from appliance.people.onboard import set_state
from appliance.write import owned, reassign

# More records than this move in a job, so that the call itself stays short.
MOVED_AT_ONCE = 2_000
_PERSON = Statement(
    "SELECT data->>'state' FROM record WHERE tenant_id = $1 AND id = $2 AND kind = 'sys.person' "
    "AND deleted_at IS NULL"
)


class Leaving(msgspec.Struct, frozen=True):
    """What hangs on a person: sessions and keys that end, records that move, by kind."""

    person: UUID
    sessions: int
    keys: int
    records: dict[str, int]
    moved_by_job: UUID | None = None
    is_preview: bool = False


async def look_at_leaving(db: Database, ctx: Ctx, person: UUID) -> Leaving:
    """What offboarding would do. Raises Refused."""
    await _check_known(db, ctx, person)
    doors = await look_at_doors(db, ctx, person)
    records = await owned(db, ctx, person)
    return Leaving(person, doors.sessions, doors.keys, records, is_preview=True)


async def offboard(db: Database, ctx: Ctx, person: UUID, heir: UUID | None) -> Leaving:
    """Close every door of a person and hand on what they own; all but large moves at once.

    Raises Refused, Clash, Invalid.
    """
    if person == ctx.actor:
        raise Clash("Let somebody else do this: nobody offboards themselves.", code="person.self")
    if heir is not None:
        await _check_heir(db, ctx, person, heir)
    leaving = msgspec.structs.replace(await look_at_leaving(db, ctx, person), is_preview=False)
    async with db.transaction(ctx.tenant) as tx:
        await check_replaceable(tx, ctx, person)
        await tx.run(
            *close_calls(ctx, person),
            *audit_calls(ctx.tenant, "person.offboarded", actor=ctx.actor, subject=person,
                         request_id=ctx.request_id, details={"sessions": leaving.sessions,
                                                             "keys": leaving.keys}),
        )  # fmt: skip
    system = msgspec.structs.replace(ctx, door=Door.SYSTEM)
    await set_state(db, system, person, "gone")
    if heir is not None and sum(leaving.records.values()) <= MOVED_AT_ONCE:
        moved = await reassign(db, system, from_owner=person, to_owner=heir)
        return msgspec.structs.replace(leaving, records=moved)
    return leaving


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
