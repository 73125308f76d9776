"""A person's own secrets: password, one-time codes of an authenticator, recovery codes.

Whoever holds a session does not thereby hold the password: every change here asks for it, and a
wrong one is braked as at sign-in.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from appliance.access import passwords, totp
from appliance.audit import audit_calls
from appliance.base.errors import FieldFault, Invalid, Limited
from appliance.base.settings import Login
from appliance.db.database import Database, Transaction
from appliance.db.wire import Call, Statement
from appliance.http.accounts.sessions import LOGINS, end_all_call
from appliance.kernel.context import Ctx

_LOCK = Statement(
    "SELECT password_hash, email, totp_secret, failures, totp_step, "
    "coalesce(extract(epoch FROM now() - failed_at), 1e9)::bigint FROM credential "
    "WHERE tenant_id = $1 AND person_id = $2 FOR UPDATE"
)
_FAILED = Statement(
    "UPDATE credential SET failures = failures + 1, failed_at = now() "
    "WHERE tenant_id = $1 AND person_id = $2"
)
_PASSWORD = Statement(
    "UPDATE credential SET password_hash = $3, must_change = false, failures = 0, failed_at = NULL "
    "WHERE tenant_id = $1 AND person_id = $2"
)
_TOTP = Statement(
    "UPDATE credential SET totp_secret = $3, totp_step = $4, recovery_hashes = $5::bytea[], "
    "failures = 0, failed_at = NULL WHERE tenant_id = $1 AND person_id = $2"
)
DELAY_MAX_S = 900


class Begun(msgspec.Struct, frozen=True):
    """A secret for an authenticator program; it counts only after it was confirmed."""

    secret: str
    uri: str


class _Held(msgspec.Struct, frozen=True):
    password_hash: str | None
    email: str
    totp_secret: bytes | None
    totp_step: int


async def change_password(db: Database, ctx: Ctx, current: str, fresh: str, policy: Login) -> None:
    """Set a new password; all other sessions of the person end. Raises Invalid, Limited."""
    held = await _prove(db, ctx, current, policy)
    passwords.check_strength(
        fresh, policy.password_chars_min, pointer="/password", known=held.email
    )
    if fresh == current:
        raise _wrong(
            "/password", "password_same", "Choose a password that differs from the current one."
        )
    stored = await passwords.hash_password(fresh)
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(
            (_PASSWORD, (ctx.tenant, ctx.actor, stored)),
            end_all_call(ctx, ctx.actor, "password_changed", keep=ctx.session, sorts=LOGINS),
            *_audit(ctx, "password.changed"),
        )


async def begin_totp(db: Database, ctx: Ctx, slug: str) -> Begun:
    """A fresh secret; nothing is stored yet."""
    async with db.transaction(ctx.tenant) as tx:
        held, _, _ = await _held(tx, ctx)
    secret = totp.new_secret()
    return Begun(secret.decode(), totp.provisioning_uri(secret, held.email, slug))


async def confirm_totp(
    db: Database, ctx: Ctx, proof: tuple[str, str, str], policy: Login
) -> list[str]:
    """From now on sign-in asks for a code. `proof`: password, secret, a code of it.

    The recovery codes are shown this once. Raises Invalid, Limited.
    """
    password, secret, code = proof
    await _prove(db, ctx, password, policy)
    text = secret.encode("ascii", "replace")
    is_base32 = len(text) == 32 and all(c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" for c in text)
    step = totp.verify(text, code, 0) if is_base32 else None
    if step is None:
        raise _wrong("/code", "code_wrong", "The code does not fit the secret; check the clock.")
    codes = totp.recovery_codes()
    hashes = [totp.recovery_hash(c) for c in codes]
    await _set_totp(db, ctx, (text, step, hashes), "totp.confirmed")
    return codes


async def remove_totp(db: Database, ctx: Ctx, password: str, code: str, policy: Login) -> None:
    """Sign-in asks for the password alone again. Raises Invalid, Limited."""
    held = await _prove(db, ctx, password, policy)
    if held.totp_secret is None:
        return
    if totp.verify(held.totp_secret, code, held.totp_step) is None:
        raise _wrong("/code", "code_wrong", "The code is wrong or was used already.")
    await _set_totp(db, ctx, (None, held.totp_step, []), "totp.removed")


async def _set_totp(
    db: Database, ctx: Ctx, values: tuple[bytes | None, int, Sequence[bytes]], action: str
) -> None:
    secret, step, hashes = values
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(
            (_TOTP, (ctx.tenant, ctx.actor, secret, step, list(hashes))), *_audit(ctx, action)
        )


async def _prove(db: Database, ctx: Ctx, password: str, policy: Login) -> _Held:
    """The password of the one who asks, checked and braked. Raises Invalid, Limited."""
    async with db.transaction(ctx.tenant) as tx:
        held, failures, failed_s = await _held(tx, ctx)
        beyond = failures - policy.failures_before_delay
        wait = min(DELAY_MAX_S, 2 ** min(beyond, 20)) - failed_s if beyond >= 0 else 0
        if wait > 0:
            raise Limited(
                "Too many wrong passwords; wait and try again.", retry_after_s=int(wait) + 1
            )
        if await passwords.verify_password(held.password_hash, password):
            return held
        await tx.run((_FAILED, (ctx.tenant, ctx.actor)), *_audit(ctx, "password.refused"))
    raise _wrong("/current_password", "password_wrong", "This is not your current password.")


async def _held(tx: Transaction, ctx: Ctx) -> tuple[_Held, int, int]:
    (rows,) = await tx.run((_LOCK, (ctx.tenant, ctx.actor)))
    row = rows.first()
    if row is None:
        raise _wrong("", "no_credential", "There is no sign-in for this account here.")
    text = [v.decode() if v is not None else None for v in row]
    secret = bytes.fromhex(text[2][2:]) if text[2] else None
    return (
        _Held(text[0], text[1] or "", secret, int(text[4] or 0)),
        int(text[3] or 0),
        int(text[5] or 0),
    )


def _audit(ctx: Ctx, action: str) -> list[Call]:
    return audit_calls(
        ctx.tenant, action, actor=ctx.actor, subject=ctx.actor, request_id=ctx.request_id
    )


def _wrong(pointer: str, code: str, detail: str) -> Invalid:
    return Invalid(detail, code=f"account.{code}", faults=(FieldFault(pointer, code, detail),))
