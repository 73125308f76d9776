"""Whether a thing is here already, also where the asker may not look: that it is, and whom to ask.

Compared are the fields that tell one thing from another: unique ones, addresses and telephone
numbers, and what the kind is called by. A record within the asker's reach is named; of any other
only its unit and owner are said, and which of the given values it shares.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.db.database import Database
from appliance.db.wire import Call, Statement
from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.profile import Mode
from appliance.read.names import readable_kind, visible_fields
from appliance.read.run import fetch

MOST = 20
_TELLING = frozenset({"email", "phone"})
_NAMES = Statement(
    "SELECT id::text, data->>'name' FROM record WHERE tenant_id = $1 AND kind = 'sys.person' "
    "AND id = ANY($2::uuid[])"
)


class Duplicate(msgspec.Struct, frozen=True):
    """One record that may be the same. `record` is None where the asker may not read it."""

    fields: list[str]
    unit: str | None
    owner: str | None
    record: msgspec.Raw | None


async def find_duplicates(
    db: Database, ctx: Ctx, key: str, values: dict[str, Json], *, besides: UUID | None = None
) -> list[Duplicate]:
    """Records of the kind that share a telling value, whoever they belong to.

    Values that cannot be read as their field's type are left out: saving them says what is wrong.
    Raises Invalid for a kind the reader may not read.
    """
    kind = readable_kind(ctx, key, "/kind")
    asked = [(f, call) for f in _telling(ctx, kind) if (call := _call(ctx, kind, f, values))]
    shared: dict[UUID, tuple[UUID | None, UUID | None, list[str]]] = {}
    answers = await db.read(ctx.tenant, *(call for _, call in asked)) if asked else []
    for (field, _), rows in zip(asked, answers, strict=True):
        for ident, unit, owner in rows:
            found = UUID((ident or b"").decode())
            if found != besides:
                entry = shared.setdefault(found, (_uuid(unit), _uuid(owner), []))
                entry[2].append(field.name)
    seen = await fetch(db, ctx, key, list(shared)) if shared else {}
    names = await _names(db, ctx, [o for _, o, _ in shared.values() if o is not None])
    return [
        Duplicate(
            fields, ctx.unit_tree[unit].name if unit in ctx.unit_tree else None,
            names.get(owner) if owner else None,
            msgspec.Raw(seen[ident]) if ident in seen else None,
        )
        for ident, (unit, owner, fields) in list(shared.items())[:MOST]
    ]  # fmt: skip


def _telling(ctx: Ctx, kind: Kind) -> list[Field]:
    """Fields that tell one thing from another and that the asker may read in full."""
    return [
        f for f, mode in visible_fields(ctx, kind)
        if mode >= Mode.READ and f.slot and f.slot_ready
        and (f.unique or f.type in _TELLING or f.name == kind.display)
    ]  # fmt: skip


def _call(ctx: Ctx, kind: Kind, field: Field, values: dict[str, Json]) -> Call | None:
    value, type_ = values.get(field.name), type_of(field.type)
    if value in (None, ""):
        return None
    try:
        wanted = type_.slot_value(field, type_.accept(field, value))
    except ValueFault:
        return None
    cast = "text" if str(field.slot).startswith("t") else "bigint"
    statement = Statement(
        f"SELECT id::text, unit_id::text, owner_id::text FROM {kind.table} WHERE tenant_id = $1 "
        f"AND kind = $2 AND deleted_at IS NULL AND {field.slot} = $3::{cast} LIMIT {MOST}"
    )
    return statement, (ctx.tenant, kind.key, wanted)


async def _names(db: Database, ctx: Ctx, people: list[UUID]) -> dict[UUID, str]:
    if not people:
        return {}
    (rows,) = await db.read(ctx.tenant, (_NAMES, (ctx.tenant, sorted(set(people)))))
    return {UUID((i or b"").decode()): (name or b"").decode() for i, name in rows}


def _uuid(value: bytes | None) -> UUID | None:
    return UUID(value.decode()) if value is not None else None
