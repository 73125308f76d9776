"""Conflicts for people: both values side by side, who wrote them when, and what can be done.

Names of people, texts of other records and earlier values come through the read path or the log
with the reader's own rights; what they may not see is said to be elsewhere, without content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.base.clock import hlc_moment
from appliance.db.database import Database
from appliance.kernel.change import Entry
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.profile import Mode
from appliance.kernel.stamps import EXISTS
from appliance.read import fetch
from appliance.sync.conflicts import (
    DELETED,
    FIELD,
    PROPOSAL,
    SYSTEM_NAMES,
    Held,
    display_text,
    moment_of,
    narrowed,
    visible,
)
from appliance.sync.conflicts import Side as Stored
from appliance.write.clashes import NEGATIVE, UNIQUE
from appliance.write.dangling import DANGLING
from appliance.write.trail import read_entry, trail_call

# What can be done about each sort: the words of POST …/resolve, or of the record's own address.
ACTIONS = {
    FIELD: ("choose", "values"),
    PROPOSAL: ("choose", "values"),
    DELETED: ("keep_deleted", "restore"),
    UNIQUE: ("values",),
    DANGLING: ("values",),
    NEGATIVE: ("reverse_entry", "count_entry"),
}


class Side(msgspec.Struct, frozen=True):
    """One of the values. `choose` takes its `dot`; `is_shown`: the record shows this one now.

    Of `unique` another `record` that holds the value, of `dangling_ref` the `record` that is not
    there; `text` says what it is called, null where the reader may not see it.
    """

    dot: str | None = None
    values: dict[str, Json] = {}
    who: UUID | None = None
    who_text: str | None = None
    at: str | None = None
    is_shown: bool = False
    is_mine: bool = False
    record: UUID | None = None
    text: str | None = None


class FieldSides(msgspec.Struct, frozen=True):
    """A field as a stale edit is answered: mine, theirs, what both started from, who and when."""

    field: str
    mine: Json
    theirs: Json
    base: Json
    who: UUID | None
    at: str | None


class Shown(msgspec.Struct, frozen=True):
    """One conflict; `version` is the If-Match of whoever decides it, `actions` what can be done."""

    record: UUID
    kind: str
    sort: str
    register: str
    fields: list[str]
    text: str | None
    unit: UUID | None
    owner: UUID | None
    version: str
    is_deleted: bool
    since: datetime
    sides: list[Side]
    actions: list[str]
    conflicts: list[FieldSides] = []


async def show_many(db: Database, ctx: Ctx, helds: Sequence[Held]) -> list[Shown]:
    """Conflicts of a list, with names and texts, without what both started from."""
    people = await names_of_people(db, ctx, {s.actor for h in helds for s in h.sides if s.actor})
    texts = await _texts(db, ctx, helds)
    return [_shown(ctx, held, people, texts) for held in helds]


async def show_one(db: Database, ctx: Ctx, held: Held) -> Shown:
    """One conflict with everything that is known of it, out of the record's log."""
    (shown,) = await show_many(db, ctx, [held])
    (rows,) = await db.read(ctx.tenant, trail_call(ctx.tenant, [held.record]))
    entries = {_name_of(e): e for e in map(read_entry, rows)}
    if held.sort == DELETED:
        return msgspec.structs.replace(shown, sides=_with_edits(ctx, held, shown.sides, entries))
    if held.sort not in (FIELD, PROPOSAL):
        return shown
    return msgspec.structs.replace(shown, conflicts=_field_sides(ctx, held, entries))


def _shown(ctx: Ctx, held: Held, people: Mapping[UUID, str], texts: Mapping[UUID, str]) -> Shown:
    now = held.shown()
    names = visible(ctx, held.kind, now)
    if held.sort == UNIQUE:
        sides = [Side(values=names, record=held.record, text=display_text(ctx, held))]
        sides += [
            Side(values=names if s.record in texts else {}, record=_if_seen(s.record, texts),
                 text=texts.get(s.record))
            for s in held.sides if s.record is not None and s.record != held.record
        ]  # fmt: skip
    elif held.sort == DANGLING:
        sides = [Side(record=s.target, text=texts.get(s.target)) for s in held.sides if s.target]
    else:
        sides = [_side(ctx, held, side, people, now) for side in held.sides]
    return Shown(
        record=held.record, kind=held.kind.key, sort=held.sort, register=held.register,
        fields=list(names), text=display_text(ctx, held), unit=held.unit, owner=held.owner,
        version=narrowed(ctx, held), is_deleted=held.is_deleted, since=moment_of(held),
        sides=sides, actions=list(ACTIONS.get(held.sort, ())),
    )  # fmt: skip


