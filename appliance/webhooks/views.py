"""Webhooks as people look at them: the list, one, its last deliveries."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.base.errors import FieldFault, Invalid, Refused
from appliance.base.ids import parse_uuid
from appliance.db.database import Database
from appliance.db.wire import Row, Statement
from appliance.kernel.kind import Json
from appliance.webhooks.events import PING
from appliance.webhooks.render import message_id
from appliance.webhooks.shape import Delivery, WebhookView, read_watches

STATES = ("waiting", "delivered", "dead")
WEBHOOK_STATES = ("active", "paused", "failing", "disabled")
_FIGURES = Statement(
    "SELECT state, webhooks, delivered, failed, waiting, dead, lag_s FROM webhook_figures()"
)
_NOBODY = UUID(int=0)
_MOMENT = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US+00:00')"
_MOMENTS = ", ".join(
    _MOMENT.format(f"w.{name}")
    for name in (
        "failing_since",
        "rest_until",
        "last_at",
        "last_ok_at",
        "missed_at",
        "former_until",
    )
)
_LIST = Statement(
    "SELECT r.id::text, r.data, w.state, w.reason, w.delivered, w.failed, w.failures, "
    "(SELECT count(*) FROM webhook_event e WHERE e.tenant_id = $1 AND e.webhook = w.id "
    "AND e.state = 'waiting'), (SELECT count(*) FROM webhook_event e WHERE e.tenant_id = $1 "
    "AND e.webhook = w.id AND e.state = 'dead'), "
    "(SELECT coalesce(sum(greatest(s.head - coalesce((w.cursors->>s.id::text)::bigint, 0), 0)), 0) "
    f"FROM stream s WHERE s.tenant_id = $1), w.cursors, {_MOMENTS}, (SELECT p.data->>'key' FROM record p "
    "WHERE p.tenant_id = $1 AND p.kind = 'sys.profile' AND p.id::text = r.data->>'profile') "
    "FROM record r "
    "LEFT JOIN webhook w ON w.tenant_id = $1 AND w.id = r.id WHERE r.tenant_id = $1 "
    "AND r.kind = 'sys.webhook' AND r.deleted_at IS NULL AND ($2::uuid IS NULL OR r.id = $2) "
    "ORDER BY r.id"
)
_DELIVERIES = Statement(
    "SELECT id::text, kind, record_id::text, action, state, attempts, status, code, duration_ms, "
    f"{_MOMENT.format('occurred_at')}, {_MOMENT.format('last_at')}, "
    f"CASE WHEN state = 'waiting' THEN {_MOMENT.format('due_at')} END FROM webhook_event "
    "WHERE tenant_id = $1 AND webhook = $2 AND ($3::text IS NULL OR state = $3) "
    "AND ($4::uuid IS NULL OR no < (SELECT b.no FROM webhook_event b WHERE b.tenant_id = $1 "
    "AND b.webhook = $2 AND b.id = $4)) ORDER BY no DESC LIMIT $5"
)
_decode = msgspec.json.Decoder(dict[str, Json]).decode
_decode_cursors = msgspec.json.Decoder(dict[str, int]).decode


class Figures(msgspec.Struct, frozen=True):
    """The webhooks of a placement in one state, for an operator; `lag_s` is of the oldest event."""

    state: str
    webhooks: int = 0
    delivered: int = 0
    failed: int = 0
    waiting: int = 0
    dead: int = 0
    lag_s: float = 0.0


async def read_placement(db: Database, target: str) -> list[Figures]:
    """Counts over all tenants of a placement, by state."""
    async with db.wire(target) as wire:
        (rows,) = await wire.run([(_FIGURES, ())])
    return [
        Figures(
            _text(state), _int(webhooks), _int(delivered), _int(failed), _int(waiting), _int(dead),
            float(lag or 0),
        )
        for state, webhooks, delivered, failed, waiting, dead, lag in rows
    ]  # fmt: skip


async def list_webhooks(db: Database, tenant: UUID) -> list[WebhookView]:
    """The webhooks of a tenant, oldest first."""
    (rows,) = await db.read(tenant, (_LIST, (tenant, None)))
    return [_view(row) for row in rows]


async def find_webhook(db: Database, tenant: UUID, ident: UUID) -> WebhookView:
    """One webhook. Raises Refused."""
    (rows,) = await db.read(tenant, (_LIST, (tenant, ident)))
    row = rows.first()
    if row is None:
        raise Refused("There is no such webhook.", code="webhook.unknown")
    return _view(row)


async def list_deliveries(
    db: Database, tenant: UUID, ident: UUID, *, state: str | None = None, limit: int = 50,
    before: UUID | None = None,
) -> list[Delivery]:  # fmt: skip
    """Events of a webhook, newest first. Raises Refused."""
    await find_webhook(db, tenant, ident)
    (rows,) = await db.read(tenant, (_DELIVERIES, (tenant, ident, state, before, limit)))
    return [_delivery(row) for row in rows]


def write_cursor(places: dict[str, int]) -> str:
    """A cursor as text: how far each stream was read."""
    packed = [[UUID(stream).bytes, seq] for stream, seq in sorted(places.items())]
    return urlsafe_b64encode(msgspec.msgpack.encode(packed)).decode().rstrip("=")


def read_cursor(text: str) -> dict[str, int]:
    """The places of a cursor. Raises Invalid."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        pairs = msgspec.msgpack.decode(raw, type=list[tuple[bytes, int]])
        found = {str(UUID(bytes=stream)): seq for stream, seq in pairs}
    except (ValueError, msgspec.MsgspecError):
        found = {}
    if not found or min(found.values()) < 0:
        detail = "This is no cursor of a webhook; GET /api/v1/webhooks/{id} shows the present one."
        raise Invalid(detail, faults=(FieldFault("/cursor", "cursor_malformed", detail),))
    return found


