"""Undo a change set: the inverse of each of its entries, as ordinary commands of the actor.

An undo is a change like any other: it passes rights, appears in the history and can be undone.
A field that somebody changed since is a conflict with both values, never an overwrite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from uuid import UUID

import msgspec
from msgspec import UNSET

from appliance.base.errors import Forbidden, Refused
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.change import Entry
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.ledger import REVERSES, transfer_id
from appliance.kernel.record import OWNER, UNIT, RecordState
from appliance.kernel.replay import Replay, Taken
from appliance.write.command import Command, Op
from appliance.write.inverse import Unknown, inverse_in_part, refuse_below, refuse_beyond
from appliance.write.known import cut_call
from appliance.write.load import COLUMNS as ROW
from appliance.write.load import read_state
from appliance.write.outcome import Result
from appliance.write.pipeline import Guard, apply
from appliance.write.shown import hides
from appliance.write.trail import COLUMNS, STREAMS, read_entry, read_streams, trail_call

_OF_SET = Statement(
    f"SELECT {COLUMNS} FROM change WHERE tenant_id = $1 AND change_set = $2 ORDER BY hlc, seq"
)
_ROWS = Statement(f"SELECT {ROW} FROM record WHERE tenant_id = $1 AND id = ANY($2::uuid[])")


async def undo(
    db: Database,
    ctx: Ctx,
    change_set: UUID,
    *,
    command_id: UUID | None = None,
    guard: Guard | None = None,
) -> Result:
    """Take a change set back, all or nothing; under a known command id nothing is done again.

    Raises Refused when there is none, Forbidden when it holds what the actor may not see, Clash for what the log no longer reaches back to and for a command id used with other content.
    """
    (rows,) = await db.read(ctx.tenant, (_OF_SET, (ctx.tenant, change_set)))
    entries = [read_entry(r) for r in rows]
    if not entries:
        raise Refused("There is no such change for you.", code="change.unknown")
    ids = sorted({e.record_id for e in entries})
    past = await _read_past(db, ctx, ids)
    commands = [c for i in ids if (c := _way_back(past, i, change_set)) is not None]
    commands = _without_consequences(past, commands)
    _refuse_hidden(ctx, commands)
    # Last made first undone: what refers to a new record goes before the record itself.
    commands.sort(key=lambda c: c.op is Op.DELETE)
    return await apply(db, ctx, commands, command_id=command_id, guard=guard)


@dataclass(frozen=True, slots=True)
class _Past:
    """What this node knows of some records: their trails, and of those with a part of one only how
    they stand.
    """

    ctx: Ctx
    trails: Mapping[UUID, Sequence[Entry]]
    parts: Mapping[UUID, RecordState | None]
    streams: frozenset[UUID]

    def replay(self, entries: Sequence[Entry]) -> RecordState | None:
        """The state after entries, as far as this node looks."""
        kind = self.ctx.schema.kinds.get(entries[0].kind) if entries else None
        replay = Replay(kind, Taken(self.streams.__contains__))
        for entry in entries:
            replay.take(entry)
        return replay.state


async def _read_past(db: Database, ctx: Ctx, ids: Sequence[UUID]) -> _Past:
    trail, cut, streams = await db.read(
        ctx.tenant, trail_call(ctx.tenant, ids), cut_call(ctx.tenant, ids), (STREAMS, (ctx.tenant,))
    )
    trails: dict[UUID, list[Entry]] = {}
    for entry in map(read_entry, trail):
        trails.setdefault(entry.record_id, []).append(entry)
    parts: dict[UUID, RecordState | None] = {UUID((i or b"").decode()): None for i in cut.column()}
    if parts:
        (rows,) = await db.read(ctx.tenant, (_ROWS, (ctx.tenant, [*parts])))
        parts |= {state.id: state for state in map(read_state, rows)}
    return _Past(ctx, trails, parts, read_streams(streams))


def _way_back(past: _Past, ident: UUID, change_set: UUID) -> Command | None:
    """The command that takes back what a change did to one record. Raises Clash where this node
    does not know enough.
    """
    trail = past.trails[ident]
    refuse_beyond((e for e in trail if e.change_set == change_set), past.streams.__contains__)
    if ident not in past.parts:
        return _inverse(past, trail, change_set)
    kind = past.ctx.schema.kinds.get(trail[0].kind)
    try:
        return inverse_in_part(past.parts[ident], kind, trail, change_set)
    except Unknown:
        raise refuse_below() from None


def _without_consequences(past: _Past, commands: Sequence[Command]) -> list[Command]:
    """Lines that had followed their document follow it back, whatever the actor may do to lines."""
    moved = {c.id for c in commands if c.op is Op.UPDATE and c.unit is not UNSET}
    gone = _transferred(past)
    commands = [c for c in commands if c.fields.get(REVERSES) not in gone]
    placed = [
        msgspec.structs.replace(c, unit=UNSET) if _followed(past, c, moved) else c for c in commands
    ]
    return [
        c for c, was in zip(placed, commands, strict=True)
        if c is was or c.fields or c.owner is not UNSET
    ]  # fmt: skip


def _transferred(past: _Past) -> set[Json]:
    """Entries that had gone along, in both units: they go back when the document does."""
    found: set[Json] = set()
    for ident, trail in past.trails.items():
        state = past.replay(trail)
        kind = past.ctx.schema.kinds.get(state.kind) if state is not None else None
        if state is None or kind is None or kind.ledger is None:
            continue
        reversed_ = state.data.get(REVERSES)
        if reversed_ and (there := transfer_id(UUID(str(reversed_)))) in past.trails:
            found |= {str(ident), str(there)}
    return found


def _followed(past: _Past, command: Command, moved: AbstractSet[UUID | None]) -> bool:
    """Whether a line was moved together with the document that it belongs to."""
    kind = past.ctx.schema.kinds.get(command.kind)
    field = kind.belonging if kind is not None else None
    if field is None or command.id is None or command.id not in moved:
        return False
    state = past.replay(past.trails[command.id])
    parent = state.data.get(field.fid) if state is not None else None
    return isinstance(parent, str) and UUID(parent) in moved and field.name not in command.fields


def _refuse_hidden(ctx: Ctx, commands: Sequence[Command]) -> None:
    """A fault at a field that the actor may not see would name it."""
    for command in commands:
        kind = ctx.schema.kinds.get(command.kind)
        if kind is not None and any(hides(ctx, kind, name) for name in command.fields):
            raise Forbidden(
                "This change touches more than your profile may write; nothing was taken back.",
                code="change.beyond_profile",
            )


def _inverse(past: _Past, trail: Sequence[Entry], change_set: UUID) -> Command | None:
    """The command that leads from after the set back to before it."""
    places = [n for n, e in enumerate(trail) if e.change_set == change_set]
    before = past.replay(trail[: places[0]])
    after = past.replay(trail[: places[-1] + 1])
    if after is None:
        # What it changed has not come yet.
        raise refuse_below()
    kind, ident, version = after.kind, after.id, str(after.stamps)
    schema_kind = past.ctx.schema.kinds.get(kind)
    if schema_kind is not None and schema_kind.ledger is not None:
        return Command(op=Op.CREATE, kind=kind, fields={REVERSES: str(ident)})
    if before is None:
        return (
            None if after.deleted_at else Command(op=Op.DELETE, kind=kind, id=ident, expect=version)
        )
    if (before.deleted_at is None) != (after.deleted_at is None):
        op = Op.RESTORE if after.deleted_at else Op.DELETE
        return Command(op=op, kind=kind, id=ident, expect=version)
    if schema_kind is None:
        return None
    written = {fid for n in places for fid in _written(trail[n])}
    return Command(
        op=Op.UPDATE,
        kind=kind,
        id=ident,
        fields=_fields(schema_kind, before, written),
        unit=before.unit if UNIT in written else UNSET,
        owner=before.owner if OWNER in written else UNSET,
        expect=version,
        restoring=True,
    )


def _fields(kind: Kind, before: RecordState, written: set[str]) -> dict[str, Json]:
    return {
        field.name: before.data.get(fid)
        for fid in sorted(written)
        if (field := kind.by_fid.get(fid)) is not None and "formula" not in field.options
    }


def _written(entry: Entry) -> set[str]:
    return {*entry.body.fields, *entry.body.sets, *entry.body.deltas}
