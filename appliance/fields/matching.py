"""Conditions in memory, over one record's own columns: what row rules are tested with.

The read path compiles the same tree to SQL; tests/read compares the two over random rules.
Two-valued: a comparison with an empty value is false, `not` is its exact complement; `ne` and
`not_in` are the complements of `eq` and `in`, so they are true of an empty value.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from appliance.fields import type_of
from appliance.fields.base import SlotValue, ValueFault
from appliance.fields.texts import clean
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.period import day_start, period_days
from appliance.kernel.predicate import SYSTEM_FIELDS, RecordView, system_value
from appliance.kernel.query import And, Cond, Not, Or, Test


class _UnreadableError(Exception):
    """The condition asks for what is not among the record's own columns."""


def matches(cond: Cond, view: RecordView, ctx: Ctx, kind: Kind) -> bool:
    """Whether a condition is true of a record.

    A condition that names an unknown field, a relation, words to search for, or an operand that
    cannot be read is true of nothing, also below a `not`: a rule that is not understood grants
    nothing.
    """
    try:
        return _holds(cond, view, ctx, kind)
    except (_UnreadableError, ValueFault):
        return False


def _holds(cond: Cond, view: RecordView, ctx: Ctx, kind: Kind) -> bool:
    match cond:
        case And():
            # Every part is looked at, so that whether a rule is understood depends on no record.
            results = [_holds(c, view, ctx, kind) for c in cond.items]
            return all(results)
        case Or():
            results = [_holds(c, view, ctx, kind) for c in cond.items]
            return any(results)
        case Not():
            return not _holds(cond.item, view, ctx, kind)
        case Test():
            field = kind.by_name.get(cond.path) or SYSTEM_FIELDS.get(cond.path)
            if field is None or not is_comparable(field, cond.op):
                raise _UnreadableError
            own = field.is_column
            value = system_value(view, field.name) if own else view.data.get(field.fid)
            return compare(cond, field, value, ctx)
        case _:
            raise _UnreadableError


def is_comparable(field: Field, op: str) -> bool:
    """Whether an operator means something for a field: all but `is_null` need its slot."""
    type_ = type_of(field.type)
    if op == "is_null":
        return type_.stored
    return bool(field.slot) and op in operators_of(field)


def operators_of(field: Field) -> frozenset[str]:
    """The operators a field takes; `under` is for references to units."""
    known = type_of(field.type).operators
    return known if field.option("target") == "sys.unit" else known - {"under"}


def operand_of(field: Field, value: Json) -> SlotValue:
    """A literal in the domain of the field's column. Raises ValueFault.

    A record's number is an identifier: it is compared as it is, the others of its type without
    case.
    """
    if field.is_column and field.name == "number":
        return clean(value)
    return type_of(field.type).operand(field, value)


def held_by(field: Field, value: Json) -> SlotValue:
    """What the field's column holds for a canonical value."""
    if field.is_column and field.name == "number":
        return str(value)
    return type_of(field.type).slot_value(field, value)


def compare(test: Test, field: Field, value: Json, ctx: Ctx) -> bool:
    """Whether `value op operand` is true; the operand is read first. Raises ValueFault."""
    op = test.op
    if op == "is_null":
        return (value is None) == test.value
    if op == "ne":
        return not _is(field, "eq", value, _operands(test, field, ctx))
    if op == "not_in":
        return not _is(field, "in", value, _operands(test, field, ctx))
    return _is(field, op, value, _operands(test, field, ctx))


def _operands(test: Test, field: Field, ctx: Ctx) -> list[SlotValue]:
    """What a value is held against, by operator. Raises ValueFault."""
    wanted = test.value
    if test.op == "within":
        bounds = period_bounds(wanted, ctx, ctx.at, field.type)
        if bounds is None:
            raise ValueFault("period_unknown", "Expected a period such as this_month.")
        return [*bounds]
    if test.op == "under":
        return [*subtree_of(ctx, operand_of(field, wanted))]
    return [operand_of(field, v) for v in (wanted if isinstance(wanted, list) else [wanted])]


def _is(field: Field, op: str, value: Json, wanted: list[SlotValue]) -> bool:
    if value is None:
        return False
    type_ = type_of(field.type)
    if type_.slot == "link":
        members, asked = set(type_.members(field, value)), {str(w) for w in wanted}
        return bool(members & asked) if op == "has_any" else asked <= members
    held = held_by(field, value)
    match op:
        case "in" | "under":
            return held in wanted
        case "between":
            return _key(wanted[0]) <= _key(held) <= _key(wanted[1])
        case "contains":
            return str(wanted[0]) in str(held)
        case "starts_with":
            return str(held).startswith(str(wanted[0]))
        case "within":
            return _key(wanted[0]) <= _key(held) < _key(wanted[1])
        case _:
            return _ordered(op, _key(held), _key(wanted[0]))


def _ordered(op: str, a: str, b: str) -> bool:
    match op:
        case "eq":
            return a == b
        case "gt":
            return a > b
        case "gte":
            return a >= b
        case "lt":
            return a < b
        case "lte":
            return a <= b
        case _:
            return False


def _key(value: SlotValue) -> str:
    """One comparable form for the four sorts of slot values."""
    if isinstance(value, int):
        return f"{value + 2**63:020d}"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def period_bounds(
    value: Json, ctx: Ctx, asof: datetime, field_type: str
) -> tuple[datetime, datetime] | None:
    """A relative period as half-open moments, for a date or a moment field."""
    days = period_days(value, asof, ctx.tz)
    if days is None:
        return None
    zone = ctx.tz if field_type == "moment" else None
    return day_start(days[0], zone), day_start(days[1], zone)


def subtree_of(ctx: Ctx, root: SlotValue) -> frozenset[UUID]:
    """A unit and all units below it; empty for an unknown one."""
    if not isinstance(root, UUID) or root not in ctx.unit_tree:
        return frozenset()
    found, fresh = {root}, {root}
    while fresh:
        fresh = {n.id for n in ctx.unit_tree.values() if n.parent in fresh} - found
        found |= fresh
    return frozenset(found)
