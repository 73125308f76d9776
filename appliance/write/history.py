"""A record's history out of the log, seen with today's field rights."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from appliance.base.clock import hlc_moment
from appliance.base.errors import Refused
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.change import Diff, Entry, describe
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.profile import Mode
from appliance.kernel.record import NUMBER, OWNER, UNIT, RecordState
from appliance.kernel.replay import Replay, Taken
from appliance.write.authorize import in_scope
from appliance.write.known import cut_call
from appliance.write.load import COLUMNS, read_state
from appliance.write.trail import STREAMS, read_entry, read_streams, trail_call

_ROW = {
    table: Statement(
        f"SELECT {COLUMNS} FROM {table} WHERE tenant_id = $1 AND id = $2 AND kind = $3"
    )
    for table in ("record", "entry")
}
_PEOPLE = Statement(
    "SELECT id::text, data->>'name' FROM record WHERE tenant_id = $1 AND kind = 'sys.person' "
    "AND id = ANY($2::uuid[])"
)


class FieldStep(msgspec.Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """One field's step: from what to what."""

    field: str
    before: Json
    after: Json


class HistoryEntry(msgspec.Struct, frozen=True):
    """Who changed what when, through which door; `change_set` is what undo takes.

    `into`: of a deletion, the record that this one was merged into.
    """

    at: datetime
    who: UUID
    who_text: str | None
    door: str
    op: str
    change_set: UUID
    fields: tuple[FieldStep, ...]
    into: UUID | None = None


class HistoryPage(msgspec.Struct, frozen=True):
    """Newest first; `next` continues with older ones. `is_cut`: what came before the oldest is not
    in this node's log, so the first step of a field does not say from what.
    """

    entries: tuple[HistoryEntry, ...]
    next: str | None
    is_cut: bool = False


async def history(
    db: Database,
    ctx: Ctx,
    kind_key: str,
    ident: UUID,
    *,
    limit: int = 50,
    before: str | None = None,
) -> HistoryPage:
    """The history of a record the reader may read (deleted ones: with the right to restore).

    A step of a hidden field is not there; an entry with nothing left to show is left out.
    Raises Refused.
    """
    kind = ctx.schema.kind(kind_key)
    row, trail, cut, streams = await db.read(
        ctx.tenant,
        (_ROW[kind.table if kind else "record"], (ctx.tenant, ident, kind_key)),
        trail_call(ctx.tenant, [ident]),
        cut_call(ctx.tenant, [ident]),
        (STREAMS, (ctx.tenant,)),
    )
    found = row.first()
    state = read_state(found) if found else None
    if kind is None or state is None or not _may_see(ctx, kind, state):
        raise Refused("There is no such record for you.", code="record.unknown")
    steps = _steps(ctx, kind, [read_entry(r) for r in trail], read_streams(streams))
    end = len(steps) if before is None else max(0, min(len(steps), int(before)))
    page = steps[max(0, end - limit) : end]
    people = await _names(db, ctx, {s.who for s in page})
    entries = tuple(msgspec.structs.replace(s, who_text=people.get(s.who)) for s in reversed(page))
    start = max(0, end - limit)
    return HistoryPage(entries, str(start) if start else None, len(cut) > 0)


def _may_see(ctx: Ctx, kind: Kind, state: RecordState) -> bool:
    action = "read" if state.deleted_at is None else "restore"
    return ctx.profile.sees(kind) and in_scope(
        ctx, ctx.profile.scope(kind.key, action), state, kind
    )


def _steps(
    ctx: Ctx, kind: Kind, entries: list[Entry], streams: frozenset[UUID]
) -> list[HistoryEntry]:
    visible = visible_names(ctx, kind)
    replay = Replay(kind, Taken(streams.__contains__))
    state: RecordState | None = None
    steps: list[HistoryEntry] = []
    for entry in entries:
        after = replay.take(entry)
        if after is None:
            # Its beginning is below the floor: what was written is known, not over what.
            diffs = [Diff(f, None, v) for f, v in sorted(entry.body.fields.items())]
        else:
            diffs = describe(_shown(state), _shown(after))
        fields = tuple(
            FieldStep(visible[d.fid], d.before, d.after) for d in diffs if d.fid in visible
        )
        op = str(entry.op)
        if fields or op in ("new", "del", "undel"):
            steps.append(
                HistoryEntry(
                    at=hlc_moment(entry.hlc),
                    who=entry.actor,
                    who_text=None,
                    door=entry.door,
                    op=op,
                    change_set=entry.change_set,
                    fields=fields,
                    into=_uuid(entry.body.ext.get("into")),
                )
            )
        state = after
    return steps


def _uuid(value: Json) -> UUID | None:
    return UUID(value) if isinstance(value, str) else None


def visible_names(ctx: Ctx, kind: Kind) -> dict[str, str]:
    """Field id to name for what the reader may read in full, system columns among them."""
    modes = ctx.profile.grant(kind.key).fields
    found = {f.fid: f.name for f in kind.fields if modes.get(f.fid, Mode.HIDDEN) >= Mode.READ}
    return {**found, UNIT: "unit", OWNER: "owner", NUMBER: "number"}


def _shown(state: RecordState | None) -> dict[str, Json]:
    if state is None:
        return {}
    return {
        **state.data,
        UNIT: str(state.unit) if state.unit else None,
        OWNER: str(state.owner) if state.owner else None,
        NUMBER: state.number,
    }


async def _names(db: Database, ctx: Ctx, people: set[UUID]) -> dict[UUID, str]:
    person = ctx.schema.kind("sys.person")
    if person is None or not ctx.profile.sees(person) or not people:
        return {}
    if ctx.profile.mode("sys.person", person.by_name["name"]) < Mode.READ:
        return {}
    (rows,) = await db.read(ctx.tenant, (_PEOPLE, (ctx.tenant, sorted(people))))
    return {UUID((i or b"").decode()): (n or b"").decode() for i, n in rows}
