"""What a receiver is told of an event: the record as the subscriber may see it at this moment.

Promises: the record comes through the read path under the profile as it is now, so a field that is
hidden, a row that is out of scope and rights that were withdrawn a second ago do not leave; of a
record that left the receiver's sight its id alone is told, and only to one who knew it; a change of
hidden fields alone is nobody's event.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from appliance.access.acting import act_as
from appliance.base.clock import now
from appliance.base.errors import Invalid
from appliance.db.database import Database
from appliance.db.wire import Call, Rows, Statement
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Json, Kind
from appliance.kernel.query import decode_condition
from appliance.kernel.record import NUMBER, OWNER, UNIT
from appliance.read import One, visible_fields
from appliance.webhooks.events import PING, Event
from appliance.webhooks.shape import Watch
from appliance.write.authorize import in_scope
from appliance.write.load import COLUMNS, read_state

_REVS = Statement(
    "SELECT t.rights_rev, t.schema_rev, w.state = 'active' AND w.runner = $3, EXISTS (SELECT FROM "
    "credential c WHERE c.tenant_id = $1 AND c.person_id = $4 AND c.state = 'active') "
    "FROM tenant_state t JOIN webhook w ON w.tenant_id = $1 AND w.id = $2 WHERE t.tenant_id = $1"
)
_SEEN = Statement(
    "SELECT 1 FROM webhook_seen WHERE tenant_id = $1 AND webhook = $2 AND record_id = $3"
)
# Registers of every record, by the names of the contract.
SYSTEM_NAMES = {UNIT: "unit", OWNER: "owner", NUMBER: "number"}
_ROW = Statement(f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND id = $2")


class Unwanted(Exception):
    """The webhook was stopped, or another worker has it: nothing more is told by this one."""


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """Who a webhook's events are read for."""

    webhook: UUID
    tenant: UUID
    maker: UUID
    profile: UUID
    units: frozenset[UUID]
    watches: dict[str, Watch]


class Told(msgspec.Struct, frozen=True):
    """A body to send. `is_known`: the receiver knows the record from now on (None: as before)."""

    body: bytes
    is_known: bool | None


