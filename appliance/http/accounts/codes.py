"""Invitations and resets: a one-time code for a link, kept as a hash, good once and not for long.

The code names its tenant, so that whoever opens the link needs to say nothing else. It sets a
password; it never replaces a second factor.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from appliance.access import passwords
from appliance.access.login import normal_email
from appliance.access.tokens import hash_secret, make_code
from appliance.audit import audit_calls
from appliance.base.clock import now
from appliance.base.errors import Clash, FieldFault, Refused
from appliance.base.settings import Login
from appliance.db.database import Database, Transaction
from appliance.db.wire import Call, Statement
from appliance.http.accounts.sessions import EVERYTHING, end_all_call
from appliance.kernel.context import Ctx

INVITE_H, RESET_H = 72, 1
_CODE = re.compile(r"nxi_([0-9a-f]{32})_([A-Za-z0-9_-]{43})\Z")
_TAKEN = Statement("SELECT 1 FROM credential WHERE tenant_id = $1 AND email = $2")
_CREDENTIAL = Statement(
    "INSERT INTO credential (tenant_id, person_id, email, state) VALUES ($1, $2, $3, 'invited') "
    "ON CONFLICT DO NOTHING"
)
_CODE_INSERT = Statement(
    "INSERT INTO one_time_code (tenant_id, code_hash, purpose, person_id, expires_at) "
    "VALUES ($1, $2, $3, $4, $5)"
)
_USE = Statement(
    "UPDATE one_time_code SET used_at = now() WHERE tenant_id = $1 AND code_hash = $2 "
    "AND used_at IS NULL AND expires_at > now() RETURNING person_id::text, purpose"
)
_VOID = Statement(
    "UPDATE one_time_code SET used_at = now() "
    "WHERE tenant_id = $1 AND person_id = $2 AND used_at IS NULL"
)
_EMAIL = Statement(
    "SELECT email, state FROM credential WHERE tenant_id = $1 AND person_id = $2 FOR UPDATE"
)
_SET = Statement(
    "UPDATE credential SET password_hash = $3, state = 'active', must_change = false, failures = 0, "
    "failed_at = NULL, session_epoch = session_epoch + 1 WHERE tenant_id = $1 AND person_id = $2"
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
    """A credential without a password, and the code that gives it one. Raises Clash."""
    async with db.transaction(ctx.tenant) as tx:
        (made,) = await tx.run((_CREDENTIAL, (ctx.tenant, person, normal_email(email))))
        if not made.affected:
            raise _taken()
        return await _give(tx, ctx, person, "invite", INVITE_H)


async def reset(db: Database, ctx: Ctx, person: UUID) -> Invited:
    """A fresh code for somebody who cannot sign in; older ones are void. Raises Refused."""
    async with db.transaction(ctx.tenant) as tx:
        (rows,) = await tx.run((_EMAIL, (ctx.tenant, person)))
        row = rows.first()
        if row is None or row[1] == b"suspended":
            raise Refused("There is no such person who may sign in.", code="person.unknown")
        invited = row[1] == b"invited"
        await tx.run((_VOID, (ctx.tenant, person)))
        purpose, hours = ("invite", INVITE_H) if invited else ("reset", RESET_H)
        return await _give(tx, ctx, person, purpose, hours)


async def accept(
    db: Database, code: str, password: str, policy: Login, request_id: UUID
) -> tuple[UUID, UUID]:
    """Set the password a code stands for; tenant and person. Raises Refused, Invalid."""
    found = _CODE.match(code)
    if found is None:
        raise _unknown()
    try:
        tenant = db.routes.of(UUID(found.group(1))).tenant
    except Refused:
        raise _unknown() from None
    async with db.transaction(tenant) as tx:
        (rows,) = await tx.run((_USE, (tenant, hash_secret(found.group(2)))))
        row = rows.first()
        if row is None or row[0] is None:
            raise _unknown()
        person = UUID(row[0].decode())
        (held,) = await tx.run((_EMAIL, (tenant, person)))
        known = held.first()
        if known is None or known[1] == b"suspended":
            raise _unknown()
        email = (known[0] or b"").decode()
        passwords.check_strength(
            password, policy.password_chars_min, pointer="/password", known=email
        )
        stored = await passwords.hash_password(password)
        await tx.run(
            (_SET, (tenant, person, stored)),
            *audit_calls(tenant, "password.set_by_code", actor=person, subject=person,
                         request_id=request_id, details={"purpose": (row[1] or b"").decode()}),
        )  # fmt: skip
    return tenant, person


def suspend_calls(ctx: Ctx, person: UUID) -> list[Call]:
    """Nobody signs in as this person, nothing of theirs stays open, no code helps."""
    return [
        (_SUSPEND, (ctx.tenant, person)),
        (_VOID, (ctx.tenant, person)),
        end_all_call(ctx, person, "offboarded", keep=None, sorts=EVERYTHING),
    ]


_SUSPEND = Statement(
    "UPDATE credential SET state = 'suspended', session_epoch = session_epoch + 1 "
    "WHERE tenant_id = $1 AND person_id = $2"
)


async def _give(tx: Transaction, ctx: Ctx, person: UUID, purpose: str, hours: int) -> Invited:
    code, code_hash = make_code()
    ends = now() + timedelta(hours=hours)
    await tx.run(
        (_CODE_INSERT, (ctx.tenant, code_hash, purpose, person, ends)),
        *audit_calls(ctx.tenant, f"code.{purpose}", actor=ctx.actor, subject=person,
                     request_id=ctx.request_id),
    )  # fmt: skip
    return Invited(person, f"nxi_{ctx.tenant.hex}_{code}", ends)


def _unknown() -> Refused:
    return Refused("This code is unknown, used or too old; ask for a new one.", code="code.unknown")


def _taken() -> Clash:
    return Clash(
        "Somebody signs in with this address already.",
        code="person.email_taken",
        faults=(FieldFault("/email", "taken", "This address is taken."),),
    )
