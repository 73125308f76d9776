"""Conditions to SQL: two-valued logic, values as parameters, slots so that indexes serve.

A comparison with an empty value is false and `not` is its exact complement; `ne` and `not_in` are
the complements of `eq` and `in`, so they are true of an empty value. `not` is pushed down to the
leaves, where it becomes IS NOT TRUE: positive leaves stay plain and index-friendly. Texts compare
in their folded form; `starts_with` is a range, because LIKE is not leakproof and would lose the
index behind row-level security.
"""

from __future__ import annotations

from datetime import datetime

from appliance.base.errors import Invalid
from appliance.fields import type_of
from appliance.fields.base import ValueFault
from appliance.fields.matching import operand_of, operators_of, period_bounds, subtree_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind
from appliance.kernel.predicate import SYSTEM_FIELDS
from appliance.kernel.profile import Mode
from appliance.kernel.query import EVERYTHING, And, Cond, Not, Or, Related, Test
from appliance.read import cost
from appliance.read.guard import Table, guarded
from appliance.read.names import Column, Names, check_usable, fail, unknown_field
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
                fail(
                    test.at,
                    "operator_refused",
                    "matches searches the whole record; leave the field out.",
                )
            return search_condition(self.names, str(test.value), test.at)
        if test.op == "is_null":
            return self._is_null(test)
        column = self.names.column(test.path, test.at, use="filter")
        allowed = operators_of(column.field)
        if test.op not in allowed:
            known = ", ".join(sorted(allowed))
            fail(
                f"{test.at}/op", "operator_refused", f"A {column.field.type} field takes: {known}."
            )
        try:
            if column.field.slot == "link":
                return self._members(column, test.op, test.value)
            return self._compare(test, column)
        except ValueFault as bad:
            fail(f"{test.at}/value", bad.code, bad.detail)

    def _is_null(self, test: Test) -> str:
        column = self.names.column(test.path, test.at, use="select")
        if column.mode is Mode.MASKED:
            unknown_field(test.at)
        field, word = column.field, "IS" if test.value is True else "IS NOT"
        if not type_of(field.type).stored:
            fail(
                test.at,
                "not_filterable",
                f"{test.path} is computed: it can be shown, not filtered.",
            )
        if column.text or (field.slot and field.slot != "link" and field.slot_ready):
            return f"{column.slot} {word} NULL"
        return f"{column.alias}.data->{self.sql.value(field.fid, 'text')} {word} NULL"

    def _compare(self, test: Test, column: Column) -> str:
        slot, op, value, field = column.slot, test.op, test.value, column.field
        kind = slot_type(str(field.slot))

        def given(literal: Json) -> str:
            return self.sql.value(operand_of(field, literal), kind)

        match op:
            case "ne":
                return f"{slot} IS DISTINCT FROM {given(value)}"
            case "in" | "not_in":
                wanted = [operand_of(field, v) for v in _list(value)]
                text = f"{slot} = ANY({self.sql.value(wanted, kind + '[]')})"
                return f"({text}) IS NOT TRUE" if op == "not_in" else text
            case "between":
                low, high = _list(value)
                return f"{slot} >= {given(low)} AND {slot} <= {given(high)}"
            case "contains":
                pattern = f"%{_escape(str(operand_of(field, value)))}%"
                return f"{slot} LIKE {self.sql.value(pattern, 'text')}"
            case "starts_with":
                first = str(operand_of(field, value))
                return (
                    f"{slot} >= {self.sql.value(first, kind)} "
                    f"AND {slot} < {self.sql.value(first + _LAST, kind)}"
                )
            case "within":
                return self._within(test, column, kind)
            case "under":
                self.sql.lasting = False
                units = sorted(subtree_of(self.ctx, operand_of(field, value)))
                return f"{slot} = ANY({self.sql.value(units, 'uuid[]')})"
            case _:
                return f"{slot} {_COMPARE[op]} {given(value)}"

    def _within(self, test: Test, column: Column, kind: str) -> str:
        self.sql.lasting = False
        bounds = period_bounds(test.value, self.ctx, self.asof, column.field.type)
        if bounds is None:
            detail = 'Expected a period such as this_month or {"last_days": 30}.'
            fail(f"{test.at}/value", "period_unknown", detail)
        low, high = (self.sql.value(b, kind) for b in bounds)
        return f"{column.slot} >= {low} AND {column.slot} < {high}"

    def _links(self, kind: Kind, fid: str, holder: str) -> str:
        """The members of a set-valued field of a record, as a FROM list with its conditions."""
        tenant = self.sql.shared("tenant", self.ctx.tenant, "uuid")
        return (
            f"record_link l WHERE l.tenant_id = {tenant} "
            f"AND l.kind = {self.sql.shared(f'kind {kind.key}', kind.key, 'text')} "
            f"AND l.fid = {self.sql.value(fid, 'text')} AND l.record_id = {holder}"
        )

    def _members(self, column: Column, op: str, value: Json) -> str:
        wanted = sorted({str(operand_of(column.field, v)) for v in _list(value)})
        rows = self._links(column.kind, column.field.fid, f"{column.alias}.id")
        rows += f" AND l.value = ANY({self.sql.value(wanted, 'text[]')})"
        if op == "has_any":
            return f"EXISTS (SELECT 1 FROM {rows})"
        return f"(SELECT count(*) FROM {rows}) = {self.sql.value(len(wanted), 'bigint')}"

    def _related(self, related: Related, *, negated: bool) -> str:
        cost.count_join(self.sql)
        table, tie = self._relation(related)
        inner = Names(self.ctx, self.sql, table)
        tests = [tie, table.guard]
        if related.where is not None:
            tests.append(Conditions(inner, self.asof).compile(related.where))
        found = f"EXISTS (SELECT 1 {inner.source} WHERE {' AND '.join(tests)})"
        return f"NOT {found}" if related.negated != negated else found

    def _relation(self, related: Related) -> tuple[Table, str]:
        """The related records and how they are tied to ours.

        `kind.field` is a kind whose field refers to ours, where there is one for the reader;
        every other text is a path from here to a reference.
        """
        at = related.at
        key, _, name = related.relation.rpartition(".")
        child = self.ctx.schema.kind(key) if key else None
        if child is not None and self.ctx.profile.sees(child):
            field = child.by_name.get(name) or SYSTEM_FIELDS.get(name)
            mode = Mode.READ if field and field.is_column else Mode.HIDDEN
            mode = self.ctx.profile.mode(key, field) if field and not field.is_column else mode
            if field and mode >= Mode.READ and field.option("target") == self.names.kind.key:
                check_usable(field, related.relation, at)
                table = guarded(self.ctx, self.sql, child)
                ours = f"{self.names.alias}.id"
                if field.slot == "link":
                    return table, self._linked(child, field.fid, f"{table.alias}.id", ours)
                return table, f"{table.alias}.{field.slot} = {ours}"
        column = self.names.column(related.relation, at, use="filter")
        if not column.field.option("target"):
            fail(at, "not_a_relation", f"{related.relation} does not refer to records.")
        target = self.ctx.schema.kind(str(column.field.option("target")))
        if target is None or not self.ctx.profile.sees(target):
            unknown_field(at)
        table = guarded(self.ctx, self.sql, target)
        if column.field.slot == "link":
            holder = f"{column.alias}.id"
            return table, self._linked(column.kind, column.field.fid, holder, f"{table.alias}.id")
        return table, f"{table.alias}.id = {column.slot}"

    def _linked(self, kind: Kind, fid: str, holder: str, target: str) -> str:
        return (
            f"EXISTS (SELECT 1 FROM {self._links(kind, fid, holder)} AND l.value = {target}::text)"
        )


