"""Conditions in memory, over one record's own columns: what row rules are tested with.

The read path compiles the same tree to SQL; tests/read compares the two over random rules.
Two-valued: a comparison with an empty value is false, `not` is its exact complement. The one
exception reads as people say it: `ne` and `not_in` are the complements of `eq` and `in`.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from appliance.fields import type_of
from appliance.fields.base import SlotValue, ValueFault
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.period import day_start, period_days
from appliance.kernel.predicate import SYSTEM_FIELDS, RecordView, system_value
from appliance.kernel.query import And, Cond, Not, Or, Related, Test


def matches(cond: Cond, view: RecordView, ctx: Ctx, kind: Kind) -> bool:
    """Whether a condition is true of a record. Relations and unknown fields are never true."""
    match cond:
        case And():
            return all(matches(c, view, ctx, kind) for c in cond.items)
        case Or():
            return any(matches(c, view, ctx, kind) for c in cond.items)
        case Not():
            return not matches(cond.item, view, ctx, kind)
        case Test():
            field = kind.by_name.get(cond.path) or SYSTEM_FIELDS.get(cond.path)
            if field is None:
                return False
            value = view.data.get(field.fid) if not field.system else system_value(view, cond.path)
            return compare(cond, field, value, ctx)
        case Related():
            return False


def compare(test: Test, field: Field, value: Json, ctx: Ctx) -> bool:
    """Whether `value op operand` is true. An operand that cannot be read makes it false."""
    try:
        return _compare(test, field, value, ctx)
    except ValueFault:
        return False


def _compare(test: Test, field: Field, value: Json, ctx: Ctx) -> bool:
    type_ = type_of(field.type)
    op, wanted = test.op, test.value
    if op == "is_null":
        return (value is None) == wanted
    if op in ("ne", "not_in"):
        return not _compare(
            Test(test.path, "eq" if op == "ne" else "in", wanted, test.at), field, value, ctx
        )
    if value is None:
        return False
    if type_.slot == "link":
        members = set(type_.members(field, value))
        asked = {str(type_.operand(field, v)) for v in _list(wanted)}
        return bool(members & asked) if op == "has_any" else asked <= members
    held = type_.slot_value(field, value)
    match op:
        case "in":
            return held in [type_.operand(field, v) for v in _list(wanted)]
        case "between":
            low, high = (type_.operand(field, v) for v in _list(wanted))
            return _key(low) <= _key(held) <= _key(high)
        case "contains":
            return str(type_.operand(field, wanted)) in str(held)
        case "starts_with":
            return str(held).startswith(str(type_.operand(field, wanted)))
        case "within":
            bounds = period_bounds(wanted, ctx, ctx.at, field.type)
            return (
                bounds is not None and isinstance(held, datetime) and bounds[0] <= held < bounds[1]
            )
        case "under":
            return held in subtree_of(ctx, type_.operand(field, wanted))
        case _:
            return _ordered(op, _key(held), _key(type_.operand(field, wanted)))


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


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


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
