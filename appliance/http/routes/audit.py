"""The audit, newest first: who signed in, exported, was refused."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base import limits
from appliance.db.wire import Statement
from appliance.http.answers import reply
from appliance.http.ask import Ask
from appliance.http.route import API, Book
from appliance.http.routes.records import out_of_range

book = Book("audit")
_ROWS_MAX = 500
_LIST = Statement(
    "SELECT id::text, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), "
    "actor::text, action, subject, request_id::text, outcome, details::text FROM audit "
    "WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id < $2) AND ($3::uuid IS NULL OR actor = $3) "
    "AND ($4::text IS NULL OR action = $4) ORDER BY id DESC LIMIT $5"
)


class AuditEvent(msgspec.Struct, frozen=True):
    """One fact."""

    id: UUID
    at: datetime
    actor: UUID | None
    action: str
    subject: str
    request_id: UUID | None
    outcome: str
    details: dict[str, Any]


class AuditList(msgspec.Struct, frozen=True):
    """A page; `next` is `before` of the following one."""

    events: list[AuditEvent]
    next: UUID | None


class AuditParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Filters and a page of the audit."""

    actor: UUID | None = None
    action: str | None = None
    before: UUID | None = None
    limit: int = 100


@book.route("GET", f"{API}/audit", capability="audit.read", gated=True, params=AuditParams,
            answers={200: AuditList})  # fmt: skip
async def list_audit(ask: Ask) -> ASGIResponse:
    """The audit of the tenant."""
    given = ask.params(AuditParams)
    if not 0 < given.limit <= _ROWS_MAX:
        raise out_of_range("/limit", _ROWS_MAX)
    action = given.action[: limits.VALUE_CHARS_MAX] if given.action is not None else None
    params = (ask.ctx.tenant, given.before, given.actor, action, given.limit + 1)
    answers = await ask.node.db.read(ask.ctx.tenant, *ask.gate.calls, (_LIST, params))
    ask.gate.check(answers[:-1])
    events = [_event(row) for row in answers[-1]]
    more = len(events) > given.limit
    shown = events[: given.limit]
    return reply(AuditList(shown, shown[-1].id if more else None))


def _event(row: tuple[bytes | None, ...]) -> AuditEvent:
    text = [v.decode() if v is not None else None for v in row]
    return msgspec.convert(
        {
            "id": text[0], "at": text[1], "actor": text[2], "action": text[3], "subject": text[4],
            "request_id": text[5], "outcome": text[6], "details": msgspec.json.decode(text[7] or "{}"),
        },
        AuditEvent,
    )  # fmt: skip
