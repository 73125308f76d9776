"""Work under another of one's own profiles: a new token, because rights change with it.

A session has one profile, never the sum of several, so that what somebody does as a bookkeeper
is not done with an administrator's rights. The new session ends when the old one would have.
"""

from __future__ import annotations

from datetime import datetime

from appliance.access.login import SignedIn, choose
from appliance.access.memberships import Choice, choices_call, read_choices
from appliance.access.session import ended
from appliance.access.tokens import make_token
from appliance.audit import audit_calls
from appliance.base.clock import now
from appliance.base.errors import Clash, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx

# Only a login switches: a key and a staff session have the one profile they were made with.
_INSERT = Statement(
    "INSERT INTO session (tenant_id, secret_hash, id, person_id, profile_id, sort, label, epoch, "
    "expires_at) SELECT tenant_id, $3, $4, person_id, $5, sort, label, epoch, expires_at "
    "FROM session WHERE tenant_id = $1 AND id = $2 AND sort = 'login' AND ended_at IS NULL "
    "AND expires_at > now() FOR UPDATE "
    "RETURNING to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US+00:00')"
)
_END = Statement(
    "UPDATE session SET ended_at = now(), ended_reason = 'switched' "
    "WHERE tenant_id = $1 AND id = $2 AND ended_at IS NULL"
)
_MUST_CHANGE = Statement(
    "SELECT must_change FROM credential WHERE tenant_id = $1 AND person_id = $2"
)


async def choices(db: Database, ctx: Ctx) -> list[Choice]:
    """The profiles one may work under today."""
    (rows,) = await db.read(ctx.tenant, choices_call(ctx.tenant, ctx.actor))
    return read_choices(rows, now())


async def switch_profile(db: Database, ctx: Ctx, key: str) -> SignedIn:
    """A session under another profile; the present one ends with it.

    Raises Refused for a profile that is not one's own, Clash for a key or a staff session.
    """
    if ctx.session is None or ctx.staff_grant is not None:
        raise _fixed()
    async with db.transaction(ctx.tenant) as tx:
        rows, must_change = await tx.run(
            choices_call(ctx.tenant, ctx.actor), (_MUST_CHANGE, (ctx.tenant, ctx.actor))
        )
        chosen = choose(read_choices(rows, now()), key)
        if chosen is None:
            raise Refused("There is no such profile for you.", code="profile.unknown")
        token, secret_hash = make_token("nxs", ctx.tenant)
        fresh = uuid7()
        made, closed, *_ = await tx.run(
            (_INSERT, (ctx.tenant, ctx.session, secret_hash, fresh, chosen.profile)),
            (_END, (ctx.tenant, ctx.session)),
            *audit_calls(ctx.tenant, "session.switched", actor=ctx.actor, subject=fresh,
                         request_id=ctx.request_id,
                         details={"from": ctx.profile.key, "profile": chosen.key}),
        )  # fmt: skip
        row = made.first()
        if row is None:
            raise _fixed() if closed.affected else ended()
        ends = datetime.fromisoformat((row[0] or b"").decode())
    slug = db.routes.of(ctx.tenant, read=True).slug
    first = must_change.first()
    return SignedIn(token, ends, slug, chosen.key, bool(first and first[0] == b"t"))


def _fixed() -> Clash:
    return Clash(
        "A key has the one profile it was made with; make another key for another profile.",
        code="session.fixed_profile",
    )
