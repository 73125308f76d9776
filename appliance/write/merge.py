"""Merge records that turned out to be one: nothing is lost, and one undo takes it back.

The one that stays keeps its values, takes over what it lacks, and everything that pointed to the
others points to it. The others are deleted with a note of where they went. All of it is one
change of the actor's own: what lies beyond their profile stops the merge, and `undo` of the
change set is the way back. Entries of ledgers never change, so a record that one names cannot go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.base.errors import Clash, FieldFault, Forbidden, Invalid, Refused, TooLarge
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import FILLS, Field, Json, Kind, Policy
from appliance.kernel.profile import Mode
from appliance.kernel.record import RecordState
from appliance.write.authorize import in_scope
from appliance.write.command import Command, Op
from appliance.write.load import COLUMNS, points_at, read_state, references_in
from appliance.write.outcome import Rejected, Result
from appliance.write.pipeline import Guard, apply

AT_ONCE = 20
_READ = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND kind = $2 AND id = ANY($3::uuid[]) "
    "AND deleted_at IS NULL"
)
_POINTING = (
    "SELECT {columns} FROM {table} WHERE tenant_id = $1 AND kind = $2 AND deleted_at IS NULL "
    "AND {points} LIMIT $4"
)


class Taken(msgspec.Struct, frozen=True):
    """One field that differs: each record's value, and whose the merged record gets."""

    field: str
    values: dict[UUID, Json]
    result: Json


class Merging(msgspec.Struct, frozen=True):
    """What a merge does: fields side by side, how many records of each kind are pointed anew."""

    fields: list[Taken]
    moved: dict[str, int]
    commands: list[Command]


async def look_at_merge(
    db: Database,
    ctx: Ctx,
    key: str,
    winner: UUID,
    losers: Sequence[UUID],
    chosen: Mapping[str, UUID],
) -> Merging:
    """What `merge` would do. `chosen` says of a field whose value is taken.

    Raises Refused for a record the actor may not read, Invalid, Clash, Forbidden, TooLarge.
    """
    kind = _mergeable(ctx, key)
    _check_asked(winner, losers)
    ids = [winner, *losers]
    (rows,) = await db.read(ctx.tenant, (_READ, (ctx.tenant, kind.key, ids)))
    found = {s.id: s for s in map(read_state, rows)}
    scope = ctx.profile.scope(kind.key, "read")
    if any(i not in found or not in_scope(ctx, scope, found[i], kind) for i in ids):
        raise Refused("There is no such record for you.", code="record.unknown")
    fields = list(_fields(ctx, kind, [found[i] for i in ids], chosen))
    values = {t.field: t.result for t in fields if t.result != t.values[winner]}
    commands = [Command(op=Op.UPDATE, kind=key, id=winner, fields=values)]
    commands += [Command(op=Op.DELETE, kind=key, id=i, into=winner) for i in losers]
    moved: dict[str, int] = {}
    async for command in _pointing(db, ctx, kind, winner, losers):
        if command.id == winner:
            held = commands[0]
            commands[0] = msgspec.structs.replace(held, fields={**command.fields, **held.fields})
        else:
            commands.append(command)
            moved[command.kind] = moved.get(command.kind, 0) + 1
    if len(commands) > limits.BATCH_COMMANDS_MAX:
        raise TooLarge(f"More than {limits.BATCH_COMMANDS_MAX} records hang on these.")
    return Merging(fields, moved, commands)


async def merge(
    db: Database,
    ctx: Ctx,
    merging: Merging,
    *,
    expect: str | None = None,
    guard: Guard | None = None,
) -> Result:
    """Do what was looked at, all of it or nothing. `expect`: the version of the one that stays.

    Raises Forbidden when something that points to the records is beyond the actor's profile.
    """
    first, *others = merging.commands
    commands = [msgspec.structs.replace(first, expect=expect), *others]
    result = await apply(db, ctx, commands, guard=guard)
    own = sum(c.into is not None for c in commands) + 1
    if any(isinstance(o, Rejected) for o in result.outcomes[own:]):
        # Which ones would say what the actor may not see.
        raise Forbidden(
            "Records beyond your profile point to what you merge; nothing was changed. Somebody "
            "who may change those can do it.",
            code="merge.beyond_profile",
        )
    return result


def _mergeable(ctx: Ctx, key: str) -> Kind:
    kind = ctx.schema.kind(key)
    if kind is None or not ctx.profile.sees(kind):
        raise Refused("There is no such kind for you.", code="kind.unknown")
    if kind.system or kind.ledger is not None:
        raise Clash("Records of this kind are not merged.", code="merge.kind")
    return kind


