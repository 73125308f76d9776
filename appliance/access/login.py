"""Signing in and out. Unknown tenant, unknown address and wrong password read alike, in equal time.

A failed attempt delays the next one, longer each time; it never locks the account, because that
would let anybody lock anybody out (research/security 4.3). Every step is an audit event.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.access import passwords, totp
from appliance.access.session import expires
from appliance.access.tokens import make_token
from appliance.audit import audit_calls
from appliance.base.errors import Limited, Refused, Unauthenticated
from appliance.base.ids import uuid7
from appliance.base.settings import Login
from appliance.db.database import Database, Transaction
from appliance.db.wire import Statement

DELAY_MAX_S = 900

_CREDENTIAL = Statement(
    "SELECT person_id::text, password_hash, totp_secret, totp_step, state, failures, "
    "extract(epoch FROM now() - failed_at), session_epoch, must_change, "
    "array_to_string(recovery_hashes, ',') FROM credential WHERE tenant_id = $1 AND email = $2 FOR UPDATE"
)
_FAILED = Statement(
    "UPDATE credential SET failures = failures + 1, failed_at = now() "
    "WHERE tenant_id = $1 AND person_id = $2"
)
_PASSED = Statement(
    "UPDATE credential SET failures = 0, failed_at = NULL, totp_step = $3, "
    "recovery_hashes = array_remove(recovery_hashes, $4) WHERE tenant_id = $1 AND person_id = $2"
)
_PROFILES = Statement(
    "SELECT m.r2::text, p.data->>'key' FROM record m JOIN record p ON p.tenant_id = m.tenant_id "
    "AND p.id = m.r2 AND p.kind = 'sys.profile' AND p.deleted_at IS NULL WHERE m.tenant_id = $1 "
    "AND m.kind = 'sys.membership' AND m.r1 = $2 AND m.deleted_at IS NULL "
    "AND (m.d1 IS NULL OR m.d1 <= now()) AND (m.d2 IS NULL OR m.d2 + interval '1 day' > now()) "
    "ORDER BY m.id"
)
_INSERT = Statement(
    "INSERT INTO session (tenant_id, secret_hash, id, person_id, profile_id, sort, label, epoch, "
    "expires_at) VALUES ($1, $2, $3, $4, $5, 'login', $6, $7, $8)"
)
_REHASH = Statement(
    "UPDATE credential SET password_hash = $3 WHERE tenant_id = $1 AND person_id = $2"
)


class SignedIn(msgspec.Struct, frozen=True):
    """The answer to a sign-in. The token is shown this once."""

    token: str
    expires_at: datetime
    tenant: str
    profile: str
    must_change_password: bool


class _Found(msgspec.Struct, frozen=True):
    person: UUID
    password_hash: str | None
    totp_secret: bytes | None
    totp_step: int
    state: str
    failures: int
    failed_s: float
    epoch: int
    must_change: bool
    recovery: tuple[bytes, ...]


class Attempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person sends to sign in. `totp` is a six-digit code or a recovery code."""

    tenant: str
    email: str
    password: str
    totp: str | None = None
    profile: str | None = None


async def sign_in(
    db: Database, attempt: Attempt, policy: Login, request_id: UUID, *, label: str = ""
) -> SignedIn:
    """A new session. Raises Unauthenticated, Limited."""
    try:
        tenant = await _tenant(db, attempt.tenant)
    except Refused:
        await passwords.verify_password(None, attempt.password)
        raise refusal() from None
    email = normal_email(attempt.email)
    async with db.transaction(tenant) as tx:
        (rows,) = await tx.run((_CREDENTIAL, (tenant, email)))
        found = _read(rows.first())
        if found is not None:
            _check_delay(found, policy)
        fits = await passwords.verify_password(
            found.password_hash if found else None, attempt.password
        )
        step = _second_factor(found, attempt.totp) if found and fits else None
        if found is None or not fits or found.state != "active" or step is None:
            await _note_failure(tx, tenant, found, request_id)
            missing = (
                fits and found is not None and found.state == "active" and attempt.totp is None
            )
        else:
            return await _open(
                tx, tenant, found, attempt, policy, request_id=request_id, step=step, label=label
            )
    if missing:
        raise Unauthenticated("Send the six-digit code as totp.", code="session.totp_required")
    raise refusal()


