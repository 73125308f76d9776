"""Tell again: a test event, dead letters, or everything behind a moment or a cursor.

An event that is told again has the id it had, so a receiver that took it before can tell.
"""

from __future__ import annotations

from datetime import UTC
from uuid import UUID

import msgspec

from appliance.audit import audit_calls
from appliance.base.clock import now
from appliance.base.errors import Clash, FieldFault, Invalid
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Call, Statement
from appliance.kernel.context import Ctx
from appliance.webhooks.manage import check_lending
from appliance.webhooks.render import message_id, read_message_id
from appliance.webhooks.shape import Replay
from appliance.webhooks.views import read_cursor

EVENTS_MAX = 500
_PING = Statement(
    "INSERT INTO webhook_event (tenant_id, webhook, id, kind, record_id, action, actor, change_set, "
    "occurred_at) VALUES ($1, $2, $3, '', $3, 'ping', $4, $5, $6)",
    leaves=True,
)
# A cursor only ever moves back: what was not told yet is told anyway. Whoever reads the log just now
# is fenced off, or it would move the cursor on again.
_TO_CURSOR = Statement(
    "UPDATE webhook w SET runner = NULL, lease_until = NULL, cursors = (SELECT coalesce(jsonb_object_agg(s.id::text, "
    "LEAST(coalesce((w.cursors->>s.id::text)::bigint, 0), "
    "coalesce(($3::jsonb->>s.id::text)::bigint, 0))), '{}') FROM stream s WHERE s.tenant_id = $1) "
    "WHERE w.tenant_id = $1 AND w.id = $2",
    leaves=True,
)
_TO_MOMENT = Statement(
    "UPDATE webhook w SET runner = NULL, lease_until = NULL, cursors = (SELECT coalesce(jsonb_object_agg(s.id::text, "
    "LEAST(coalesce((w.cursors->>s.id::text)::bigint, 0), coalesce((SELECT min(c.seq) - 1 "
    "FROM change c WHERE c.tenant_id = $1 AND c.stream = s.id AND c.seq > s.floor "
    "AND (c.ehlc >> 16) >= $3::bigint), s.head))), '{}') FROM stream s WHERE s.tenant_id = $1) "
    "WHERE w.tenant_id = $1 AND w.id = $2",
    leaves=True,
)
# What waits behind the new place is found there again, in its order.
_UNWAIT = Statement(
    "DELETE FROM webhook_event e USING webhook w WHERE w.tenant_id = $1 AND w.id = $2 "
    "AND e.tenant_id = $1 AND e.webhook = $2 AND e.state = 'waiting' "
    "AND e.seq > coalesce((w.cursors->>e.stream::text)::bigint, 0)"
)
_WAIT = Statement(
    "UPDATE webhook_event SET state = 'waiting', attempts = 0, first_at = NULL, due_at = now() "
    "WHERE tenant_id = $1 AND webhook = $2 AND state <> 'waiting' "
    "AND (id = ANY($3::uuid[]) OR ($4 AND state = 'dead')) RETURNING 1",
    leaves=True,
)


class Replayed(msgspec.Struct, frozen=True):
    """`events`: how many named or dead ones wait again; None where the log is read again."""

    events: int | None


async def ping(db: Database, ctx: Ctx, ident: UUID) -> str:
    """Queue a test event; its id. Raises Refused, Forbidden, Clash."""
    found = await check_lending(db, ctx, ident)
    if found.state != "active":
        raise Clash(f"This webhook is {found.state}; resume it first.", code="webhook.not_active")
    event = uuid7()
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(
            (_PING, (ctx.tenant, ident, event, ctx.actor, ctx.request_id, now())), commit=True
        )
    return message_id(event)


async def replay(db: Database, ctx: Ctx, ident: UUID, asked: Replay) -> Replayed:
    """Tell again what was asked for. Raises Refused, Forbidden, Invalid."""
    await check_lending(db, ctx, ident)
    given = [asked.since is not None, asked.cursor is not None, bool(asked.events), asked.dead]
    if sum(given) != 1 or len(asked.events) > EVENTS_MAX:
        detail = f"Expected one of since, cursor, events (at most {EVENTS_MAX}) and dead."
        raise Invalid(detail, faults=(FieldFault("", "replay_unclear", detail),))
    key = (ctx.tenant, ident)
    if asked.events or asked.dead:
        wanted = [read_message_id(e) for e in asked.events]
        calls: list[Call] = [(_WAIT, (*key, wanted, asked.dead))]
    else:
        calls = [_back(asked, key), (_UNWAIT, key)]
    event = audit_calls(
        ctx.tenant, "webhook.replayed", actor=ctx.actor, subject=ident, request_id=ctx.request_id
    )
    async with db.transaction(ctx.tenant) as tx:
        first, *_ = await tx.run(*calls, *event, commit=True)
    return Replayed(first.affected if asked.events or asked.dead else None)


def _back(asked: Replay, key: tuple[UUID, UUID]) -> Call:
    if asked.cursor is not None:
        places = msgspec.json.encode(read_cursor(asked.cursor)).decode()
        return _TO_CURSOR, (*key, places)
    since = asked.since
    assert since is not None, "one of them was given"
    if since.tzinfo is None:
        detail = "Expected a moment with its offset, such as 2026-11-20T10:00:00Z."
        raise Invalid(detail, faults=(FieldFault("/since", "moment_malformed", detail),))
    return _TO_MOMENT, (*key, int(since.astimezone(UTC).timestamp() * 1000))
