"""Where a file may hang and who may see it: the rights of a file are those of its record.

Until it is released a file exists for who brought it and for reviewers alone. A released one is
seen by who reads the record that it hangs on, and the field, when it hangs in one.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.base.errors import FieldFault, Forbidden, Invalid, Refused
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.files.rows import File
from appliance.files.states import FileState
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Kind
from appliance.kernel.profile import Mode
from appliance.kernel.record import RecordState
from appliance.write.authorize import in_scope
from appliance.write.load import COLUMNS, read_state

REVIEW = "files.review"
_RECORD = Statement(
    f"SELECT {COLUMNS} FROM record WHERE tenant_id = $1 AND kind = $2 AND id = $3 "
    "AND deleted_at IS NULL"
)


class Place(msgspec.Struct, frozen=True):
    """A record of a kind, and the field of it, if it is to be the value of one."""

    kind: str = ""
    record: UUID | None = None
    field: str = ""


class Taking(msgspec.Struct, frozen=True):
    """What a place takes: which extensions (none named: any), how many bytes; whose unit it is."""

    extensions: tuple[str, ...]
    bytes_max: int
    unit: UUID | None


async def check_place(db: Database, ctx: Ctx, place: Place, bytes_max: int) -> Taking:
    """Whether the actor may hang a file there. Raises Refused, Forbidden, Invalid."""
    if not place.kind:
        return Taking((), bytes_max, _unit_here(ctx))
    kind, state = await _record(db, ctx, place)
    if (
        kind is None
        or state is None
        or not in_scope(ctx, ctx.profile.scope(kind.key, "read"), state, kind)
    ):
        raise Refused("There is no such record for you.", code="record.unknown")
    if not in_scope(ctx, ctx.profile.scope(kind.key, "update"), state, kind):
        raise Forbidden("Your profile may not change this record.", code="file.place_denied")
    field = _field(ctx, kind, place)
    wanted = field.option("extensions") if field else None
    most = field.option("bytes_max") if field else None
    return Taking(
        tuple(str(e).lower() for e in wanted) if isinstance(wanted, list) else (),
        min(int(str(most)), bytes_max) if most else bytes_max,
        # What every branch shares, a customer, is of no unit: its file is where it was brought.
        state.unit or _unit_here(ctx),
    )


def _unit_here(ctx: Ctx) -> UUID | None:
    """The actor's unit; at a branch that does not hold it, one of the branch's own."""
    hold = ctx.schema.hold
    if ctx.unit is None or hold is None or hold.has(ctx.unit, ctx.unit_tree):
        return ctx.unit
    return min((hold.units or hold.reach) - hold.waiting, default=ctx.unit)


async def may_see(db: Database, ctx: Ctx, file: File) -> bool:
    """Whether the file exists for the actor."""
    if file.deleted_at is not None:
        return False
    if file.owner == ctx.actor or ctx.profile.may(REVIEW):
        return True
    if file.state is not FileState.RELEASED or file.for_record is None:
        return False
    place = Place(file.for_kind, file.for_record, file.for_field)
    kind, state = await _record(db, ctx, place)
    if kind is None or state is None:
        return False
    if file.for_field:
        field = kind.by_name.get(file.for_field)
        if field is None or ctx.profile.mode(kind.key, field) < Mode.READ:
            return False
    return in_scope(ctx, ctx.profile.scope(kind.key, "read"), state, kind)


async def _record(db: Database, ctx: Ctx, place: Place) -> tuple[Kind | None, RecordState | None]:
    kind = ctx.schema.kind(place.kind)
    if (
        kind is None
        or kind.ledger is not None
        or not ctx.profile.sees(kind)
        or place.record is None
    ):
        return None, None
    (rows,) = await db.read(ctx.tenant, (_RECORD, (ctx.tenant, kind.key, place.record)))
    row = rows.first()
    return kind, read_state(row) if row else None


def _field(ctx: Ctx, kind: Kind, place: Place) -> Field | None:
    if not place.field:
        return None
    field = kind.by_name.get(place.field)
    if field is None or ctx.profile.mode(kind.key, field) is not Mode.WRITE or field.type != "file":
        detail = "Expected a field for a file that you may write."
        raise Invalid(detail, faults=(FieldFault("/field", "unknown_field", detail),))
    return field
