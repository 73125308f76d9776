"""Platform staff: a scope of their own in the control plane, with no way into a tenant by itself.

They sign in with password and a time-based code (both always), ask a tenant to be let in with a
reason, and enter under a live grant of that tenant. What they then hold is an ordinary session
of the tenant that ends with the grant; the tenant's audit shows request, grant, entry, each use
and the end (mission A5).
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from uuid import UUID

import msgspec

from appliance.access import delay, passwords, totp
from appliance.access.bounds import check_range, check_text
from appliance.access.grants import HOURS_MAX
from appliance.access.login import SignedIn, normal_email, refusal
from appliance.access.session import ended, expires
from appliance.access.tokens import make_staff_token, make_token, read_staff_token
from appliance.audit import audit_calls
from appliance.base import logs
from appliance.base.errors import ApplianceError, Clash, Refused
from appliance.base.ids import uuid7
from appliance.base.settings import Login
from appliance.db.database import Database, translated
from appliance.db.wire import Param, Statement

SESSION_HOURS = 8
_REQUEST = Statement(
    "INSERT INTO staff_request (tenant_id, id, staff_id, staff_name, reason, hours) "
    "VALUES ($1, $2, $3, $4, $5, $6)"
)
_ENTRIES = Statement(
    "SELECT g.id::text, coalesce(p.data->>'key', ''), g.reason, "
    "to_char(g.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM staff_grant g "
    "LEFT JOIN record p ON p.tenant_id = g.tenant_id AND p.id = g.profile_id WHERE g.tenant_id = $1 "
    "AND g.staff_id = $2 AND g.revoked_at IS NULL AND g.expires_at > now() ORDER BY g.granted_at"
)
# The end is the grant's own, or that of a working day: whichever comes first.
_ENTER = Statement(
    "INSERT INTO session (tenant_id, secret_hash, id, person_id, profile_id, sort, label, unit_ids, "
    "epoch, expires_at, staff_grant_id) SELECT g.tenant_id, $4, $5, g.staff_id, g.profile_id, "
    "'staff', g.staff_name, coalesce(g.unit_ids, '{}'), 0, least(g.expires_at, $6::timestamptz), g.id "
    "FROM staff_grant g WHERE g.tenant_id = $1 AND g.id = $2 AND g.staff_id = $3 "
    "AND g.revoked_at IS NULL AND g.expires_at > now() "
    "RETURNING to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US+00:00'), "
    "profile_id::text"
)
_SHUT = (
    Statement("UPDATE staff_grant SET revoked_at = now() WHERE tenant_id = $1 AND staff_id = $2 "
              "AND revoked_at IS NULL AND expires_at > now()"),
    Statement("UPDATE session SET ended_at = now(), ended_reason = 'staff_suspended' "
              "WHERE tenant_id = $1 AND person_id = $2 AND sort = 'staff' AND ended_at IS NULL"),
)  # fmt: skip
_turns = delay.Turns()
_strangers = delay.Strangers()


class Staff(msgspec.Struct, frozen=True):
    """One of the platform's staff, signed in."""

    id: UUID
    email: str
    name: str


class StaffSignedIn(msgspec.Struct, frozen=True):
    """The token of the platform's scope; it opens no tenant."""

    token: str
    expires_at: datetime
    name: str


class NewStaff(msgspec.Struct, frozen=True):
    """A fresh account; the secret and its URI are shown this once."""

    id: UUID
    totp_secret: str
    totp_uri: str


class Entry(msgspec.Struct, frozen=True):
    """A grant under which a tenant may be entered now."""

    grant: UUID
    profile: str
    reason: str
    expires_at: datetime


