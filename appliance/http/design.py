"""Kinds and fields as commands: what a designer asks for, in records of `sys.*` kinds.

A new kind or field is closed until granted, so the same change grants it: to the profile of its
maker, and to those named. A shipped profile gets what it is shipped with for fields of that
sensitivity, any other one everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from appliance.access.shipped import grant_of, mode_of, shipped
from appliance.base.errors import FieldFault, Invalid, Refused
from appliance.http.ask import Ask
from appliance.kernel.kind import Field, Home, Json, Kind, Labels
from appliance.kernel.profile import Mode
from appliance.kernel.query import And, Cond, Item, Query, Test
from appliance.meta import build_field
from appliance.read import run
from appliance.write import Command, Effect, Op

_ALL = dict.fromkeys(("read", "create", "update", "delete", "restore", "export", "import"), "all")
_PAGE = 1_000


class NewField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field to make; see docs/fields.md for types and their options."""

    name: str
    type: str
    labels: Labels | UnsetType = UNSET
    help: Labels | UnsetType = UNSET
    options: dict[str, Json] | UnsetType = UNSET
    required: bool | UnsetType = UNSET
    default: Json | UnsetType = UNSET
    min: str | UnsetType | None = UNSET
    max: str | UnsetType | None = UNSET
    pattern: str | UnsetType | None = UNSET
    sensitivity: str | UnsetType = UNSET
    filterable: bool | UnsetType = UNSET
    searchable: bool | UnsetType = UNSET
    unique: bool | UnsetType = UNSET
    policy: str | UnsetType = UNSET
    group: str | UnsetType | None = UNSET
    order: int | UnsetType = UNSET


