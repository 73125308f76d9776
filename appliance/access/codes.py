"""Invitations and resets: a one-time code for a link, kept as a hash, good once and not for long.

The code names its tenant, so that whoever opens the link needs to say nothing else. It sets a
password; it never replaces a second factor, and setting one ends all that was open before.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from appliance.access import delay, passwords
from appliance.access.bounds import check_not_staff
from appliance.access.login import normal_email
from appliance.access.rights import check_not_wider
from appliance.access.sessions import LOGINS
from appliance.access.tokens import make_code, read_code
from appliance.audit import audit_calls
from appliance.base.clock import now
from appliance.base.errors import Clash, FieldFault, Refused
from appliance.base.settings import Login
from appliance.db.database import Database, Transaction
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.context import Ctx, Door

INVITE_H, RESET_H = 72, 1
_TAKEN = Statement("SELECT person_id::text FROM credential WHERE tenant_id = $1 AND email = $2")
_CREDENTIAL = Statement(
    "INSERT INTO credential (tenant_id, person_id, email, state) VALUES ($1, $2, $3, 'invited') "
    "ON CONFLICT DO NOTHING"
)
_CODE_INSERT = Statement(
    "INSERT INTO one_time_code (tenant_id, code_hash, purpose, person_id, expires_at) "
    "VALUES ($1, $2, $3, $4, $5)"
)
_LOOK = Statement(
    "SELECT c.email, c.state FROM one_time_code o JOIN credential c ON c.tenant_id = o.tenant_id "
    "AND c.person_id = o.person_id WHERE o.tenant_id = $1 AND o.code_hash = $2 "
    "AND o.used_at IS NULL AND o.expires_at > now() AND c.state IN ('invited', 'active')"
)
_USE = Statement(
    "UPDATE one_time_code SET used_at = now() WHERE tenant_id = $1 AND code_hash = $2 "
    "AND used_at IS NULL AND expires_at > now() RETURNING person_id::text, purpose"
)
_VOID = Statement(
    "UPDATE one_time_code SET used_at = now() "
    "WHERE tenant_id = $1 AND person_id = $2 AND used_at IS NULL"
)
_STATE = Statement(
    "SELECT state FROM credential WHERE tenant_id = $1 AND person_id = $2 FOR UPDATE"
)
_SET = Statement(
    "UPDATE credential SET password_hash = $3, state = 'active', must_change = false, failures = 0, "
    "failed_at = NULL, session_epoch = session_epoch + 1, updated_at = now() "
    "WHERE tenant_id = $1 AND person_id = $2 AND state IN ('invited', 'active')"
)
# A forgotten password is no reason to stop a firm's programs: keys move on to the new epoch.
_KEEP_KEYS = Statement(
    "UPDATE session s SET epoch = c.session_epoch FROM credential c WHERE s.tenant_id = $1 "
    "AND s.person_id = $2 AND s.sort = 'api_key' AND s.ended_at IS NULL "
    "AND c.tenant_id = s.tenant_id AND c.person_id = s.person_id AND s.epoch = c.session_epoch - 1"
)
_END = Statement(
    "UPDATE session SET ended_at = now(), ended_reason = 'password_changed' WHERE tenant_id = $1 "
    "AND person_id = $2 AND ended_at IS NULL AND sort = ANY($3::text[])"
)


class Invited(msgspec.Struct, frozen=True):
    """A code for the link to a person; it is shown this once."""

    person: UUID
    code: str
    expires_at: datetime


async def check_free(db: Database, tenant: UUID, email: str) -> None:
    """Raises Clash when somebody signs in with this address already."""
    (rows,) = await db.read(tenant, (_TAKEN, (tenant, normal_email(email))))
    if len(rows):
        raise _taken()


async def invite(db: Database, ctx: Ctx, person: UUID, email: str) -> Invited:
    """A credential without a password, and the code that gives it one. Raises Clash, Forbidden."""
    check_not_staff(ctx)
    async with db.transaction(ctx.tenant) as tx:
        (made,) = await tx.run((_CREDENTIAL, (ctx.tenant, person, normal_email(email))))
        if not made.affected:
            raise _taken()
        return await _give(tx, ctx, person, "invite", INVITE_H)


async def reset(db: Database, ctx: Ctx, person: UUID) -> Invited:
    """A fresh code for somebody who cannot sign in; older ones are void.

    Whoever has the code is that person, so it is for people within one's own rights only; for
    all others there is the machine's own command line. Raises Refused, Forbidden.
    """
    check_not_staff(ctx)
    async with db.transaction(ctx.tenant) as tx:
        (rows,) = await tx.run((_STATE, (ctx.tenant, person)))
        state = _state(rows)
        if state not in ("invited", "active"):
            raise Refused("There is no such person who may sign in.", code="person.unknown")
        if ctx.door is not Door.SYSTEM:
            await check_not_wider(tx, ctx, person)
        await tx.run((_VOID, (ctx.tenant, person)))
        purpose, hours = ("invite", INVITE_H) if state == "invited" else ("reset", RESET_H)
        return await _give(tx, ctx, person, purpose, hours)


async def find_person(db: Database, tenant: UUID, email: str) -> UUID:
    """Who signs in with an address. Raises Refused."""
    (rows,) = await db.read(tenant, (_TAKEN, (tenant, normal_email(email))))
    row = rows.first()
    if row is None:
        raise Refused("Nobody signs in here with this address.", code="person.unknown")
    return UUID((row[0] or b"").decode())


async def accept(
    db: Database, code: str, password: str, policy: Login, request_id: UUID
) -> tuple[UUID, UUID]:
    """Set the password a code stands for; tenant and person. Raises Refused, Invalid.

    A password that is not accepted leaves the code good.
    """
    found = read_code(code)
    if found is None:
        raise _unknown()
    tenant, code_hash = found
    try:
        db.routes.of(tenant)
        (rows,) = await db.read(tenant, (_LOOK, (tenant, code_hash)))
    except Refused:
        raise _unknown() from None
    row = rows.first()
    if row is None:
        raise _unknown()
    email = (row[0] or b"").decode()
    passwords.check_strength(password, policy.password_chars_min, pointer="/password", known=email)
    stored = await passwords.hash_password(password)
    async with db.transaction(tenant) as tx:
        person = await _accept(tx, (tenant, code_hash, email), stored, request_id)
    return tenant, person


async def _accept(
    tx: Transaction, named: tuple[UUID, bytes, str], stored: str, request_id: UUID
) -> UUID:
    tenant, code_hash, email = named
    (used,) = await tx.run((_USE, (tenant, code_hash)))
    row = used.first()
    if row is None or row[0] is None:
        raise _unknown()
    person = UUID(row[0].decode())
    done, *_ = await tx.run(
        (_SET, (tenant, person, stored)),
        (_VOID, (tenant, person)),
        (_KEEP_KEYS, (tenant, person)),
        (_END, (tenant, person, list(LOGINS))),
        *delay.passed_calls(tenant, delay.address_hash(tenant, email)),
        *audit_calls(tenant, "password.set_by_code", actor=person, subject=person,
                     request_id=request_id, details={"purpose": (row[1] or b"").decode()}),
    )  # fmt: skip
    if not done.affected:
        raise _unknown()
    return person


def void_call(ctx: Ctx, person: UUID) -> Call:
    """No code that was given to a person helps any more."""
    return _VOID, (ctx.tenant, person)


async def _give(tx: Transaction, ctx: Ctx, person: UUID, purpose: str, hours: int) -> Invited:
    code, code_hash = make_code()
    ends = now() + timedelta(hours=hours)
    await tx.run(
        (_CODE_INSERT, (ctx.tenant, code_hash, purpose, person, ends)),
        *audit_calls(ctx.tenant, f"code.{purpose}", actor=ctx.actor, subject=person,
                     request_id=ctx.request_id),
    )  # fmt: skip
    return Invited(person, f"nxi_{ctx.tenant.hex}_{code}", ends)


def _state(rows: Rows) -> str:
    row = rows.first()
    return (row[0] or b"").decode() if row else ""


def _unknown() -> Refused:
    return Refused("This code is unknown, used or too old; ask for a new one.", code="code.unknown")


def _taken() -> Clash:
    return Clash(
        "Somebody signs in with this address already.",
        code="person.email_taken",
        faults=(FieldFault("/email", "taken", "This address is taken."),),
    )