def _check_asked(winner: UUID, losers: Sequence[UUID]) -> None:
    detail = ""
    if not 0 < len(losers) <= AT_ONCE:
        detail = f"Expected 1 to {AT_ONCE} records."
    elif winner in losers or len(set(losers)) < len(losers):
        detail = "Each record once, and not the one that stays."
    if detail:
        raise Invalid(detail, faults=(FieldFault("/from", "out_of_range", detail),))


def _fields(
    ctx: Ctx, kind: Kind, states: Sequence[RecordState], chosen: Mapping[str, UUID]
) -> Iterator[Taken]:
    """The fields that the actor may write and on which the records differ."""
    modes = ctx.profile.grant(kind.key).fields
    by_id = {s.id: s for s in states}
    for name, ident in chosen.items():
        field = kind.by_name.get(name)
        if (
            field is None
            or modes.get(field.fid, Mode.HIDDEN) is not Mode.WRITE
            or ident not in by_id
        ):
            detail = "Expected a field that you may write, and one of the records."
            raise Invalid(detail, faults=(FieldFault("/fields", "choice_unknown", detail),))
    for register in kind.registers().values():
        source = _source(
            register, states, [by_id[chosen[f.name]] for f in register if f.name in chosen]
        )
        for field in register:
            if not _is_typed(field) or modes.get(field.fid, Mode.HIDDEN) is not Mode.WRITE:
                continue
            values = {s.id: s.data.get(field.fid) for s in states}
            if any(v != values[states[0].id] for v in values.values()):
                all_of_it = field.policy is Policy.SET and field.name not in chosen
                result = _union(values.values()) if all_of_it else source.data.get(field.fid)
                yield Taken(field.name, values, result)


def _source(
    register: Sequence[Field], states: Sequence[RecordState], chosen: Sequence[RecordState]
) -> RecordState:
    """Whose values a register takes: a merge group is taken whole, from one record."""
    if chosen:
        return chosen[0]
    filled = (s for s in states if any(s.data.get(f.fid) is not None for f in register))
    return next(filled, states[0])


def _is_typed(field: Field) -> bool:
    """Whether people set it: not what the server computes or found out."""
    return type_of(field.type).stored and not {"formula", FILLS} & field.options.keys()


def _union(values: Iterable[Json]) -> Json:
    members = {str(m) for v in values if isinstance(v, list) for m in v}
    return [*sorted(members)] or None


async def _pointing(
    db: Database, ctx: Ctx, kind: Kind, winner: UUID, losers: Sequence[UUID]
) -> AsyncIterator[Command]:
    """An edit for every record that points to one of the losers."""
    asked = [
        (other, fields)
        for other in ctx.schema.kinds.values()
        if (
            fields := [
                f
                for f in other.fields
                if f.option("target") == kind.key and f.type.startswith("reference")
            ]
        )
    ]
    calls = []
    for other, fields in asked:
        points = " OR ".join(f"({points_at(f)})" for f in fields)
        text = _POINTING.format(columns=COLUMNS, table=other.table, points=f"({points})")
        args = (ctx.tenant, other.key, list(losers), limits.BATCH_COMMANDS_MAX + 1)
        calls.append((Statement(text), args))
    answers = await db.read(ctx.tenant, *calls) if calls else []
    for (other, fields), rows in zip(asked, answers, strict=True):
        if len(rows) and (other.ledger is not None or not other.enabled):
            why = "an entry of a ledger" if other.ledger else "a module that is switched off"
            raise Clash(
                f"What you merge is named by {why}, which cannot be changed; keep that record and "
                "merge the others into it.",
                code="merge.named",
            )
        for state in map(read_state, rows):
            if state.id not in losers:
                yield _point_anew(other, fields, state, winner, losers)


def _point_anew(
    kind: Kind, fields: Sequence[Field], state: RecordState, winner: UUID, losers: Sequence[UUID]
) -> Command:
    gone = set(map(str, losers))
    values: dict[str, Json] = {}
    for field in fields:
        held = state.data.get(field.fid)
        ids = references_in(field, held)
        if gone & set(ids):
            # The one that stays does not point to itself.
            kept = sorted({i if i not in gone else str(winner) for i in ids} - {str(state.id)})
            several: Json = [*kept] or None
            values[field.name] = several if isinstance(held, list) else next(iter(kept), None)
    return Command(op=Op.UPDATE, kind=kind.key, id=state.id, fields=values)
