"""Who is asking: from a token to a context, checked against the database on every request.

A process keeps what it compiled of a session (rights, schema, units), but never trusts it by
time: `SessionGuard` puts one small statement into the round trip of the request itself, which
reads whether the session lives and at which revisions rights and schema are. A revoked right
therefore fails on the very next request of every process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

import msgspec

from appliance.access.load import Loaded, load_calls, read_loaded
from appliance.access.tokens import read_token
from appliance.audit import audit_if_calls
from appliance.base.clock import now
from appliance.base.errors import ApplianceError, Forbidden, Refused, Unauthenticated
from appliance.db.database import Database
from appliance.db.wire import Call, Row, Rows, Statement
from appliance.kernel.context import Ctx, Door
from appliance.meta import load_schema

CACHED_SESSIONS_MAX = 5_000
SEEN_EVERY_S = 60
_TRIES = 3

# Tenant state, both revisions, whether the session lives, seconds since it was last seen, whether
# its person still has the password that somebody else made for them.
SESSION_CHECK = Statement(
    "SELECT t.state, t.schema_rev, t.rights_rev, s.ended_at IS NULL AND s.expires_at > now() "
    "AND (s.sort = 'api_key' OR s.seen_at > now() - make_interval(mins => $3)) "
    "AND CASE s.sort WHEN 'staff' THEN g.revoked_at IS NULL AND g.expires_at > now() "
    "ELSE c.state = 'active' AND c.session_epoch = s.epoch END, "
    "extract(epoch FROM now() - s.seen_at)::int, s.sort = 'login' AND c.must_change "
    "FROM tenant_state t LEFT JOIN session s ON s.tenant_id = t.tenant_id AND s.secret_hash = $2 "
    "LEFT JOIN credential c ON c.tenant_id = s.tenant_id AND c.person_id = s.person_id "
    "LEFT JOIN staff_grant g ON g.tenant_id = s.tenant_id AND g.id = s.staff_grant_id "
    "WHERE t.tenant_id = $1"
)
_SEEN = Statement(
    "UPDATE session SET seen_at = now() WHERE tenant_id = $1 AND secret_hash = $2 "
    "AND seen_at < now() - interval '1 minute'"
)
_GRANT_LIVES = (
    "EXISTS (SELECT 1 FROM session s JOIN staff_grant g ON g.tenant_id = s.tenant_id "
    "AND g.id = s.staff_grant_id WHERE s.tenant_id = $1 AND s.id = $5::uuid "
    "AND s.ended_at IS NULL AND g.revoked_at IS NULL AND g.expires_at > now())"
)


class Stale(ApplianceError):
    """Rights or schema moved on since they were compiled: load again and repeat. Never shown."""

    code = "session.stale"


class Verdict(Enum):
    """What a request may do with what its process knows of the session."""

    OK = "ok"
    STALE = "stale"
    ENDED = "ended"


class Known(msgspec.Struct, frozen=True):
    """What a process has compiled of a session."""

    loaded: Loaded
    ctx: Ctx


def judge(row: Row | None, *, schema_rev: int, rights_rev: int) -> Verdict:
    """The answer to SESSION_CHECK held against the revisions that were compiled."""
    if row is None or row[0] != b"active" or row[3] != b"t":
        return Verdict.ENDED
    if (int(row[1] or 0), int(row[2] or 0)) != (schema_rev, rights_rev):
        return Verdict.STALE
    return Verdict.OK


class SessionGuard:
    """Checks the session in the round trip of the request. See `read.Guard`, `write.Guard`."""

    __slots__ = ("_ctx", "_until", "_with_first_password", "calls", "seen_s")

    def __init__(
        self,
        known: Known,
        ctx: Ctx,
        secret_hash: bytes,
        idle_minutes: int,
        *,
        about: str = "",
        with_first_password: bool = False,
    ) -> None:
        self._ctx = ctx
        self._with_first_password = with_first_password
        self._until = known.loaded.until
        self.seen_s = 0
        calls: list[Call] = [(SESSION_CHECK, (ctx.tenant, secret_hash, idle_minutes))]
        if known.loaded.sort == "staff":
            # The tenant sees each use in its own audit; an ended grant leaves no trace of one.
            calls += audit_if_calls(
                ctx.tenant, "staff.used", _GRANT_LIVES, actor=ctx.actor, subject=ctx.session,
                request_id=ctx.request_id, details={"grant": str(ctx.staff_grant), "about": about},
            )  # fmt: skip
        self.calls: Sequence[Call] = tuple(calls)

    def check(self, answers: Sequence[Rows]) -> None:
        """Raise Unauthenticated when the session has ended, Stale when its rights moved on,
        Forbidden while its person has not replaced a password that was made for them.
        """
        row, ctx = answers[0].first(), self._ctx
        verdict = judge(row, schema_rev=ctx.schema.rev, rights_rev=ctx.profile.rev)
        if verdict is Verdict.ENDED or row is None:
            raise ended()
        if verdict is Verdict.STALE or (self._until is not None and ctx.at >= self._until):
            raise Stale
        if row[5] == b"t" and not self._with_first_password:
            raise Forbidden(
                "Your password is a one-time password; set your own with POST /api/v1/me/password.",
                code="session.password_change_required",
            )
        self.seen_s = int(row[4] or 0)


_LIVE = Statement(
    "SELECT 1 FROM session s JOIN tenant_state t ON t.tenant_id = s.tenant_id "
    "LEFT JOIN credential c ON c.tenant_id = s.tenant_id AND c.person_id = s.person_id "
    "LEFT JOIN staff_grant g ON g.tenant_id = s.tenant_id AND g.id = s.staff_grant_id "
    "WHERE s.tenant_id = $1 AND s.id = $2 AND t.state = 'active' AND s.ended_at IS NULL "
    "AND s.expires_at > now() AND CASE s.sort WHEN 'staff' THEN g.revoked_at IS NULL "
    "AND g.expires_at > now() ELSE c.state = 'active' AND c.session_epoch = s.epoch END"
)


async def is_live(db: Database, tenant: UUID, session: UUID) -> bool:
    """Whether a session may still do anything, asked by what the node knows it by."""
    (rows,) = await db.read(tenant, (_LIVE, (tenant, session)))
    return rows.first() is not None


def ended() -> Unauthenticated:
    """One answer for no session, an unknown one, and one that has ended."""
    return Unauthenticated(
        "There is no live session for this token; sign in.", code="session.ended"
    )


class Sessions:
    """The sessions this process knows."""

    def __init__(self, db: Database, *, origin: int, node_prefix: str, idle_minutes: int) -> None:
        self._db = db
        self._origin = origin
        self._prefix = node_prefix
        self._idle = idle_minutes
        self._known: OrderedDict[tuple[UUID, bytes], Known] = OrderedDict()

    async def enter(
        self,
        token: str,
        request_id: UUID,
        *,
        door: Door = Door.HTTP,
        address: str = "",
        about: str = "",
        with_first_password: bool = False,
    ) -> tuple[Ctx, SessionGuard]:
        """The context of a token, and the guard that proves it is still true.

        A known session costs no query here: run the guard with your own first statement.
        `about` (method and route) is what the tenant reads of a use by platform staff;
        `with_first_password` lets in who must change theirs. Raises Unauthenticated; Refused for
        an address the key is not for.
        """
        found = read_token(token)
        if found is None:
            raise ended()
        known = self._known.get(found)
        if known is None:
            known = await self._load(*found)
        else:
            self._known.move_to_end(found)
        if not known.loaded.admits(address):
            raise Refused("This key is not for your address.", code="session.wrong_network")
        ctx = msgspec.structs.replace(known.ctx, request_id=request_id, door=door, at=now())
        guard = SessionGuard(
            known, ctx, found[1], self._idle, about=about, with_first_password=with_first_password
        )
        return ctx, guard

    async def authenticate(
        self, token: str, request_id: UUID, *, door: Door = Door.HTTP, address: str = ""
    ) -> Ctx:
        """A proved context, for callers with no round trip of their own. Raises as `enter`."""
        for left in reversed(range(_TRIES)):
            ctx, guard = await self.enter(token, request_id, door=door, address=address)
            try:
                guard.check(await self._db.read(ctx.tenant, *guard.calls))
            except Stale:
                self.forget(token)
                if not left:
                    raise
                continue
            except Refused:
                raise ended() from None
            await self.touch(ctx, token, guard)
            return ctx
        raise AssertionError("the last try answers or raises")

    def forget(self, token: str) -> None:
        """Load the session anew at its next use (after Stale)."""
        if found := read_token(token):
            self._known.pop(found, None)

    async def touch(self, ctx: Ctx, token: str, guard: SessionGuard) -> None:
        """Note that the session is in use, at most once a minute."""
        found = read_token(token)
        if found is not None and guard.seen_s >= SEEN_EVERY_S:
            await self._db.read(ctx.tenant, (_SEEN, (ctx.tenant, found[1])))

    async def _load(self, tenant: UUID, secret_hash: bytes) -> Known:
        check: Call = (SESSION_CHECK, (tenant, secret_hash, self._idle))
        try:
            answers = await self._db.read(tenant, check, *load_calls(tenant, secret_hash))
        except Refused:
            # An unknown tenant inside a token must not read differently from an unknown secret.
            raise ended() from None
        row = answers[0].first()
        if row is None or judge(row, schema_rev=0, rights_rev=0) is Verdict.ENDED:
            raise ended()
        schema = await load_schema(self._db, tenant, int(row[1] or 0))
        loaded = read_loaded(answers[1:], int(row[2] or 0), now(), schema.kinds)
        if loaded is None:
            raise ended()
        ctx = Ctx(
            tenant=tenant,
            origin=self._origin,
            node_prefix=self._prefix,
            actor=loaded.person,
            profile=loaded.profile,
            schema=schema,
            units=loaded.units,
            subtree=loaded.subtree,
            unit=loaded.unit,
            unit_tree=loaded.tree,
            tz=loaded.tz,
            locale=loaded.locale,
            request_id=loaded.person,
            session=loaded.session,
            staff_grant=loaded.staff_grant,
            at=now(),
        )
        known = self._known[tenant, secret_hash] = Known(loaded, ctx)
        if len(self._known) > CACHED_SESSIONS_MAX:
            self._known.popitem(last=False)
        return known


def expires(hours: int) -> datetime:
    """The absolute end of a session that begins now."""
    return now() + timedelta(hours=hours)
