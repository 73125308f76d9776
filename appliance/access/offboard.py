"""The doors of a person who leaves: what is open, and closing all of it in one transaction.

This is the part of offboarding below the write path; the records of the person are handed on by
the write path. `close_calls` first, then the records: whatever fails later, nobody is left in.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.access.codes import void_call
from appliance.access.rights import is_last_manager
from appliance.access.sessions import EVERYTHING, end_all_call, list_sessions
from appliance.audit import audit_calls
from appliance.base.errors import Clash, Refused
from appliance.db.database import Database, Transaction
from appliance.db.wire import Call, Statement
from appliance.kernel.context import Ctx

_STATE = Statement("SELECT state FROM credential WHERE tenant_id = $1 AND person_id = $2")
_SUSPEND = Statement(
    "UPDATE credential SET state = 'suspended', session_epoch = session_epoch + 1, "
    "updated_at = now() WHERE tenant_id = $1 AND person_id = $2"
)
# Whoever comes back sets a new password by a code.
_REOPEN = Statement(
    "UPDATE credential SET state = 'invited', password_hash = NULL, totp_secret = NULL, "
    "totp_step = 0, recovery_hashes = '{}', updated_at = now() "
    "WHERE tenant_id = $1 AND person_id = $2 AND state = 'suspended'"
)


class Doors(msgspec.Struct, frozen=True):
    """What of a person is open: live sessions and keys, and the state of their sign-in."""

    person: UUID
    sessions: int
    keys: int
    state: str


async def look_at_doors(db: Database, ctx: Ctx, person: UUID) -> Doors:
    """What closing would end; state is empty for somebody who never could sign in."""
    rows = await list_sessions(db, ctx.tenant, person, EVERYTHING)
    keys = sum(r.sort == "api_key" for r in rows)
    (states,) = await db.read(ctx.tenant, (_STATE, (ctx.tenant, person)))
    row = states.first()
    state = (row[0] or b"").decode() if row else ""
    return Doors(person, len(rows) - keys, keys, state)


def close_calls(ctx: Ctx, person: UUID) -> list[Call]:
    """Nobody signs in as this person, nothing of theirs stays open, no code helps."""
    return [
        (_SUSPEND, (ctx.tenant, person)),
        void_call(ctx, person),
        end_all_call(ctx, person, "offboarded", keep=None, sorts=EVERYTHING),
        *audit_calls(ctx.tenant, "person.doors_closed", actor=ctx.actor, subject=person,
                     request_id=ctx.request_id),
    ]  # fmt: skip


async def close_doors(db: Database, ctx: Ctx, person: UUID) -> Doors:
    """Close them all at once; what was open. Raises Clash for oneself and the last manager."""
    if person == ctx.actor:
        raise Clash("Let somebody else do this: nobody offboards themselves.", code="person.self")
    doors = await look_at_doors(db, ctx, person)
    async with db.transaction(ctx.tenant) as tx:
        await check_replaceable(tx, ctx, person)
        await tx.run(*close_calls(ctx, person), commit=True)
    return doors


async def check_replaceable(tx: Transaction, ctx: Ctx, person: UUID) -> None:
    """Refuse to shut out the last person who manages profiles. Raises Clash."""
    if await is_last_manager(tx, ctx.tenant, person):
        raise Clash("This is the last person who manages profiles.", code="person.last_manager")


async def reopen(db: Database, ctx: Ctx, person: UUID) -> None:
    """Let somebody back in: they may be given a code again. Nothing old helps. Raises Refused."""
    async with db.transaction(ctx.tenant) as tx:
        done, *_ = await tx.run(
            (_REOPEN, (ctx.tenant, person)),
            *audit_calls(ctx.tenant, "person.reopened", actor=ctx.actor, subject=person,
                         request_id=ctx.request_id),
        )  # fmt: skip
        if not done.affected:
            raise Refused("Nobody of that id was offboarded here.", code="person.unknown")