def _view(row: Row) -> WebhookView:
    data = _decode(row[1] or b"{}")
    units = data.get("units")
    moments = [_moment(v) for v in row[11:17]]
    places = _decode_cursors(row[10] or b"{}")
    is_here = row[2] is not None
    return WebhookView(
        id=UUID(_text(row[0])), name=str(data.get("name")), url=str(data.get("url")),
        watches=read_watches(data.get("watches")), profile=_text(row[17]),
        profile_id=parse_uuid(data.get("profile")) or _NOBODY,
        units=[u for t in units if (u := parse_uuid(t))] if isinstance(units, list) else [],
        maker=parse_uuid(data.get("maker")) or _NOBODY,
        state=_text(row[2]) if is_here else "disabled",
        reason=_text(row[3]) if is_here else "secret.missing: make a new secret on this node",
        delivered=_int(row[4]), failed=_int(row[5]), failures=_int(row[6]), waiting=_int(row[7]),
        dead=_int(row[8]), lag=_int(row[9]), cursor=write_cursor(places) if is_here else "",
        failing_since=moments[0], next_try_at=moments[1], last_at=moments[2],
        last_ok_at=moments[3], missed_at=moments[4], former_secret_until=moments[5],
    )  # fmt: skip


def _delivery(row: Row) -> Delivery:
    text: Sequence[str] = [_text(v) for v in row]
    action = text[3]
    occurred = _moment(row[9])
    assert occurred is not None, "every event has its moment"
    return Delivery(
        id=message_id(UUID(text[0])), type=PING if action == PING else f"{text[1]}.{action}",
        record=UUID(text[2]), state=text[4], attempts=int(text[5]), occurred_at=occurred,
        last_at=_moment(row[10]), next_try_at=_moment(row[11]),
        status=int(text[6]) if row[6] is not None else None, code=text[7],
        duration_ms=int(text[8]) if row[8] is not None else None,
    )  # fmt: skip


def _moment(value: bytes | None) -> datetime | None:
    return datetime.fromisoformat(value.decode()) if value is not None else None


def _int(value: bytes | None) -> int:
    return int(value or 0)


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
