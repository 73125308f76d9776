"""Signing in. Unknown tenant, unknown address and wrong password read alike, in equal time.

No connection is held while a password is computed: what is known of the account is read first
and proved again under its lock before a session is made, so a code or a recovery code is good
once even for two attempts at the same moment. Every step is an audit event.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from hashlib import sha256
from uuid import UUID

import msgspec

from appliance.access import delay, passwords, totp
from appliance.access.memberships import Choice, choices_call, read_choices
from appliance.access.session import expires
from appliance.access.tokens import make_token
from appliance.audit import audit_calls
from appliance.base.clock import now
from appliance.base.errors import Refused, Unauthenticated, Unavailable
from appliance.base.ids import uuid7
from appliance.base.settings import Login
from appliance.db.database import Database, Transaction, translated
from appliance.db.wire import Call, Row, Statement

_COLUMNS = (
    "SELECT person_id::text, password_hash, totp_secret, totp_step, state, session_epoch, "
    "must_change, array_to_string(recovery_hashes, ',') FROM credential "
    "WHERE tenant_id = $1 AND email = $2"
)
_CREDENTIAL = Statement(_COLUMNS)
_LOCKED = Statement(f"{_COLUMNS} FOR UPDATE")
_PASSED = Statement(
    "UPDATE credential SET failures = 0, failed_at = NULL, totp_step = $3, "
    "recovery_hashes = array_remove(recovery_hashes, $4::bytea), "
    "password_hash = coalesce($5, password_hash) WHERE tenant_id = $1 AND person_id = $2"
)
_INSERT = Statement(
    "INSERT INTO session (tenant_id, secret_hash, id, person_id, profile_id, sort, label, epoch, "
    "expires_at) VALUES ($1, $2, $3, $4, $5, 'login', $6, $7, $8)"
)
# On a node that holds a part of a tenant: how long ago it was told who may sign in.
_HEARD = Statement(
    "SELECT extract(epoch FROM now() - heard_at)::bigint / 86400 FROM hold WHERE tenant_id = $1"
)
_turns = delay.Turns()
_strangers = delay.Strangers()


class SignedIn(msgspec.Struct, frozen=True):
    """The answer to a sign-in. The token is shown this once. `stale_days`: this node has not heard
    from its hub for so long that somebody let in here may have been shut out there; else 0.
    """

    token: str
    expires_at: datetime
    tenant: str
    profile: str
    must_change_password: bool
    stale_days: int = 0


class Attempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person sends to sign in. `totp` is a six-digit code or a recovery code."""

    tenant: str
    email: str
    password: str
    totp: str | None = None
    profile: str | None = None


class Account(msgspec.Struct, frozen=True):
    """What signs a person in."""

    person: UUID
    password_hash: str | None
    totp_secret: bytes | None
    totp_step: int
    state: str
    epoch: int
    must_change: bool
    recovery: tuple[bytes, ...]


class _Try(msgspec.Struct, frozen=True):
    """One attempt, with what it is counted under and noted with."""

    given: Attempt
    tenant: UUID
    email: str
    address: bytes
    request_id: UUID
    label: str
    policy: Login


async def sign_in(
    db: Database, attempt: Attempt, policy: Login, request_id: UUID, *, label: str = ""
) -> SignedIn:
    """A new session. Raises Unauthenticated, Limited."""
    email = normal_email(attempt.email)
    try:
        tenant = await _find_tenant(db, attempt.tenant)
    except Refused:
        await _refuse_stranger(attempt, email, policy)
        raise refusal() from None
    address = delay.address_hash(tenant, email)
    tried = _Try(attempt, tenant, email, address, request_id, label[:120], policy)
    async with _turns.of(address):
        rows, delays, heard = await db.read(
            tenant, (_CREDENTIAL, (tenant, email)), delay.read_call(tenant, address),
            (_HEARD, (tenant,)),
        )  # fmt: skip
        delay.check_rows(delays, policy)
        account = read_account(rows.first())
        stored = account.password_hash if account else None
        fits = await passwords.verify_password(stored, attempt.password)
        if account is None or not fits or account.state != "active":
            await _note_failure(db, tried, account.person if account else None)
            raise refusal()
        if account.totp_secret is not None and attempt.totp is None:
            raise Unauthenticated("Send the six-digit code as totp.", code="session.totp_required")
        stale = _check_fresh(heard.first(), policy)
        fresh = await _rehashed(account, attempt.password)
        async with db.transaction(tenant) as tx:
            found = await _open(tx, tried, account, fresh)
        if found is None:
            await _note_failure(db, tried, account.person)
            raise refusal()
        return msgspec.structs.replace(found, stale_days=stale)


def _check_fresh(row: Row | None, policy: Login) -> int:
    """Days without a word from the hub, if they are too many. Raises Unavailable by policy."""
    days = int(row[0] or 0) if row is not None else 0
    if days <= policy.stale_days:
        return 0
    if policy.stale_refuse:
        raise Unavailable(
            f"This branch has not heard from its head office for {days} days and lets nobody in; "
            "restore the connection.", dependency="hub", code="session.site_stale",
        )  # fmt: skip
    return days


