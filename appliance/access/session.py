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
from uuid import UUID

import msgspec

from appliance.access.load import Loaded, load_calls, read_loaded
from appliance.access.tokens import read_token
from appliance.base.clock import now
from appliance.base.errors import ApplianceError, Refused, Unauthenticated
from appliance.db.database import Database
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.context import Ctx, Door
from appliance.meta import load_schema

CACHED_SESSIONS_MAX = 5_000
SEEN_EVERY_S = 60

CHECK = Statement(
    "SELECT t.state, t.schema_rev, t.rights_rev, s.ended_at IS NULL AND s.expires_at > now() "
    "AND (s.sort <> 'login' OR s.seen_at > now() - make_interval(mins => $3)) "
    "AND (s.sort = 'staff' OR (c.state = 'active' AND c.session_epoch = s.epoch)), "
    "extract(epoch FROM now() - s.seen_at)::int, "
    "s.staff_grant_id IS NULL OR (g.revoked_at IS NULL AND g.expires_at > now()) "
    "FROM tenant_state t LEFT JOIN session s ON s.tenant_id = t.tenant_id AND s.secret_hash = $2 "
    "LEFT JOIN credential c ON c.tenant_id = s.tenant_id AND c.person_id = s.person_id "
    "LEFT JOIN staff_grant g ON g.tenant_id = s.tenant_id AND g.id = s.staff_grant_id "
    "WHERE t.tenant_id = $1"
)
_SEEN = Statement(
    "UPDATE session SET seen_at = now() WHERE tenant_id = $1 AND secret_hash = $2 "
    "AND seen_at < now() - interval '1 minute'"
)


class Stale(ApplianceError):
    """Rights or schema moved on since they were compiled: load again and repeat. Never shown."""

    code = "session.stale"


class Known(msgspec.Struct, frozen=True):
    """What a process has compiled of a session."""

    loaded: Loaded
    ctx: Ctx


class SessionGuard:
    """Checks the session in the round trip of the request. See `read.Guard`, `write.Guard`."""

    __slots__ = ("_ctx", "_hash", "_idle", "_until", "calls", "seen_s")

    def __init__(
        self, ctx: Ctx, secret_hash: bytes, idle_minutes: int, until: datetime | None
    ) -> None:
        self._ctx = ctx
        self._hash = secret_hash
        self._idle = idle_minutes
        self._until = until
        self.seen_s = 0
        self.calls: Sequence[Call] = ((CHECK, (ctx.tenant, secret_hash, idle_minutes)),)

    def check(self, answers: Sequence[Rows]) -> None:
        """Raise Unauthenticated when the session has ended, Stale when its rights moved on."""
        row = answers[0].first()
        if row is None or row[0] != b"active" or row[3] != b"t" or row[5] != b"t":
            raise ended()
        if int(row[1] or 0) != self._ctx.schema.rev or int(row[2] or 0) != self._ctx.profile.rev:
            raise Stale
        if self._until is not None and self._ctx.at >= self._until:
            raise Stale
        self.seen_s = int(row[4] or 0)


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
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    async def enter(
        self, token: str, request_id: UUID, *, door: Door = Door.HTTP, address: str = ""
    ) -> tuple[Ctx, SessionGuard]:
        """The context of a token, and the guard that proves it is still true.

        A known session costs no query here: run the guard with your own first statement. Raises
        Unauthenticated; Refused for an address the key is not for.
        """
        found = read_token(token)
        if found is None:
            raise ended()
        tenant, secret_hash = found
        known = self._known.get(secret_hash)
        if known is None:
            known = await self._load(tenant, secret_hash)
        else:
            self._known.move_to_end(secret_hash)
        if not known.loaded.admits(address):
            raise Refused("This key is not for your address.", code="session.wrong_network")
        ctx = msgspec.structs.replace(known.ctx, request_id=request_id, door=door, at=now())
        return ctx, SessionGuard(ctx, secret_hash, self._idle, known.loaded.until)

    def forget(self, token: str) -> None:
        """Load the session anew at its next use (after Stale)."""
        if found := read_token(token):
            self._known.pop(found[1], None)

    async def touch(self, ctx: Ctx, token: str, guard: SessionGuard) -> None:
        """Note that the session is in use, at most once a minute."""
        found = read_token(token)
        if found is not None and guard.seen_s >= SEEN_EVERY_S:
            await self._db.read(ctx.tenant, (_SEEN, (ctx.tenant, found[1])))

    async def _load(self, tenant: UUID, secret_hash: bytes) -> Known:
        try:
            answers = await self._db.read(
                tenant, (CHECK, (tenant, secret_hash, self._idle)), *load_calls(tenant, secret_hash)
            )
        except Refused:
            # An unknown tenant inside a token must not read differently from an unknown secret.
            raise ended() from None
        row = answers[0].first()
        if row is None or row[0] != b"active" or row[3] != b"t" or row[5] != b"t":
            raise ended()
        schema = await load_schema(self._db, tenant, int(row[1] or 0))
        loaded = read_loaded(answers[1:], int(row[2] or 0), now())
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
        known = self._known[secret_hash] = Known(loaded, ctx)
        if len(self._known) > CACHED_SESSIONS_MAX:
            self._known.popitem(last=False)
        return known


def expires(hours: int) -> datetime:
    """The absolute end of a session that begins now."""
    return now() + timedelta(hours=hours)