async def _tenant(db: Database, slug: str) -> UUID:
    """A tenant by slug; one that was made a moment ago is asked for before it is refused."""
    with contextlib.suppress(Refused):
        return db.routes.by_slug(slug).tenant
    await db.routes.refresh()
    return db.routes.by_slug(slug).tenant


async def _open(
    tx: Transaction,
    tenant: UUID,
    found: _Found,
    attempt: Attempt,
    policy: Login,
    *,
    request_id: UUID,
    step: tuple[int, bytes],
    label: str,
) -> SignedIn:
    (rows,) = await tx.run((_PROFILES, (tenant, found.person)))
    profiles = [(UUID((i or b"").decode()), (k or b"").decode()) for i, k in rows]
    chosen = next((p for p in profiles if attempt.profile in (None, p[1])), None)
    if chosen is None:
        await tx.run(
            *audit_calls(tenant, "session.refused", actor=found.person, request_id=request_id,
                         outcome="no_membership"), commit=True,
        )  # fmt: skip
        raise refusal()
    token, secret_hash = make_token("nxs", tenant)
    ends = expires(policy.session_hours)
    session = uuid7()
    calls = [
        (_PASSED, (tenant, found.person, step[0], step[1])),
        (
            _INSERT,
            (tenant, secret_hash, session, found.person, chosen[0], label[:120], found.epoch, ends),
        ),
        *audit_calls(
            tenant, "session.opened", actor=found.person, subject=session, request_id=request_id
        ),
    ]
    if found.password_hash and passwords.needs_rehash(found.password_hash):
        fresh = await passwords.hash_password(attempt.password)
        calls.append((_REHASH, (tenant, found.person, fresh)))
    await tx.run(*calls)
    return SignedIn(token, ends, attempt.tenant, chosen[1], found.must_change)


def _second_factor(found: _Found, given: str | None) -> tuple[int, bytes] | None:
    """The time step (and recovery hash) to store; None when the second factor does not fit."""
    if found.totp_secret is None:
        return found.totp_step, b""
    if given is None:
        return None
    step = totp.verify(found.totp_secret, given, found.totp_step)
    if step is not None:
        return step, b""
    used = totp.recovery_hash(given)
    return (found.totp_step, used) if used in found.recovery else None


def _check_delay(found: _Found, policy: Login) -> None:
    beyond = found.failures - policy.failures_before_delay
    if beyond < 0:
        return
    wait = min(DELAY_MAX_S, 2 ** min(beyond, 20)) - found.failed_s
    if wait > 0:
        raise Limited(
            "Too many failed attempts for this account; wait and try again.",
            code="session.delayed",
            retry_after_s=int(wait) + 1,
        )


async def _note_failure(
    tx: Transaction, tenant: UUID, found: _Found | None, request_id: UUID
) -> None:
    actor = found.person if found else None
    calls = audit_calls(
        tenant, "session.refused", actor=actor, request_id=request_id, outcome="refused"
    )
    if found is not None:
        calls.append((_FAILED, (tenant, found.person)))
    await tx.run(*calls)


def _read(row: tuple[bytes | None, ...] | None) -> _Found | None:
    if row is None:
        return None
    text = [v.decode() if v is not None else None for v in row]
    recovery = tuple(bytes.fromhex(h[2:]) for h in (text[9] or "").split(",") if h)
    return _Found(
        UUID(text[0] or ""), text[1], bytes.fromhex(text[2][2:]) if text[2] else None,
        int(text[3] or 0), text[4] or "", int(text[5] or 0), float(text[6] or 1e9),
        int(text[7] or 0), text[8] == "t", recovery,
    )  # fmt: skip


def refusal() -> Unauthenticated:
    """The one answer to every wrong sign-in."""
    return Unauthenticated(
        "Tenant, address, password or code do not fit together.", code="session.refused"
    )


def normal_email(email: str) -> str:
    """Addresses compare without case."""
    return email.strip().casefold()[:254]
