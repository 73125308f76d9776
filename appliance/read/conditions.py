"""Conditions to SQL: two-valued logic, values as parameters, slots so that indexes serve.

`not` is pushed down to the leaves, where it becomes IS NOT TRUE: positive leaves stay plain and
index-friendly. Texts compare in their folded form; `starts_with` is a range, because LIKE is not
leakproof and would lose the index behind row-level security.
"""

from __future__ import annotations

from datetime import datetime

from appliance.fields import type_of
from appliance.fields.base import SlotValue, ValueFault
from appliance.fields.matching import period_bounds, subtree_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.predicate import SYSTEM_FIELDS
from appliance.kernel.profile import Mode
from appliance.kernel.query import EVERYTHING, And, Cond, Not, Or, Related, Test
from appliance.read.names import Column, Names, fail, readable_kind, unknown_field
from appliance.read.scope import guard
from appliance.read.sql import Sql, slot_type
from appliance.read.words import search_condition

_COMPARE = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_LAST = "\U0010ffff"


class Conditions:
    """Compiles one tree over the tables of one `Names`."""

    def __init__(self, names: Names, asof: datetime) -> None:
        self.names = names
        self.ctx = names.ctx
        self.sql = names.sql
        self.asof = asof

    def compile(self, cond: Cond, *, negated: bool = False) -> str:
        """A SQL expression that is true exactly where the condition (or its complement) is."""
        match cond:
            case And():
                return self._many(cond.items, " OR " if negated else " AND ", negated=negated)
            case Or():
                return self._many(cond.items, " AND " if negated else " OR ", negated=negated)
            case Not():
                return self.compile(cond.item, negated=not negated)
            case Related():
                return self._related(cond, negated=negated)
            case Test():
                text = self._test(cond)
                return f"({text}) IS NOT TRUE" if negated else f"({text})"

    def _many(self, items: tuple[Cond, ...], word: str, *, negated: bool) -> str:
        if not items:
            return "true" if word == " AND " else "false"
        return f"({word.join(self.compile(i, negated=negated) for i in items)})"

    def _test(self, test: Test) -> str:
        if test.op == "matches":
            if test.path != EVERYTHING:
                fail(test.at, "operator_unknown", "matches searches the whole record; leave the field out.")
            return search_condition(self.names, str(test.value), test.at)
        if test.op == "is_null":
            return self._is_null(test)
        column = self.names.column(test.path, test.at, use="filter")
        type_ = type_of(column.field.type)
        allowed = type_.operators | ({"under"} if column.field.option("target") == "sys.unit" else set())
        if test.op not in allowed or (test.op == "under" and column.field.option("target") != "sys.unit"):
            known = ", ".join(sorted(type_.operators))
            fail(f"{test.at}/op", "operator_refused", f"A {type_.name} field takes: {known}.")
        try:
            return self._compare(test, column)
        except ValueFault as bad:
            fail(f"{test.at}/value", bad.code, bad.detail)

    def _is_null(self, test: Test) -> str:
        column = self.names.column(test.path, test.at, use="select")
        if column.mode is Mode.MASKED:
            unknown_field(test.at, test.path)
        field, empty = column.field, test.value is True
        if not type_of(field.type).stored:
            fail(test.at, "not_filterable", f"{test.path} is computed: it can be shown, not filtered.")
        if field.slot and field.slot != "link" and (field.system or field.slot_ready):
            return f"{column.slot} IS {'' if empty else 'NOT '}NULL"
        return f"{column.alias}.data->'{field.fid}' IS {'' if empty else 'NOT '}NULL"

    def _operand(self, column: Column, value: Json) -> SlotValue:
        return type_of(column.field.type).operand(column.field, value)

    def _compare(self, test: Test, column: Column) -> str:
        slot, op, value = column.slot, test.op, test.value
        if column.field.slot == "link":
            return self._members(column, op, value)
        kind = slot_type(str(column.field.slot))
        match op:
            case "ne":
                return f"{slot} IS DISTINCT FROM {self.sql.value(self._operand(column, value), kind)}"
            case "in" | "not_in":
                wanted = [self._operand(column, v) for v in _list(value)]
                text = f"{slot} = ANY({self.sql.value(wanted, kind + '[]')})"
                return f"({text}) IS NOT TRUE" if op == "not_in" else text
            case "between":
                low, high = (self._operand(column, v) for v in _list(value))
                return f"{slot} >= {self.sql.value(low, kind)} AND {slot} <= {self.sql.value(high, kind)}"
            case "contains":
                pattern = "%" + _escape(str(self._operand(column, value))) + "%"
                return f"{slot} LIKE {self.sql.value(pattern, 'text')}"
            case "starts_with":
                first = str(self._operand(column, value))
                return f"{slot} >= {self.sql.value(first, kind)} AND {slot} < {self.sql.value(first + _LAST, kind)}"
            case "within":
                bounds = period_bounds(value, self.ctx, self.asof, column.field.type)
                if bounds is None:
                    fail(f"{test.at}/value", "period_unknown", 'Expected a period such as this_month or {"last_days": 30}.')
                return f"{slot} >= {self.sql.value(bounds[0], kind)} AND {slot} < {self.sql.value(bounds[1], kind)}"
            case "under":
                units = sorted(subtree_of(self.ctx, self._operand(column, value)))
                return f"{slot} = ANY({self.sql.value(units, 'uuid[]')})"
            case _:
                return f"{slot} {_COMPARE[op]} {self.sql.value(self._operand(column, value), kind)}"

    def _members(self, column: Column, op: str, value: Json) -> str:
        type_ = type_of(column.field.type)
        wanted = sorted({str(type_.operand(column.field, v)) for v in _list(value)})
        rows = (
            f"record_link l WHERE l.tenant_id = {self.sql.value(self.ctx.tenant, 'uuid')} "
            f"AND l.kind = {self.sql.value(column.kind.key, 'text')} "
            f"AND l.fid = {self.sql.value(column.field.fid, 'text')} AND l.record_id = {column.alias}.id "
            f"AND l.value = ANY({self.sql.value(wanted, 'text[]')})"
        )
        if op == "has_any":
            return f"EXISTS (SELECT 1 FROM {rows})"
        return f"(SELECT count(*) FROM {rows}) = {self.sql.value(len(wanted), 'bigint')}"

    def _related(self, related: Related, *, negated: bool) -> str:
        alias = self.sql.alias()
        kind, source = self._relation(related, alias)
        inner = Names(self.ctx, self.sql, kind, alias)
        conditions = [*source, *guard(self.ctx, self.sql, kind, alias)]
        if related.where is not None:
            conditions.append(Conditions(inner, self.asof).compile(related.where))
        found = f"EXISTS (SELECT 1 FROM record {alias}{''.join(inner.joins)} WHERE {' AND '.join(conditions)})"
        return f"NOT {found}" if related.negated != negated else found

    def _relation(self, related: Related, alias: str) -> tuple[Kind, list[str]]:
        """The related kind and how its rows are tied to ours."""
        here, (head, _, tail) = self.names, related.relation.partition(".")
        if tail:
            kind = readable_kind(self.ctx, head, related.at)
            column = Names(self.ctx, self.sql, kind, alias).column(tail, related.at, use="filter")
            if column.field.option("target") != here.kind.key:
                unknown_field(related.at, related.relation)
            if column.field.slot == "link":
                return kind, [self._linked(column.kind, column.field.fid, f"{alias}.id", f"{here.alias}.id")]
            return kind, [f"{column.slot} = {here.alias}.id"]
        column = here.column(head, related.at, use="filter")
        target = self.ctx.schema.kind(str(column.field.option("target")))
        if target is None or not self.ctx.profile.sees(target):
            unknown_field(related.at, related.relation)
        if column.field.slot == "link":
            return target, [self._linked(column.kind, column.field.fid, f"{here.alias}.id", f"{alias}.id")]
        return target, [f"{alias}.id = {column.slot}"]

    def _linked(self, kind: Kind, fid: str, holder: str, target: str) -> str:
        return (
            f"EXISTS (SELECT 1 FROM record_link l WHERE l.tenant_id = {self.sql.value(self.ctx.tenant, 'uuid')} "
            f"AND l.kind = {self.sql.value(kind.key, 'text')} AND l.fid = {self.sql.value(fid, 'text')} "
            f"AND l.record_id = {holder} AND l.value = {target}::text)"
        )


class _RuleNames(Names):
    """Names of a row rule: the record's own columns, hidden ones too, and nothing beyond."""

    def column(self, path: str, at: str, *, use: str) -> Column:
        field = self.kind.by_name.get(path) or SYSTEM_FIELDS.get(path)
        if field is None:
            unknown_field(at, path)
        return Column(field, self.alias, self.kind, Mode.READ)


def compile_rule(ctx: Ctx, sql: Sql, kind: Kind, alias: str, rule: Cond) -> str:
    """A row rule as SQL; one that names what is not there grants nothing."""
    from appliance.base.errors import Invalid

    mark = len(sql.params)
    try:
        return Conditions(_RuleNames(ctx, sql, kind, alias), ctx.at).compile(_own_columns(rule))
    except Invalid:
        del sql.params[mark:]
        return "false"


def _own_columns(rule: Cond) -> Cond:
    """Relations in a rule are never true, as in memory."""
    match rule:
        case And():
            return And(tuple(map(_own_columns, rule.items)))
        case Or():
            return Or(tuple(map(_own_columns, rule.items)))
        case Not():
            return Not(_own_columns(rule.item))
        case Related():
            return Or(())
        case _:
            return rule


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