class NewKind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind to make. `grant_to` names profiles beside your own that get it."""

    key: str
    labels: Labels = {}
    help: Labels | UnsetType = UNSET
    home: str = "unit"
    display: str | UnsetType = UNSET
    series: str | UnsetType = UNSET
    layout: Json | UnsetType = UNSET
    fields: list[NewField] = []
    grant_to: list[str] = []


class Granted(msgspec.Struct, frozen=True):
    """A profile that a change grants something."""

    id: UUID
    key: str


def kind_commands(new: NewKind, profiles: Sequence[Granted]) -> list[Command]:
    """One batch: the kind, its fields, the grants."""
    values = {k: v for k, v in _values(new).items() if k not in ("fields", "grant_to")}
    commands = [Command(op=Op.CREATE, kind="sys.kind", fields=values)]
    fields: list[Field] = []
    for place, field in enumerate(new.fields):
        entry = {"order": place, **_values(field), "kind": new.key}
        commands.append(Command(op=Op.CREATE, kind="sys.field", fields=entry))
        if (built := _built(entry)) is not None:
            fields.append(built)
    home = Home(new.home) if new.home in Home.__members__.values() else Home.UNIT
    kind = Kind(key=new.key, fields=tuple(fields), home=home)
    for profile in profiles:
        grant: dict[str, Json] = {"profile": str(profile.id), "kind": new.key}
        commands.append(
            Command(op=Op.CREATE, kind="sys.grant", fields={**grant, **_kind_grant(profile, kind)})
        )
    return commands


async def field_commands(
    ask: Ask, kind: Kind, new: NewField, profiles: Sequence[Granted]
) -> list[Command]:
    """One batch: the field, and the grants of its kind that now open it."""
    entry = {"order": len(kind.fields), **_values(new), "kind": kind.key}
    commands = [Command(op=Op.CREATE, kind="sys.field", fields=entry)]
    built = _built(entry)
    # A name that was used before gets a marked id in the write path; its mode goes by that.
    fid = await _next_fid(ask, kind, new.name)
    for profile in profiles:
        mode = _field_mode(profile, kind, built)
        for grant in await rows_of(ask, "sys.grant", "profile", str(profile.id)):
            if grant["kind"] == kind.key:
                fields: dict[str, Json] = {"fields": {**(grant["fields"] or {}), fid: mode}}
                commands.append(
                    Command(op=Op.UPDATE, kind="sys.grant", id=UUID(grant["id"]),
                            fields=fields, expect=grant["version"])
                )  # fmt: skip
    return commands


async def find_profiles(ask: Ask, named: Sequence[str]) -> list[Granted]:
    """The profile of the one who asks, and the named ones. Raises Invalid for an unknown one."""
    own = ask.ctx.profile
    found = {own.key: Granted(UUID(own.id), own.key)}
    missing = [key for key in named if key not in found]
    if missing:
        for row in await rows_of(ask, "sys.profile", None, None):
            if row["key"] in missing:
                found[row["key"]] = Granted(UUID(row["id"]), row["key"])
    faults = tuple(
        FieldFault(f"/grant_to/{n}", "profile_unknown", "There is no such profile for you.")
        for n, key in enumerate(named)
        if key not in found
    )
    if faults:
        raise Invalid("Nothing was written; see `errors`.", faults=faults)
    return list(found.values())


async def rows_of(ask: Ask, kind: str, field: str | None, value: Json) -> list[dict[str, Any]]:
    """Configuration records of a kind, through the read path, with all their fields on top."""
    known = ask.ctx.schema.kinds[kind]
    readable = [f.name for f in known.fields if ask.ctx.profile.mode(kind, f) >= Mode.READ]
    select = tuple(Item(name, None, name, "") for name in ("id", "version", *readable))
    where: Cond = Test(field, "eq", value, "") if field else And(())
    rows: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        query = Query(source=kind, select=select, where=where, limit=_PAGE, after=after)
        page = await run(ask.node.db, ask.ctx, query, ask.node.cursors)
        rows += [msgspec.json.decode(r) for r in page.rows]
        after = page.next
        if after is None:
            return rows


async def find_field(ask: Ask, kind: Kind) -> UUID:
    """The record of a field by the name in the path. Raises Refused."""
    for row in await rows_of(ask, "sys.field", "kind", kind.key):
        if row["name"] == ask.names["field"]:
            return UUID(row["id"])
    raise Refused("There is no such field for you.", code="field.unknown")


def granted_effects(profiles: Sequence[Granted]) -> tuple[Effect, ...]:
    """What a change granted, for its list of effects."""
    return tuple(Effect(f"granted.{p.key}", 1) for p in profiles)


def _values(given: msgspec.Struct) -> dict[str, Json]:
    pairs = ((name, getattr(given, name)) for name in given.__struct_fields__)
    return {name: value for name, value in pairs if value is not UNSET}


def _built(entry: dict[str, Json]) -> Field | None:
    """The field as the compiler will see it; None when the write path will refuse it anyway."""
    try:
        return build_field(entry)
    except ValueError:
        return None


def _kind_grant(profile: Granted, kind: Kind) -> dict[str, Json]:
    known = shipped().get(profile.key)
    found = grant_of(known, kind) if known else None
    modes: dict[str, Json] = {f.fid: "write" for f in kind.fields}
    return found or {"actions": dict(_ALL), "fields": modes}


def _field_mode(profile: Granted, kind: Kind, field: Field | None) -> str:
    known = shipped().get(profile.key)
    if known is None or field is None:
        return "write"
    alone = Kind(key=kind.key, fields=(field,), home=kind.home)
    found = grant_of(known, alone)
    modes = found["fields"] if found else None
    mode = modes.get(field.fid) if isinstance(modes, dict) else None
    return str(mode) if mode else mode_of(known, field, writes=False)


async def _next_fid(ask: Ask, kind: Kind, name: str) -> str:
    """The id the write path gives a field of this name: its name, unless it was used before."""
    origin = ask.ctx.origin
    used = 0
    for row in await _former(ask, kind.key):
        if row == name or row.startswith(f"{name}~"):
            used += 1
    mark = f"~{origin}" if origin != 1 or used else ""
    return f"{name}{mark}" + (f".{used}" if used else "")


async def _former(ask: Ask, kind: str) -> list[str]:
    live = [str(r.get("fid") or r["name"]) for r in await rows_of(ask, "sys.field", "kind", kind)]
    item = (Item("id", None, "id", ""), Item("fid", None, "fid", ""))
    where = Test("kind", "eq", kind, "")
    query = Query(source="sys.field", select=item, where=where, limit=_PAGE, deleted=True)
    page = await run(ask.node.db, ask.ctx, query, ask.node.cursors)
    return live + [str(msgspec.json.decode(r).get("fid")) for r in page.rows]
