"""A person's own secrets: password, one-time codes of an authenticator, recovery codes.

Whoever holds a session does not thereby hold the password: every change here asks for it, and a
wrong one is braked as at sign-in. No row stays locked while a password is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from appliance.access import delay, passwords, totp
from appliance.access.sessions import LOGINS, end_all_call
from appliance.audit import audit_calls
from appliance.base.errors import Clash, FieldFault, Invalid
from appliance.base.settings import Login
from appliance.db.database import Database
from appliance.db.wire import Call, Statement
from appliance.kernel.context import Ctx

_HELD = Statement(
    "SELECT password_hash, email, totp_secret, totp_step, failures, "
    "coalesce(extract(epoch FROM now() - failed_at), 1e9)::float8 FROM credential "
    "WHERE tenant_id = $1 AND person_id = $2 AND state = 'active'"
)
_FAILED = Statement(
    "UPDATE credential SET failures = failures + 1, failed_at = now() "
    "WHERE tenant_id = $1 AND person_id = $2"
)
# The stored password is named, so that of two changes at once the second finds it gone.
_PASSWORD = Statement(
    "UPDATE credential SET password_hash = $4, must_change = false, failures = 0, "
    "failed_at = NULL, updated_at = now() "
    "WHERE tenant_id = $1 AND person_id = $2 AND password_hash = $3"
)
_TOTP = Statement(
    "UPDATE credential SET totp_secret = $4, totp_step = $5, recovery_hashes = $6::bytea[], "
    "failures = 0, failed_at = NULL, updated_at = now() "
    "WHERE tenant_id = $1 AND person_id = $2 AND totp_step = $3"
)
_turns = delay.Turns()


class Begun(msgspec.Struct, frozen=True):
    """A secret for an authenticator program; it counts only after it was confirmed."""

    secret: str
    uri: str


class _Held(msgspec.Struct, frozen=True):
    password_hash: str | None
    email: str
    totp_secret: bytes | None
    totp_step: int
    failures: int
    failed_s: float


async def change_password(db: Database, ctx: Ctx, current: str, fresh: str, policy: Login) -> None:
    """Set a new password; all other sessions of the person end. Raises Invalid, Limited, Clash."""
    held = await _prove(db, ctx, current, policy)
    passwords.check_strength(
        fresh, policy.password_chars_min, pointer="/password", known=held.email
    )
    if passwords.normal(fresh) == passwords.normal(current):
        raise _wrong(
            "/password", "password_same", "Choose a password that differs from the current one."
        )
    stored = await passwords.hash_password(fresh)
    await _change(
        db, ctx, "password.changed",
        (_PASSWORD, (ctx.tenant, ctx.actor, held.password_hash, stored)),
        end_all_call(ctx, ctx.actor, "password_changed", keep=ctx.session, sorts=LOGINS),
    )  # fmt: skip


async def begin_totp(db: Database, ctx: Ctx, slug: str) -> Begun:
    """A fresh secret; nothing is stored yet."""
    held = await _read(db, ctx)
    secret = totp.new_secret()
    return Begun(secret.decode(), totp.provisioning_uri(secret, held.email, slug))


async def confirm_totp(
    db: Database, ctx: Ctx, proof: tuple[str, str, str], policy: Login
) -> list[str]:
    """From now on sign-in asks for a code. `proof`: password, secret, a code of it.

    The recovery codes are shown this once. Raises Invalid, Limited, Clash.
    """
    password, secret, code = proof
    held = await _prove(db, ctx, password, policy)
    if held.totp_secret is not None:
        raise Clash("There is a second factor already; remove it first.", code="account.totp_set")
    text = secret.encode("ascii", "replace")
    is_base32 = len(text) == 32 and all(c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" for c in text)
    step = totp.verify(text, code, 0) if is_base32 else None
    if step is None:
        raise _wrong("/code", "code_wrong", "The code does not fit the secret; check the clock.")
    codes = totp.recovery_codes()
    await _change(db, ctx, "totp.confirmed", _totp_call(ctx, held, text, step, codes))
    return codes


async def remove_totp(db: Database, ctx: Ctx, password: str, code: str, policy: Login) -> None:
    """Sign-in asks for the password alone again. Raises Invalid, Limited, Clash."""
    held = await _prove(db, ctx, password, policy)
    if held.totp_secret is None:
        return
    step = await _prove_code(db, ctx, held, code)
    await _change(db, ctx, "totp.removed", _totp_call(ctx, held, None, step, []))


async def renew_recovery_codes(
    db: Database, ctx: Ctx, password: str, code: str, policy: Login
) -> list[str]:
    """Fresh recovery codes; the old ones are void. Raises Invalid, Limited, Clash."""
    held = await _prove(db, ctx, password, policy)
    if held.totp_secret is None:
        raise Clash("There is no second factor to recover.", code="account.totp_missing")
    step = await _prove_code(db, ctx, held, code)
    codes = totp.recovery_codes()
    await _change(
        db, ctx, "totp.codes_renewed", _totp_call(ctx, held, held.totp_secret, step, codes)
    )
    return codes


def _totp_call(
    ctx: Ctx, held: _Held, secret: bytes | None, step: int, codes: Sequence[str]
) -> Call:
    hashes = [totp.recovery_hash(c) for c in codes]
    return _TOTP, (ctx.tenant, ctx.actor, held.totp_step, secret, step, hashes)


async def _change(db: Database, ctx: Ctx, action: str, *calls: Call) -> None:
    """Run a change and its event; the first call finds nothing when another was quicker."""
    async with db.transaction(ctx.tenant) as tx:
        done, *_ = await tx.run(*calls, *_audit(ctx, action))
        if not done.affected:
            raise Clash("Your sign-in was changed at this moment elsewhere; look and repeat.")


async def _prove(db: Database, ctx: Ctx, password: str, policy: Login) -> _Held:
    """The password of the one who asks, checked and braked. Raises Invalid, Limited."""
    async with _turns.of(ctx.actor.bytes[::-1]):
        held = await _read(db, ctx)
        delay.check(held.failures, held.failed_s, policy)
        if await passwords.verify_password(held.password_hash, password):
            return held
        await _note_failure(db, ctx, "password.refused")
    raise _wrong("/current_password", "password_wrong", "This is not your current password.")


async def _prove_code(db: Database, ctx: Ctx, held: _Held, code: str) -> int:
    """A present code of the authenticator. Raises Invalid."""
    step = totp.verify(held.totp_secret or b"", code, held.totp_step)
    if step is None:
        await _note_failure(db, ctx, "totp.refused")
        raise _wrong("/code", "code_wrong", "The code is wrong or was used already.")
    return step


async def _note_failure(db: Database, ctx: Ctx, action: str) -> None:
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(
            (_FAILED, (ctx.tenant, ctx.actor)), *_audit(ctx, action, "refused"), commit=True
        )


async def _read(db: Database, ctx: Ctx) -> _Held:
    (rows,) = await db.read(ctx.tenant, (_HELD, (ctx.tenant, ctx.actor)))
    row = rows.first()
    if row is None or ctx.staff_grant is not None:
        raise _wrong("", "no_credential", "There is no sign-in for this account here.")
    text = [v.decode() if v is not None else None for v in row]
    return _Held(
        text[0], text[1] or "", bytes.fromhex(text[2][2:]) if text[2] else None,
        int(text[3] or 0), int(text[4] or 0), float(text[5] or 0),
    )  # fmt: skip


def _audit(ctx: Ctx, action: str, outcome: str = "done") -> list[Call]:
    return audit_calls(
        ctx.tenant, action, actor=ctx.actor, subject=ctx.actor, request_id=ctx.request_id,
        outcome=outcome,
    )  # fmt: skip


def _wrong(pointer: str, code: str, detail: str) -> Invalid:
    return Invalid(detail, code=f"account.{code}", faults=(FieldFault(pointer, code, detail),))