async def _find_tenant(db: Database, slug: str) -> UUID:
    """A tenant by slug; one that was made a moment ago is asked for before it is refused."""
    with contextlib.suppress(Refused):
        return db.routes.by_slug(slug).tenant
    with translated():
        await db.routes.refresh()
    return db.routes.by_slug(slug).tenant


async def _open(
    tx: Transaction, tried: _Try, proved: Account, fresh: str | None
) -> SignedIn | None:
    """Make the session, if the account is still the one whose password was proved."""
    tenant, given = tried.tenant, tried.given
    locked, profiles = await tx.run(
        (_LOCKED, (tenant, tried.email)), choices_call(tenant, proved.person)
    )
    account = read_account(locked.first())
    if account is None or not _is_same(account, proved):
        return None
    step = check_second_factor(account, given.totp)
    chosen = choose(read_choices(profiles, now()), given.profile)
    if step is None or chosen is None:
        return None
    token, secret_hash = make_token("nxs", tenant)
    ends, session = expires(tried.policy.session_hours), uuid7()
    await tx.run(
        (_PASSED, (tenant, account.person, step[0], step[1], fresh)),
        session_call(tenant, (secret_hash, session), account, chosen, tried.label, ends),
        *delay.passed_calls(tenant, tried.address),
        *audit_calls(tenant, "session.opened", actor=account.person, subject=session,
                     request_id=tried.request_id,
                     details={"profile": chosen.key, "recovery_code": bool(step[1])}),
        commit=True,
    )  # fmt: skip
    return SignedIn(token, ends, given.tenant, chosen.key, account.must_change)


def session_call(
    tenant: UUID,
    named: tuple[bytes, UUID],
    account: Account,
    chosen: Choice,
    label: str,
    ends: datetime,
) -> Call:
    """Insert a session of a person under a profile. `named`: hash of the secret, id."""
    person, epoch = account.person, account.epoch
    return _INSERT, (tenant, *named, person, chosen.profile, label, epoch, ends)


def choose(found: list[Choice], key: str | None) -> Choice | None:
    """The profile of that key, or the first."""
    return next((c for c in found if key in (None, c.key)), None)


def check_second_factor(account: Account, given: str | None) -> tuple[int, bytes] | None:
    """The time step (and recovery hash) to store; None when the second factor does not fit."""
    if account.totp_secret is None:
        return account.totp_step, b""
    if given is None:
        return None
    step = totp.verify(account.totp_secret, given, account.totp_step)
    if step is not None:
        return step, b""
    used = totp.recovery_hash(given)
    return (account.totp_step, used) if used in account.recovery else None


def _is_same(account: Account, proved: Account) -> bool:
    return (
        account.state == "active"
        and account.person == proved.person
        and account.password_hash == proved.password_hash
        and account.epoch == proved.epoch
        and (account.totp_secret is None) == (proved.totp_secret is None)
    )


async def _rehashed(account: Account, password: str) -> str | None:
    """The password in today's parameters, when it is stored in older ones."""
    stale = account.password_hash is not None and passwords.needs_rehash(account.password_hash)
    return await passwords.hash_password(password) if stale else None


async def _refuse_stranger(attempt: Attempt, email: str, policy: Login) -> None:
    """The same work and the same brake where there is no tenant to count in."""
    key = sha256(f"{attempt.tenant}\n{email}".encode("utf-8", "replace")).digest()
    async with _turns.of(key):
        _strangers.check(key, policy)
        await passwords.verify_password(None, attempt.password)
        _strangers.note_failure(key)


async def _note_failure(db: Database, tried: _Try, person: UUID | None) -> None:
    async with db.transaction(tried.tenant) as tx:
        await tx.run(
            delay.failed_call(tried.tenant, tried.address),
            *audit_calls(tried.tenant, "session.refused", actor=person, outcome="refused",
                         request_id=tried.request_id),
            commit=True,
        )  # fmt: skip


def read_account(row: Row | None) -> Account | None:
    """A row of the credential; None for none."""
    if row is None:
        return None
    text = [v.decode() if v is not None else None for v in row]
    recovery = tuple(bytes.fromhex(h[2:]) for h in (text[7] or "").split(",") if h)
    return Account(
        UUID(text[0] or ""), text[1], bytes.fromhex(text[2][2:]) if text[2] else None,
        int(text[3] or 0), text[4] or "", int(text[5] or 0), text[6] == "t", recovery,
    )  # fmt: skip


def refusal() -> Unauthenticated:
    """The one answer to every wrong sign-in."""
    return Unauthenticated(
        "Tenant, address, password or code do not fit together.", code="session.refused"
    )


def normal_email(email: str) -> str:
    """Addresses compare without case."""
    return email.strip().casefold()[:254]
