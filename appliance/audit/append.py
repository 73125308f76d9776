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
_UNSEALED_IF = Statement(
    "INSERT INTO audit_unsealed (tenant_id, id) SELECT tenant_id, id FROM audit "
    "WHERE tenant_id = $1 AND id = $2 ON CONFLICT DO NOTHING"
)


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


def audit_if_calls(
    tenant: UUID,
    action: str,
    condition: str,
    *,
    actor: UUID | None = None,
    subject: object = "",
    request_id: UUID | None = None,
    details: dict[str, object] | None = None,
) -> list[Call]:
    """The calls that record an event when `condition` holds, once however often they are run.

    `condition` is SQL of the caller's own over $1 (tenant) and $5 (subject, as text).
    """
    ident = uuid7()
    insert = Statement(
        "INSERT INTO audit (tenant_id, id, at, action, subject, actor, request_id, outcome, details) "
        "SELECT $1::uuid, $2::uuid, $3::timestamptz, $4::text, $5::text, $6::uuid, $7::uuid, 'done', "
        f"$8::jsonb WHERE {condition} "
        "ON CONFLICT DO NOTHING"
    )
    body = msgspec.json.encode(details or {}).decode()
    event = (tenant, ident, now(), action, str(subject), actor, request_id, body)
    return [(insert, event), (_UNSEALED_IF, (tenant, ident))]
