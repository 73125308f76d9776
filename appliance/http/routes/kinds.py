"""Kinds and fields: what there is for the reader, and how a designer makes more."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.response.base import ASGIResponse
from msgspec import UNSET, UnsetType

from appliance.base.errors import Forbidden
from appliance.db.wire import Statement
from appliance.http.answers import empty, reply
from appliance.http.ask import Ask
from appliance.http.design import (
    NewField,
    NewKind,
    field_commands,
    find_field,
    find_profiles,
    granted_effects,
    kind_commands,
)
from appliance.http.kindview import KindView, tag_of, view_kind
from appliance.http.outcomes import Placing, Written, written
from appliance.http.route import API, Book
from appliance.kernel.kind import Json, Kind, Labels
from appliance.write import Command, Effect, Op, apply

book = Book("kinds")
PATH = f"{API}/kinds"
_LAYOUTS = Statement(
    "SELECT data->>'key', data->'layout' FROM record WHERE tenant_id = $1 AND kind = 'sys.kind' "
    "AND deleted_at IS NULL AND data ? 'layout'"
)
MANAGE: dict[str, Any] = {
    "capability": "schema.manage",
    "writes": True,
    "headers": ("Idempotency-Key",),
}


class Kinds(msgspec.Struct, frozen=True):
    """All kinds the reader sees."""

    kinds: list[KindView]


class KindEdit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a kind may change; its key and home never do."""

    labels: Labels | UnsetType = UNSET
    help: Labels | UnsetType = UNSET
    display: str | UnsetType | None = UNSET
    series: str | UnsetType | None = UNSET
    layout: Json | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class FieldEdit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a field may change; its name and type never do."""

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


class AddedField(NewField, frozen=True, forbid_unknown_fields=True):
    """A field for a kind that exists; `grant_to` names profiles beside your own that get it."""

    grant_to: tuple[str, ...] = ()


@book.route("GET", PATH, capability="schema.read", gated=True, answers={200: Kinds, 304: None},
            headers=("If-None-Match",))  # fmt: skip
async def list_kinds(ask: Ask) -> ASGIResponse:
    """Every kind you see, with your field modes."""
    layouts = await _layouts(ask)
    tag = {"ETag": tag_of(ask)}
    if ask.header("if-none-match") == tag["ETag"]:
        return empty(304, tag)
    seen = [k for k in ask.ctx.schema.kinds.values() if ask.ctx.profile.sees(k)]
    views = [view_kind(ask.ctx, k, layouts.get(k.key)) for k in sorted(seen, key=lambda k: k.key)]
    return reply(Kinds(views), headers=tag)


@book.route("GET", f"{PATH}/{{kind}}", capability="schema.read", gated=True,
            answers={200: KindView, 304: None}, headers=("If-None-Match",))  # fmt: skip
async def read_kind(ask: Ask) -> ASGIResponse:
    """One kind."""
    layouts = await _layouts(ask)
    tag = {"ETag": tag_of(ask)}
    kind = ask.kind()
    if ask.header("if-none-match") == tag["ETag"]:
        return empty(304, tag)
    return reply(view_kind(ask.ctx, kind, layouts.get(kind.key)), headers=tag)


@book.route("POST", PATH, **MANAGE, body=NewKind, answers={201: Written})
async def create_kind(ask: Ask) -> ASGIResponse:
    """Make a kind with its fields, and grant it to your profile and those you name."""
    new = ask.read(NewKind)
    profiles = await find_profiles(ask, new.grant_to)
    return await _apply(
        ask, kind_commands(new, profiles), 201, granted_effects(profiles), _in_kind(len(new.fields))
    )


@book.route("PATCH", f"{PATH}/{{kind}}", **MANAGE, body=KindEdit, answers={200: Written})
async def edit_kind(ask: Ask) -> ASGIResponse:
    """Change labels, display, numbers, layout; or switch the kind off."""
    kind, fields = _own(ask), _given(ask.read(KindEdit))
    ident = msgspec.convert(kind.id, type(ask.ctx.tenant))
    return await _apply(ask, [Command(op=Op.UPDATE, kind="sys.kind", id=ident, fields=fields)], 200)


@book.route("POST", f"{PATH}/{{kind}}/fields", **MANAGE, body=AddedField, answers={201: Written})
async def create_field(ask: Ask) -> ASGIResponse:
    """Add a field; nothing is written to the records there are."""
    kind, given = _own(ask), ask.read(AddedField)
    profiles = await find_profiles(ask, given.grant_to)
    shared = {n: getattr(given, n) for n in NewField.__struct_fields__}
    commands = await field_commands(ask, kind, NewField(**shared), profiles)
    return await _apply(ask, commands, 201, granted_effects(profiles))


@book.route("PATCH", f"{PATH}/{{kind}}/fields/{{field}}", **MANAGE, body=FieldEdit,
            answers={200: Written})  # fmt: skip
async def edit_field(ask: Ask) -> ASGIResponse:
    """Change a field's labels, bounds, options and indexes."""
    fields = _given(ask.read(FieldEdit))
    ident = await find_field(ask, _own(ask))
    return await _apply(
        ask, [Command(op=Op.UPDATE, kind="sys.field", id=ident, fields=fields)], 200
    )


@book.route("DELETE", f"{PATH}/{{kind}}/fields/{{field}}", **MANAGE, answers={200: Written})
async def delete_field(ask: Ask) -> ASGIResponse:
    """Take a field away; its values stay in the log."""
    ident = await find_field(ask, _own(ask))
    return await _apply(ask, [Command(op=Op.DELETE, kind="sys.field", id=ident)], 200)


def _own(ask: Ask) -> Kind:
    """The kind from the path, if it is one of the tenant's own."""
    kind = ask.kind()
    if kind.system:
        raise Forbidden("The kinds of the system cannot be changed.", code="kind.system")
    return kind


def _given(edit: msgspec.Struct) -> dict[str, Json]:
    pairs = ((n, getattr(edit, n)) for n in edit.__struct_fields__)
    return {name: value for name, value in pairs if value is not UNSET}


def _bare(_: int, pointer: str) -> str:
    """The body is the definition itself: its keys are the fields of the record."""
    return pointer.removeprefix("/fields")


def _in_kind(count: int) -> Placing:
    """The body of a new kind: first the kind, then its fields, then who it is granted to."""

    def place(number: int, pointer: str) -> str:
        inner = _bare(number, pointer)
        if number == 0:
            return inner
        return f"/fields/{number - 1}{inner}" if number <= count else "/grant_to"

    return place


async def _apply(
    ask: Ask,
    commands: list[Command],
    status: int,
    more: tuple[Effect, ...] = (),
    placing: Placing = _bare,
) -> ASGIResponse:
    result = await apply(
        ask.node.db, ask.ctx, commands, command_id=ask.command_id(), guard=ask.gate
    )
    answer = written(result, placing)
    return reply(msgspec.structs.replace(answer, effects=(*answer.effects, *more)), status)


async def _layouts(ask: Ask) -> dict[str, Json]:
    """Layouts by kind, in the round trip that proves the session."""
    answers = await ask.node.db.read(ask.ctx.tenant, *ask.gate.calls, (_LAYOUTS, (ask.ctx.tenant,)))
    ask.gate.check(answers[:-1])
    return {
        (key or b"").decode(): msgspec.json.decode(layout or b"null") for key, layout in answers[-1]
    }