async def create_staff(
    db: Database, email: str, name: str, password: str, policy: Login
) -> NewStaff:
    """An account of the platform's staff. Raises Invalid, Clash."""
    address = normal_email(email)
    check_text(name, "/name")
    passwords.check_strength(
        password, policy.password_chars_min, pointer="/password", known=address
    )
    secret, ident = totp.new_secret(), uuid7()
    stored = await passwords.hash_password(password)
    made = await _control(
        db,
        "INSERT INTO staff (id, email, name, password_hash, totp_secret) VALUES (%s, %s, %s, %s, %s) "
        "ON CONFLICT DO NOTHING RETURNING id",
        ident, address, name, stored, secret,
    )  # fmt: skip
    if made is None:
        raise Clash("One of the staff has this address already.", code="staff.email_taken")
    logs.event("staff.created", actor=ident)
    return NewStaff(ident, secret.decode(), totp.provisioning_uri(secret, address, "platform"))


async def find_staff(db: Database, email: str) -> UUID | None:
    """The account of an address."""
    row = await _control(db, "SELECT id FROM staff WHERE email = %s", normal_email(email))
    return row[0] if row is not None and isinstance(row[0], UUID) else None


async def staff_sign_in(
    db: Database, email: str, password: str, code: str, policy: Login
) -> StaffSignedIn:
    """Sign in to the platform's scope. Raises Unauthenticated, Limited."""
    address = normal_email(email)
    key = sha256(address.encode("utf-8", "replace")).digest()
    async with _turns.of(key):
        row = await _control(
            db,
            "SELECT id, password_hash, totp_secret, totp_step, state, failures, name, "
            "coalesce(extract(epoch FROM now() - failed_at), 1e9)::float8 FROM staff WHERE email = %s",
            address,
        )
        if row is None:
            _strangers.check(key, policy)
            await passwords.verify_password(None, password)
            _strangers.note_failure(key)
            raise refusal()
        ident, stored, secret, last, state, failures, name, age = row
        delay.check(int(str(failures)), float(str(age)), policy)
        fits = await passwords.verify_password(str(stored), password)
        step = (
            totp.verify(bytes(secret), code, int(str(last))) if isinstance(secret, bytes) else None
        )
        if fits and step is not None and state == "active":
            passed = await _control(
                db,
                "UPDATE staff SET totp_step = %s, failures = 0, failed_at = NULL WHERE id = %s "
                "AND totp_step < %s AND state = 'active' RETURNING id",
                step, ident, step,
            )  # fmt: skip
            if passed is not None:
                return await _open(db, ident, str(name))
        await _control(
            db, "UPDATE staff SET failures = failures + 1, failed_at = now() WHERE id = %s", ident
        )
        logs.event("staff.sign_in_refused", level="warning", actor=ident)
        raise refusal()


async def staff_of(db: Database, token: str) -> Staff:
    """Who holds a token, read anew each time. Raises Unauthenticated."""
    secret_hash = read_staff_token(token)
    row = await _control(
        db,
        "SELECT s.id, s.email, s.name FROM staff_session t JOIN staff s ON s.id = t.staff_id "
        "WHERE t.secret_hash = %s AND t.ended_at IS NULL AND t.expires_at > now() "
        "AND s.state = 'active'",
        secret_hash,
    )
    if secret_hash is None or row is None:
        raise ended()
    return Staff(*msgspec.convert(row, tuple[UUID, str, str]))


async def staff_sign_out(db: Database, token: str) -> None:
    """End the platform session; sessions inside tenants end with their grants."""
    await _control(
        db,
        "UPDATE staff_session SET ended_at = now() WHERE secret_hash = %s AND ended_at IS NULL",
        read_staff_token(token),
    )


async def request_entry(db: Database, staff: Staff, slug: str, reason: str, hours: int) -> UUID:
    """Ask a tenant to be let in; the tenant sees it at once. Raises Invalid, Refused."""
    check_text(reason, "/reason")
    check_range(hours, HOURS_MAX, "/hours")
    tenant, ident = db.routes.by_slug(slug).tenant, uuid7()
    async with db.transaction(tenant) as tx:
        await tx.run(
            (_REQUEST, (tenant, ident, staff.id, staff.name, reason, hours)),
            *audit_calls(tenant, "staff.requested", actor=staff.id, subject=ident,
                         details={"hours": hours}),
            commit=True,
        )  # fmt: skip
    return ident


