"""Convert a record into what it leads to: a lead into a customer and a deal, in one change.

Data says what: a reference with the option `makes` is filled by making its target, from the
fields that the option names and from those that both kinds call the same; a choice with the
option `converted` says so afterwards. Nothing is lost: the record stays, and points to what was
made of it. One undo of the change set takes it all back.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import msgspec

from appliance.base.errors import Clash, FieldFault, Invalid, Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx
from appliance.kernel.kind import CONVERTED, FILLS, MAKES, Field, Json, Kind
from appliance.kernel.profile import Mode
from appliance.kernel.record import RecordState
from appliance.write.authorize import in_scope
from appliance.write.command import Command, Op
from appliance.write.load import COLUMNS, read_state

_READ = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND kind = $2 AND id = $3 "
    "AND deleted_at IS NULL"
)
ITSELF = "@id"


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do about one thing to make: take a record that is there, set fields, or leave it."""

    id: UUID | None = None
    fields: dict[str, Json] = {}
    skip: bool = False


async def plan_conversion(
    db: Database, ctx: Ctx, key: str, ident: UUID, wishes: Mapping[str, Wish], expect: str | None
) -> list[tuple[str, Command]]:
    """The commands of a conversion, each with the field that it fills (the last: the record's own).

    Raises Refused, Clash when it was converted already, Invalid.
    """
    kind = ctx.schema.kind(key)
    if kind is None or not ctx.profile.sees(kind):
        raise Refused("There is no such kind for you.", code="kind.unknown")
    (rows,) = await db.read(ctx.tenant, (_READ, (ctx.tenant, key, ident)))
    row = rows.first()
    state = read_state(row) if row else None
    if state is None or not in_scope(ctx, ctx.profile.scope(key, "read"), state, kind):
        raise Refused("There is no such record for you.", code="record.unknown")
    makers = [f for f in kind.fields if isinstance(f.option(MAKES), dict)]
    if not makers:
        raise Clash("Nothing is made of records of this kind.", code="convert.kind")
    if any(
        state.data.get(f.fid) == f.option(CONVERTED) for f in kind.fields if f.option(CONVERTED)
    ):
        raise Clash("This was converted already.", code="convert.done")
    _check_wishes(makers, wishes)
    planned: list[tuple[str, Command]] = []
    # What was made before can be pointed to by what is made next.
    values = {**_readable(ctx, kind, state), ITSELF: str(state.id)}
    own: dict[str, Json] = {}
    for maker in makers:
        wish = wishes.get(maker.name, Wish())
        if wish.skip or (values.get(maker.name) is not None and wish.id is None):
            continue
        made = wish.id or uuid7()
        if wish.id is None:
            planned.append((maker.name, _creation(ctx, maker, made, values, wish, state)))
        own[maker.name] = values[maker.name] = str(made)
    for field in kind.fields:
        if field.option(CONVERTED):
            own[field.name] = field.option(CONVERTED)
    planned.append(("", Command(op=Op.UPDATE, kind=key, id=ident, fields=own, expect=expect)))
    return planned


def _check_wishes(makers: list[Field], wishes: Mapping[str, Wish]) -> None:
    unknown = sorted(wishes.keys() - {f.name for f in makers})
    if unknown:
        detail = f"Expected: {', '.join(f.name for f in makers)}."
        raise Invalid(detail, faults=(FieldFault("/into", "unknown_field", detail),))


def _readable(ctx: Ctx, kind: Kind, state: RecordState) -> dict[str, Json]:
    """The record's values by name, as far as the actor reads them in full."""
    modes = ctx.profile.grant(kind.key).fields
    return {
        f.name: state.data[f.fid]
        for f in kind.fields
        if f.fid in state.data and modes.get(f.fid, Mode.HIDDEN) >= Mode.READ
    }


def _creation(
    ctx: Ctx, maker: Field, ident: UUID, values: Mapping[str, Json], wish: Wish, state: RecordState
) -> Command:
    target = ctx.schema.kind(str(maker.option("target")))
    if target is None:
        detail = f"{maker.option('target')} is switched off; send skip or the id of a record."
        raise Invalid(detail, faults=(FieldFault(f"/into/{maker.name}", "kind_unknown", detail),))
    named = maker.option(MAKES)
    assert isinstance(named, dict), "asked of makers"
    modes = ctx.profile.grant(target.key).fields
    fields: dict[str, Json] = {}
    for field in target.fields:
        if (
            not {"formula", FILLS, CONVERTED} & field.options.keys()
            and modes.get(field.fid) is Mode.WRITE
        ):
            value = _value(field, named, values)
            if value is not None:
                fields[field.name] = value
    return Command(
        op=Op.CREATE, kind=target.key, id=ident, fields={**fields, **wish.fields},
        unit=state.unit, owner=state.owner,
    )  # fmt: skip


def _value(field: Field, named: Mapping[str, Json], values: Mapping[str, Json]) -> Json:
    """The first of the named sources that has one; a field of the same name otherwise."""
    sources = named.get(field.name, field.name)
    found = (values.get(name.strip()) for name in str(sources).split("|"))
    return next((v for v in found if v is not None), None)