class _RuleNames(Names):
    """Names of a row rule: the record's own columns, hidden ones too, and nothing beyond."""

    def column(self, path: str, at: str, *, use: str) -> Column:
        field = self.kind.by_name.get(path) or SYSTEM_FIELDS.get(path)
        if field is None:
            unknown_field(at)
        if use != "select":
            if not field.slot:
                unknown_field(at)
            if not field.slot_ready:
                fail(at, "field_indexing", "A rule waits for its index.")
        return Column(field, self.alias, self.kind, Mode.READ)


def compile_rule(ctx: Ctx, sql: Sql, kind: Kind, alias: str, rule: Cond) -> str:
    """A row rule as SQL; one that asks for more than the record's own columns grants nothing."""
    mark = len(sql.params)
    names = _RuleNames(ctx, sql, Table(kind, alias, "", ""))
    try:
        _refuse_foreign(rule)
        return Conditions(names, ctx.at).compile(rule)
    except Invalid:
        sql.forget_after(mark)
        return "false"


def _refuse_foreign(rule: Cond) -> None:
    """Relations and words to search for are not among a record's own columns. Raises Invalid."""
    match rule:
        case And(items=items) | Or(items=items):
            for item in items:
                _refuse_foreign(item)
        case Not(item=item):
            _refuse_foreign(item)
        case Related(at=at):
            unknown_field(at)
        case Test(op="matches", at=at):
            unknown_field(at)
        case _:
            pass


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
