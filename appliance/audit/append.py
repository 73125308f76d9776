"""Write an audit event in the transaction of what it tells of. The role can insert, not change."""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.db.wire import Call, Statement

_INSERT = Statement(
    "INSERT INTO audit (tenant_id, id, at, actor, action, subject, request_id, outcome, details) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb)"
)
_UNSEALED = Statement("INSERT INTO audit_unsealed (tenant_id, id) VALUES ($1, $2)")


def audit_calls(
    tenant: UUID,
    action: str,
    *,
    actor: UUID | None = None,
    subject: object = "",
    request_id: UUID | None = None,
    outcome: str = "done",
    details: dict[str, object] | None = None,
) -> list[Call]:
    """The calls that record an event. `details` hold ids, counts and codes, never values typed
    by people.
    """
    ident = uuid7()
    body = msgspec.json.encode(details or {}).decode()
    event = (tenant, ident, now(), actor, action, str(subject), request_id, outcome, body)
    return [(_INSERT, event), (_UNSEALED, (tenant, ident))]
