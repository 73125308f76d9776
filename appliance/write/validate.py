"""Stage 2: against the kind and the profile's field modes, all faults at once.

Pure but for the compiled schema in the context, so hub and site agree. Pointers are relative to
the command (`/fields/amount`); the door puts the place of the command in front.
"""

from __future__ import annotations

from uuid import UUID

from msgspec import UNSET

from appliance.base.errors import FieldFault
from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import FILLS, PRICE_FOR, Field, Json, Kind
from appliance.kernel.ledger import REVERSES
from appliance.kernel.profile import Mode, ScopeKind
from appliance.kernel.stamps import Stamps
from appliance.write.command import Command, Op
from appliance.write.draft import Draft
from appliance.write.entries import check_entry, complete_entry, id_of

# What a door may do without a profile's leave: install and system run before there are profiles,
# sync was authorised at the node that made the entry.
UNPROFILED = frozenset({Door.INSTALL, Door.SYSTEM, Door.SYNC})


def validate(ctx: Ctx, place: int, command: Command, new_id: UUID) -> Draft:
    """The draft of a command, with canonical values or faults."""
    kind = ctx.schema.kind(command.kind)
    draft = Draft(place, command, command.id or (kind and id_of(kind, command)) or new_id)
    if kind is None or not _may(ctx, kind, command.op):
        _refuse_kind(ctx, draft, kind)
        return draft
    draft.kind = kind
    if not check_entry(ctx, draft, kind):
        return draft
    if command.op is not Op.CREATE and command.id is None:
        draft.fault("/id", "required", "Say which record: its id is missing.")
    if command.op in (Op.DELETE, Op.RESTORE) and command.fields:
        draft.fault("/fields", "unexpected", f"A {command.op} takes no fields.")
        return draft
    if command.expect is not None and Stamps.parse(command.expect) is None:
        draft.fault("/version", "version_unreadable", "This is not a version this node gave out.")
    _accept_values(ctx, draft, kind)
    _check_unit(ctx, draft, kind)
    if command.op is Op.CREATE:
        _complete(ctx, draft, kind)
        if kind.ledger is not None:
            complete_entry(ctx, draft, kind)
    return draft


def _may(ctx: Ctx, kind: Kind, op: Op) -> bool:
    return ctx.door in UNPROFILED or ctx.profile.scope(kind.key, op).kind is not ScopeKind.NONE


def _refuse_kind(ctx: Ctx, draft: Draft, kind: Kind | None) -> None:
    op = draft.command.op
    if kind is not None and ctx.profile.sees(kind):
        draft.fault("/kind", "action_denied", f"Your profile may not {op} here.", status=403)
    else:
        draft.fault("/kind", "kind_unknown", "There is no such kind for you.", status=404)


def _accept_values(ctx: Ctx, draft: Draft, kind: Kind) -> None:
    names = kind.by_name
    profiled = ctx.door not in UNPROFILED
    modes = ctx.profile.grant(kind.key).fields
    for name, value in draft.command.fields.items():
        field = names.get(name)
        mode = modes.get(field.fid, Mode.HIDDEN) if field and profiled else Mode.WRITE
        if field is None or mode is Mode.HIDDEN:
            draft.fault(f"/fields/{escape(name)}", "unknown_field", "There is no such field here.")
        elif "formula" in field.options:
            draft.fault(f"/fields/{name}", "computed", "This field is computed; leave it out.")
        elif FILLS in field.options and profiled and not draft.command.restoring:
            draft.fault(f"/fields/{name}", "computed", "The server fills this field; leave it out.")
        elif mode is not Mode.WRITE:
            draft.fault(f"/fields/{name}", "read_only", "Your profile may not change this field.")
        elif value is None:
            if field.required and PRICE_FOR not in field.options:
                draft.fault(f"/fields/{name}", "required", "This field cannot be empty.")
            draft.values[field.fid] = None
        else:
            accept_one(draft, field, value)


def accept_one(draft: Draft, field: Field, value: Json) -> None:
    """The canonical form into the draft, or a fault that says what was expected."""
    try:
        type_ = type_of(field.type)
        # What a record may hold already is judged beside what it holds (fit).
        take = type_.accept_held if draft.command.op is Op.UPDATE else type_.accept
        draft.values[field.fid] = take(field, value)
    except ValueFault as bad:
        draft.faults.append(FieldFault(f"/fields/{field.name}", bad.code, bad.detail))


def _check_unit(ctx: Ctx, draft: Draft, kind: Kind) -> None:
    unit = draft.command.unit
    if unit is UNSET or unit is None or ctx.door in UNPROFILED:
        return
    assert isinstance(unit, UUID), "decoded by the door"
    if unit not in ctx.unit_tree:
        draft.fault("/unit", "unit_unknown", "There is no such unit for you.")


def _complete(ctx: Ctx, draft: Draft, kind: Kind) -> None:
    """Defaults, required fields, unit and owner of a new record."""
    command = draft.command
    # What a reversing entry lacks comes from the entry it reverses.
    derived = kind.ledger is not None and REVERSES in draft.values
    for field in kind.fields:
        if (
            field.fid in draft.values
            or not type_of(field.type).stored
            or "formula" in field.options
        ):
            continue
        if field.default is not None:
            accept_one(draft, field, field.default)
        elif PRICE_FOR in field.options:
            continue  # Found later: see prices.
        elif field.required and field.name not in command.fields and not derived:
            draft.fault(f"/fields/{field.name}", "required", "This field cannot be empty.")
    draft.values = {fid: v for fid, v in draft.values.items() if v is not None}
    draft.owner = ctx.actor if command.owner is UNSET else command.owner
    if kind.home != "unit":
        draft.unit = None
    else:
        draft.unit = ctx.unit if command.unit is UNSET else command.unit
        if draft.unit is None and not derived and kind.belonging is None:
            draft.fault("/unit", "required", "Say which unit the record belongs to.")


def escape(name: str) -> str:
    """One reference token of an RFC 6901 pointer, bounded."""
    return name[:80].replace("~", "~0").replace("/", "~1")
