"""Row scopes as sets that can be united: the wider of two, or both said as one row rule.

Promises the monotone law (research/security 2.2): what two grants allow together is never less
than what each allows alone. A rule that is not understood grants nothing, so it is left out of a
union instead of making all of it unreadable.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.base.clock import now
from appliance.fields.base import ValueFault
from appliance.fields.matching import is_comparable, operand_of
from appliance.kernel.kind import Json, Kind
from appliance.kernel.period import NAMES, period_days
from appliance.kernel.predicate import SYSTEM_FIELDS, parse_row_rule
from appliance.kernel.profile import Scope, ScopeKind
from appliance.kernel.query import And, Cond, Not, Or, Test

_CHAIN = (ScopeKind.UNIT, ScopeKind.SUBTREE, ScopeKind.ALL)


class Reach(msgspec.Struct, frozen=True):
    """Whose rights are compiled: what `own`, `unit` and `subtree` stand for."""

    person: UUID
    units: frozenset[UUID] = frozenset()
    subtree: frozenset[UUID] = frozenset()


def unite_scopes(one: Scope, two: Scope, reach: Reach | None) -> Scope:
    """Rows of either scope. Without a `reach` a union with a rule can be shown, not evaluated."""
    if one == two or two.kind is ScopeKind.NONE or one.kind is ScopeKind.ALL:
        return one
    if one.kind is ScopeKind.NONE or two.kind is ScopeKind.ALL:
        return two
    if one.kind in _CHAIN and two.kind in _CHAIN:
        return max(one, two, key=lambda s: _CHAIN.index(s.kind))
    # Own records may lie in any unit, so `own` is within nothing but `all`.
    branches = [
        *_branches(one, reach),
        *(b for b in _branches(two, reach) if b not in _branches(one, reach)),
    ]
    united = Scope(ScopeKind.WHERE, {"or": branches})
    if reach is None or parse_row_rule(united.where) is not None:
        return united
    # Larger than the language takes: the scope that is said by name stays.
    return one if two.kind is ScopeKind.WHERE else two


def _branches(scope: Scope, reach: Reach | None) -> list[Json]:
    """A scope as the parts of an `or`."""
    if scope.kind is ScopeKind.WHERE:
        rule = scope.where
        if isinstance(rule, dict) and rule.keys() == {"or"} and isinstance(rule["or"], list):
            return rule["or"]
        return [rule]
    if reach is None:
        return [{"scope": scope.kind.value}]
    if scope.kind is ScopeKind.OWN:
        return [{"field": "owner", "op": "eq", "value": str(reach.person)}]
    units = sorted(str(u) for u in (reach.units if scope.kind is ScopeKind.UNIT else reach.subtree))
    step = limits.IN_LIST_MAX
    parts = [units[n : n + step] for n in range(0, len(units), step)]
    return [{"field": "unit", "op": "in", "value": list[Json](part)} for part in parts]


def is_understood(rule: Json, kind: Kind | None) -> bool:
    """Whether a rule can be evaluated over a kind's own columns; without the kind, its form."""
    cond = parse_row_rule(rule)
    return cond is not None and (kind is None or _fits(cond, kind))


def _fits(cond: Cond, kind: Kind) -> bool:
    match cond:
        case And(items=items) | Or(items=items):
            return all(_fits(item, kind) for item in items)
        case Not(item=item):
            return _fits(item, kind)
        case Test():
            return _fits_field(cond, kind)
        case _:
            return False


def _fits_field(test: Test, kind: Kind) -> bool:
    field = kind.by_name.get(test.path) or SYSTEM_FIELDS.get(test.path)
    if field is None or test.op == "matches" or not is_comparable(field, test.op):
        return False
    if test.op == "is_null":
        return isinstance(test.value, bool)
    if test.op == "within":
        return test.value in NAMES or _is_relative(test.value)
    values = test.value if isinstance(test.value, list) else [test.value]
    try:
        for value in values:
            operand_of(field, value)
    except ValueFault:
        return False
    return True


def _is_relative(value: Json) -> bool:
    return period_days(value, now(), "UTC") is not None
