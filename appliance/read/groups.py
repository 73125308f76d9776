"""Aggregates and groups, within the reader's own rows: a total equals the list behind it.

Groups come in one page, the first `limit` of them in the order asked for. `having` is a condition
over their keys and figures by alias, with the logic of every other condition.
"""

from __future__ import annotations

from appliance.base import limits
from appliance.fields import type_of
from appliance.kernel.kind import Field
from appliance.kernel.profile import Mode
from appliance.kernel.query import (
    EVERYTHING,
    And,
    Cond,
    Group,
    Item,
    Not,
    Or,
    Query,
    Related,
    Test,
)
from appliance.read.conditions import Conditions
from appliance.read.guard import Table
from appliance.read.names import Column, Names, fail
from appliance.read.rows import Projection, scaled
from appliance.read.sql import literal

_SUMMED = frozenset({"sum", "avg"})
_COUNT = Field(fid="@count", name="count", type="integer", slot="n0", filterable=True)
_DAY = Field(fid="@day", name="day", type="date", slot="d0", filterable=True)


def is_grouped(query: Query) -> bool:
    """Whether a query answers groups and not records."""
    return bool(query.group) or any(i.function for i in query.select)


class _Figures(Names):
    """Names of a `having`: the aliases of a grouped query."""

    def __init__(self, names: Names, known: dict[str, Column]) -> None:
        super().__init__(names.ctx, names.sql, Table(names.kind, names.alias, names.guard, ""))
        self._known = known

    def column(self, path: str, at: str, *, use: str) -> Column:
        found = self._known.get(path)
        if found is None:
            fail(at, "unknown_alias", f"having looks at aliases: {', '.join(sorted(self._known))}.")
        return found


def group_sql(names: Names, query: Query, where: list[str]) -> tuple[str, Projection]:
    """The whole statement of a grouped query, one row more than the limit."""
    _refuse(query)
    parts: list[str] = []
    keys: list[tuple[str, Field]] = []
    figures: dict[str, Column] = {}
    grouped: list[str] = []

    def add(alias: str, raw: str, shown: str, field: Field) -> None:
        parts.append(f"{literal(chr(34) + alias + chr(34) + ':')}||{shown}")
        keys.append((alias, field))
        figures[alias] = Column(field, names.alias, names.kind, Mode.READ, raw)

    for group in query.group:
        raw, shown, field = _group(names, group)
        grouped.append(raw)
        add(group.alias, raw, shown, field)
    for item in query.select:
        if item.function is not None:
            add(item.alias, *_aggregate(names, item, query))
        elif item.path not in {g.path for g in query.group}:
            fail(item.at, "not_grouped", f"{item.path} is neither a group nor inside a function.")
    having = _having(names, query, figures)
    order = _order(query, {alias: column.slot for alias, column in figures.items()}, grouped)
    text = "SELECT '{'||" + "||','||".join(parts) + "||'}'"
    text += f" {names.source} WHERE {' AND '.join(where)}"
    if grouped:
        text += f" GROUP BY {', '.join(grouped)}"
    if having:
        text += f" HAVING {having}"
    if order:
        text += f" ORDER BY {order}"
    text += f" LIMIT {limits.GROUPS_MAX + 1}"
    return text, Projection("", (), tuple(keys))


def _having(names: Names, query: Query, figures: dict[str, Column]) -> str:
    if query.having is None:
        return ""
    _refuse_rows(query.having)
    return Conditions(_Figures(names, figures), names.ctx.at).compile(query.having)


def _refuse_rows(cond: Cond) -> None:
    """A `having` speaks of groups: no relations, no words, no relative dates. Raises Invalid."""
    match cond:
        case And(items=items) | Or(items=items):
            for item in items:
                _refuse_rows(item)
        case Not(item=item):
            _refuse_rows(item)
        case Related(at=at):
            fail(at, "not_possible", "Conditions over records belong into where.")
        case Test(op=op, at=at) if op in ("matches", "within", "under"):
            fail(at, "not_possible", f"{op} belongs into where.")
        case _:
            pass


def _refuse(query: Query) -> None:
    for flag in ("after", "total", "ruler", "display"):
        if getattr(query, flag):
            fail(f"/{flag}", "not_possible", "Groups come in one page: raise the limit instead.")
    functions = [i for i in query.select if i.function]
    if len(functions) > limits.AGGREGATES_MAX:
        fail("/select", "too_many", f"At most {limits.AGGREGATES_MAX} functions.")
    aliases = [g.alias for g in query.group] + [i.alias for i in functions]
    if not aliases:
        fail("/select", "required", "Say what to group by, or a function.")
    if len(set(aliases)) != len(aliases):
        fail("/select", "repeated", "Two columns would have the same name; give one an `as`.")