class Reader:
    """Reads events for one subscriber, under rights that are proved with every event."""

    def __init__(self, db: Database, who: Subscriber, origin: int, runner: UUID) -> None:
        self._db, self._who, self._origin, self._runner = db, who, origin, runner
        self._ctx: Ctx | None = None
        self._revs = (-1, -1)

    async def tell(self, event: Event) -> Told | None:
        """The body of an event; None when it is nothing for this receiver.

        Raises Unwanted, Refused when the rights it had are gone, Invalid when its condition cannot
        be asked any more.
        """
        for _ in range(3):
            ctx = await self._context()
            kind = ctx.schema.kind(event.kind)
            calls: list[Call] = [
                self._guard_call(),
                (_SEEN, (ctx.tenant, self._who.webhook, event.record)),
                (_ROW, (ctx.tenant, event.record)),
            ]
            watch = self._who.watches.get(event.kind)
            one = None
            if event.action == PING:
                return Told(_body(event, self._who, PING, {}), None)
            if watch is not None and kind is not None and ctx.profile.sees(kind):
                where = decode_condition(watch.where) if watch.where is not None else None
                one = One(ctx, kind.key, event.record, where)
                calls.append(one.call)
            guard, seen, row, *shown = await self._db.read(ctx.tenant, *calls)
            if self._is_current(guard):
                record = one.read(shown[0]) if one is not None else None
                return self._told(ctx, kind, event, (len(seen) > 0, row, record))
        raise Unwanted

    async def _context(self) -> Ctx:
        """The subscriber as they are now."""
        if self._ctx is None:
            (guard,) = await self._db.read(self._who.tenant, self._guard_call())
            self._is_current(guard)
            who = self._who
            self._ctx = await act_as(
                self._db, who.tenant, who.maker, who.profile, who.units, origin=self._origin,
                door=Door.SYSTEM,
            )  # fmt: skip
        self._ctx = msgspec.structs.replace(self._ctx, at=now())
        return self._ctx

    def _guard_call(self) -> Call:
        who = self._who
        return _REVS, (who.tenant, who.webhook, self._runner, who.maker)

    def _is_current(self, rows: Rows) -> bool:
        """Whether what was read, was read under the rights that hold. Raises Unwanted."""
        row = rows.first()
        if row is None or row[2] != b"t":
            raise Unwanted
        revs = (int(row[0] or 0), int(row[1] or 0))
        if revs == self._revs and row[3] == b"t":
            return True
        # Whoever made it is asked for by the next context, which refuses when they are gone.
        self._revs, self._ctx = revs, None
        return False

    def _told(
        self, ctx: Ctx, kind: Kind | None, event: Event, found: tuple[bool, Rows, bytes | None]
    ) -> Told | None:
        is_seen, rows, record = found
        watch = self._who.watches.get(event.kind)
        if watch is None or kind is None:
            return None
        row = rows.first()
        state = read_state(row) if row is not None else None
        is_gone = state is not None and state.deleted_at is not None
        if event.action == "deleted":
            # Of a condition nobody can say what it would be of a deleted row.
            is_theirs = is_seen or (
                state is not None and watch.where is None and ctx.profile.sees(kind)
                and in_scope(ctx, ctx.profile.scope(kind.key, "read"), state, kind)
            )  # fmt: skip
            return self._bare(event, "deleted") if is_gone and is_theirs else None
        if record is not None:
            return self._whole(ctx, kind, event, watch, (record, is_seen))
        if is_seen and not is_gone and "left" in watch.actions:
            return self._bare(event, "left")
        return None

    def _whole(
        self, ctx: Ctx, kind: Kind, event: Event, watch: Watch, found: tuple[bytes, bool]
    ) -> Told | None:
        record, is_seen = found
        if event.action not in watch.actions:
            return None
        changed = _changed(ctx, kind, event.fids, watch)
        if event.action == "updated" and not changed:
            return None
        shown = _narrowed(msgspec.json.decode(record), watch.fields)
        data: dict[str, Json] = {
            "version": shown.get("version"), "changed": list(changed), "first": not is_seen,
            "record": shown,
        }  # fmt: skip
        return Told(_body(event, self._who, event.action, data), is_known=True)

    def _bare(self, event: Event, action: str) -> Told:
        data: dict[str, Json] = {"version": None, "changed": [], "first": False, "record": None}
        return Told(_body(event, self._who, action, data), is_known=False)


def _changed(ctx: Ctx, kind: Kind, fids: Sequence[str], watch: Watch) -> list[str]:
    """Names of the fields that were written, as far as they are there for the receiver."""
    names = {field.fid: field.name for field, _ in visible_fields(ctx, kind)}
    if watch.fields:
        return sorted(names[f] for f in fids if names.get(f) in watch.fields)
    return sorted({**names, **SYSTEM_NAMES}[f] for f in fids if f in names or f in SYSTEM_NAMES)


def _narrowed(record: dict[str, Json], wanted: Sequence[str]) -> dict[str, Json]:
    """The record with the wanted fields alone."""
    if wanted:
        for part in ("fields", "display"):
            held = record.get(part)
            if isinstance(held, dict):
                record[part] = {name: held[name] for name in wanted if name in held}
    return record


def _body(event: Event, who: Subscriber, action: str, more: dict[str, Json]) -> bytes:
    """The payload of the Standard Webhooks: type, timestamp, data; and whose it is."""
    data: dict[str, Json] = {}
    if action != PING:
        data = {
            "kind": event.kind, "id": str(event.record), "action": action,
            "actor": str(event.actor), "change_set": str(event.change_set), **more,
        }  # fmt: skip
    return msgspec.json.encode(
        {
            "type": PING if action == PING else f"{event.kind}.{action}",
            "timestamp": event.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "id": message_id(event.id), "webhook": str(who.webhook), "data": data,
        }
    )  # fmt: skip


def message_id(ident: UUID) -> str:
    """The id of an event as receivers see it."""
    return f"msg_{ident.hex}"


def read_message_id(text: str) -> UUID:
    """An event's id. Raises Invalid."""
    try:
        return UUID(hex=text.removeprefix("msg_"))
    except ValueError:
        raise Invalid(f"{text[:60]!r} is not the id of an event.", code="webhook.event") from None