async def list_entries(db: Database, staff: Staff, slug: str) -> list[Entry]:
    """The grants under which this one may enter a tenant now."""
    tenant = db.routes.by_slug(slug).tenant
    (rows,) = await db.read(tenant, (_ENTRIES, (tenant, staff.id)))
    found = []
    for row in rows:
        text = [(v or b"").decode() for v in row]
        found.append(Entry(UUID(text[0]), text[1], text[2], datetime.fromisoformat(text[3])))
    return found


async def enter_tenant(
    db: Database, staff: Staff, slug: str, grant: UUID, request_id: UUID
) -> SignedIn:
    """A session in a tenant under a live grant of it. Raises Refused."""
    tenant = db.routes.by_slug(slug).tenant
    token, secret_hash = make_token("nxs", tenant)
    session = uuid7()
    async with db.transaction(tenant) as tx:
        params: tuple[Param, ...] = (
            tenant, grant, staff.id, secret_hash, session, expires(SESSION_HOURS),
        )  # fmt: skip
        made, *_ = await tx.run(
            (_ENTER, params),
            *audit_calls(tenant, "staff.entered", actor=staff.id, subject=session,
                         request_id=request_id, details={"grant": str(grant)}),
        )  # fmt: skip
        row = made.first()
        if row is None:
            raise Refused(
                "There is no live grant of this tenant for you.", code="staff.unknown_grant"
            )
    ends = datetime.fromisoformat((row[0] or b"").decode())
    return SignedIn(token, ends, slug, (row[1] or b"").decode(), must_change_password=False)


async def suspend_staff(db: Database, ident: UUID) -> list[str]:
    """End everything of one of the staff, in every tenant; slugs of tenants not reached.

    The account goes first, so that nothing new is opened; repeat it for what was not reached.
    """
    await _control(db, "UPDATE staff SET state = 'suspended' WHERE id = %s", ident)
    await _control(
        db,
        "UPDATE staff_session SET ended_at = now() WHERE staff_id = %s AND ended_at IS NULL",
        ident,
    )
    missed = []
    # A closed tenant is never opened again: whatever is left in it lets nobody in.
    for route in (r for r in db.routes.all() if r.state != "closed"):
        try:
            async with db.transaction(route.tenant) as tx:
                ended, *_ = await tx.run(*((s, (route.tenant, ident)) for s in _SHUT))
                if ended.affected:
                    await tx.run(*audit_calls(route.tenant, "staff.suspended", actor=ident,
                                              details={"grants": ended.affected}))  # fmt: skip
        except ApplianceError as error:
            missed.append(route.slug)
            logs.event("staff.tenant_missed", level="error", tenant=route.tenant, code=error.code)
    logs.event("staff.suspended", actor=ident, count=len(missed))
    return missed


async def _open(db: Database, ident: object, name: str) -> StaffSignedIn:
    token, secret_hash = make_staff_token()
    ends = expires(SESSION_HOURS)
    await _control(
        db,
        "INSERT INTO staff_session (secret_hash, staff_id, expires_at) VALUES (%s, %s, %s)",
        secret_hash, ident, ends,
    )  # fmt: skip
    logs.event("staff.signed_in", actor=ident)
    return StaffSignedIn(token, ends, name)


async def _control(db: Database, text: str, *params: object) -> tuple[object, ...] | None:
    """One statement in the control plane, committed at once; its first row, if it gives rows."""
    with translated():
        async with db.control.connection() as conn:
            cursor = await conn.execute(text.encode(), params)
            row = await cursor.fetchone() if cursor.description else None
    return row if isinstance(row, tuple) else None