def _group(names: Names, group: Group) -> tuple[str, str, Field]:
    column = names.column(group.path, group.at, use="group")
    field, slot = column.field, column.slot
    if field.slot == "link":
        fail(group.at, "not_groupable", f"{group.path} has many values.")
    if group.bucket:
        if field.type not in ("date", "moment"):
            fail(group.at, "bucket_refused", f"{group.path} is no date.")
        zone = names.sql.value(names.ctx.tz if field.type == "moment" else "UTC", "text")
        raw = f"date_trunc('{group.bucket}', {slot} AT TIME ZONE {zone})"
        return raw, f"coalesce('\"'||to_char({raw},'YYYY-MM-DD')||'\"','null')", _DAY
    return slot, _shown(column), field


def _shown(column: Column) -> str:
    """A group's key in canonical form, from the slot it is grouped by."""
    field, slot = column.field, column.slot
    match field.type:
        case "yes_no":
            return f"coalesce(({slot} = 1)::text,'null')"
        case "number" | "money" | "quantity" | "integer":
            return f"coalesce({scaled(field, slot)},'null')"
        case "date":
            return f"coalesce('\"'||to_char({slot},'YYYY-MM-DD')||'\"','null')"
        case "moment":
            return (
                f"coalesce('\"'||to_char({slot},'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')||'\"','null')"
            )
        case "reference":
            return f"coalesce('\"'||{slot}||'\"','null')"
        case _ if field.is_column:
            return f"coalesce(to_json({slot})::text,'null')"
        case _:
            # Texts are grouped without case; the first spelling in code order stands for all.
            value = f"{column.alias}.data->>{literal(field.fid)}"
            return f"coalesce(to_json(min({value}))::text,'null')"


def _aggregate(names: Names, item: Item, query: Query) -> tuple[str, str, Field]:
    if item.path == EVERYTHING:
        return "count(*)", "count(*)::text", _COUNT
    column = names.column(item.path, item.at, use="aggregate")
    field, slot, function = column.field, column.slot, str(item.function)
    allowed = type_of(field.type).aggregates
    if field.slot == "link" or function not in allowed:
        known = ", ".join(sorted(allowed)) or "none"
        fail(item.at, "function_refused", f"A {field.type} field takes: {known}.")
    if function in ("count", "count_distinct"):
        raw = f"count({'DISTINCT ' if function == 'count_distinct' else ''}{slot})"
        return raw, f"{raw}::text", _COUNT
    if function in _SUMMED:
        _refuse_mixed(names, item, column, query)
    raw = f"{function}({slot})"
    if field.type in ("date", "moment"):
        pattern = "YYYY-MM-DD" if field.type == "date" else 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'
        return raw, f"coalesce('\"'||to_char({raw},'{pattern}')||'\"','null')", field
    extra = 2 if function == "avg" else 0
    return raw, f"coalesce({scaled(field, raw, extra=extra)},'null')", field


def _refuse_mixed(names: Names, item: Item, column: Column, query: Query) -> None:
    """Amounts of several currencies or units have no sum: they are grouped by theirs first."""
    sibling = column.field.option("currency_field") or column.field.option("unit_field")
    if not sibling:
        return
    prefix, dot, _ = item.path.rpartition(".")
    path = f"{prefix}{dot}{sibling}"
    if any(g.path == path for g in query.group):
        return
    field = column.kind.by_name.get(str(sibling))
    known = field and names.ctx.profile.mode(column.kind.key, field) >= Mode.READ
    advice = f"group by {path}" if known else "its unit is not for you to see"
    detail = f"{item.path} may be in several currencies or units: {advice}."
    fail(item.at, "mixed_currency", detail)


def _order(query: Query, sortable: dict[str, str], grouped: list[str]) -> str:
    parts: list[str] = []
    for sort in query.sort:
        raw = sortable.get(sort.path)
        if raw is None:
            fail(sort.at, "not_sortable", "Groups are sorted by their keys and functions.")
        nulls = "FIRST" if sort.nulls_first else "LAST"
        parts.append(f"{raw} {'DESC' if sort.descending else 'ASC'} NULLS {nulls}")
    parts += [f"{raw} NULLS LAST" for raw in grouped]
    return ", ".join(parts)