def _side(
    ctx: Ctx, held: Held, side: Stored, people: Mapping[UUID, str], now: dict[str, Json]
) -> Side:
    whole = {fid: side.values.get(fid) for fid in held.fids} or {
        fid: value for fid, value in side.values.items() if fid != EXISTS
    }
    is_gone = side.values.get(EXISTS) is False
    return Side(
        dot=side.dot or None,
        values={"deleted": True} if is_gone else visible(ctx, held.kind, whole),
        who=side.actor,
        who_text=people.get(side.actor) if side.actor else None,
        at=side.at,
        is_shown=is_gone == held.is_deleted if held.sort == DELETED else whole == now,
        is_mine=side.actor == ctx.actor,
    )


def _if_seen(ident: UUID, texts: Mapping[UUID, str]) -> UUID | None:
    return ident if ident in texts else None


def _field_sides(ctx: Ctx, held: Held, entries: Mapping[str, Entry]) -> list[FieldSides]:
    """Mine is what I wrote, or what the record shows; theirs is the newest of the others."""
    if len(held.sides) < 2:
        return []
    now = held.shown()
    own = [s for s in held.sides if s.actor == ctx.actor]
    same = [s for s in held.sides if {f: s.values.get(f) for f in held.fids} == now]
    mine = (own or same or list(held.sides))[0]
    theirs = max((s for s in held.sides if s is not mine), key=lambda s: s.at or "")
    base = _base(held, theirs, entries)
    left, right, origin = (
        visible(ctx, held.kind, {fid: values.get(fid) for fid in held.fids})
        for values in (mine.values, theirs.values, base)
    )
    return [
        FieldSides(name, left[name], right[name], origin[name], theirs.actor, theirs.at)
        for name in left
        if left[name] != right[name]
    ]


def _base(held: Held, side: Stored, entries: Mapping[str, Entry]) -> dict[str, Json]:
    """What a side replaced: the values of the entry that its author saw; nothing once compacted."""
    entry = entries.get(_qualified(side.dot, held.stream))
    seen = entry.body.base.get(held.register, []) if entry else []
    dots = (_qualified(dot, entry.stream) for dot in seen) if entry else ()
    for dot in dots:
        if dot in entries:
            return entries[dot].body.fields
    return {}


def _with_edits(
    ctx: Ctx, held: Held, sides: Iterable[Side], entries: Mapping[str, Entry]
) -> list[Side]:
    """What the edits were that the one who deleted had not seen."""
    found: list[Side] = []
    for side in sides:
        entry = entries.get(_qualified(side.dot or "", held.stream))
        if entry is not None:
            at, who = hlc_moment(entry.hlc).isoformat(), entry.actor
            values = side.values or visible(ctx, held.kind, dict(entry.body.fields))
            changed = msgspec.structs.replace(side, values=values, at=side.at or at, who=who)
        found.append(changed if entry is not None else side)
    return found


def _name_of(entry: Entry) -> str:
    return _qualified(entry.dot, entry.stream)


def _qualified(dot: str, stream: UUID) -> str:
    return dot if "@" in dot else f"{dot}@{stream.hex}"


async def names_of_people(db: Database, ctx: Ctx, ids: set[UUID]) -> dict[UUID, str]:
    """Names of people, for those who may read them."""
    person = ctx.schema.kind("sys.person")
    if not ids or person is None or not ctx.profile.sees(person):
        return {}
    if ctx.profile.mode("sys.person", person.by_name["name"]) < Mode.READ:
        return {}
    rows = await fetch(db, ctx, "sys.person", sorted(ids), display=False)
    return {i: str(msgspec.json.decode(row)["fields"].get("name")) for i, row in rows.items()}


async def _texts(db: Database, ctx: Ctx, helds: Sequence[Held]) -> dict[UUID, str]:
    """What other records of clashes are called, as far as the reader may read them."""
    by_kind: dict[str, set[UUID]] = {}
    for held in helds:
        if held.sort == UNIQUE:
            others = {s.record for s in held.sides if s.record is not None}
            by_kind.setdefault(held.kind.key, set()).update(others - {held.record})
        elif held.sort == DANGLING:
            field = held.kind.by_fid.get(held.register)
            key = str(field.option("target")) if field else ""
            by_kind.setdefault(key, set()).update(s.target for s in held.sides if s.target)
    found: dict[UUID, str] = {}
    for key, ids in by_kind.items():
        kind = ctx.schema.kind(key)
        if kind is None or not ids or not ctx.profile.sees(kind):
            continue
        for ident, row in (await fetch(db, ctx, key, sorted(ids), display=False)).items():
            record = msgspec.json.decode(row)
            display = kind.by_name.get(kind.display or "")
            is_readable = display and ctx.profile.mode(key, display) >= Mode.READ
            text = record["fields"].get(kind.display) if is_readable else None
            found[ident] = str(text or record.get("number") or "")
    return found


def names_of(held: Held, fids: Iterable[str]) -> dict[str, str]:
    """API names of fields by field id."""
    return {
        fid: SYSTEM_NAMES.get(fid) or held.kind.by_fid[fid].name
        for fid in fids
        if fid in SYSTEM_NAMES or fid in held.kind.by_fid
    }
