"""Aggregates and groups, within the reader's own rows: a total equals the list behind it."""

from __future__ import annotations

from appliance.base import limits
from appliance.fields import type_of
from appliance.kernel.kind import Field
from appliance.kernel.query import EVERYTHING, Group, Item, Query
from appliance.read.names import Column, Names, fail
from appliance.read.rows import Projection, scaled

_SUMMED = frozenset({"sum", "avg"})
COUNT = Field(fid="@count", name="count", type="integer")


def is_grouped(query: Query) -> bool:
    """Whether a query answers groups and not records."""
    return bool(query.group) or any(i.function for i in query.select)


def group_sql(names: Names, query: Query, where: list[str]) -> tuple[str, Projection]:
    """The whole statement of a grouped query, one row more than the limit."""
    _refuse(query)
    parts: list[str] = []
    keys: list[tuple[str, Field]] = []
    sortable: dict[str, str] = {}
    grouped: list[str] = []
    for group in query.group:
        raw, shown, field = _group(names, group)
        grouped.append(raw)
        parts.append(f"'\"{group.alias}\":'||{shown}")
        keys.append((group.alias, field))
        sortable[group.alias] = raw
    for item in query.select:
        if item.function is None:
            if item.path not in {g.path for g in query.group}:
                fail(item.at, "not_grouped", f"{item.path} is neither a group nor inside a function.")
            continue
        raw, shown, field = _aggregate(names, item, query)
        parts.append(f"'\"{item.alias}\":'||{shown}")
        keys.append((item.alias, field))
        sortable[item.alias] = raw
    order = _order(query, sortable, grouped)
    text = "SELECT '{'||" + "||','||".join(parts) + "||'}'"
    text += f" FROM record {names.alias}{''.join(names.joins)} WHERE {' AND '.join(where)}"
    if grouped:
        text += f" GROUP BY {', '.join(grouped)}"
    if order:
        text += f" ORDER BY {order}"
    text += f" LIMIT {names.sql.value(min(query.limit, limits.GROUPS_MAX) + 1, 'bigint')}"
    return text, Projection("", (), tuple(keys))


def _refuse(query: Query) -> None:
    for flag in ("after", "total", "ruler", "display"):
        if getattr(query, flag):
            fail(f"/{flag}", "not_possible", "Groups come in one page: raise the limit instead.")
    functions = [i for i in query.select if i.function]
    if len(functions) > limits.AGGREGATES_MAX:
        fail("/select", "too_many", f"At most {limits.AGGREGATES_MAX} functions.")
    aliases = [g.alias for g in query.group] + [i.alias for i in functions]
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
        return raw, f"coalesce('\"'||to_char({raw},'YYYY-MM-DD')||'\"','null')", Field(
            fid=field.fid, name=field.name, type="date"
        )
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
            return f"coalesce('\"'||to_char({slot},'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')||'\"','null')"
        case "reference":
            return f"coalesce('\"'||{slot}||'\"','null')"
        case _ if field.system:
            return f"coalesce(to_json({slot})::text,'null')"
        case _:
            # Texts are grouped without case; the first spelling in code order stands for all.
            return f"coalesce(to_json(min({column.alias}.data->>'{field.fid}'))::text,'null')"


def _aggregate(names: Names, item: Item, query: Query) -> tuple[str, str, Field]:
    if item.path == EVERYTHING:
        return "count(*)", "count(*)::text", COUNT
    column = names.column(item.path, item.at, use="aggregate")
    field, slot, function = column.field, column.slot, str(item.function)
    allowed = type_of(field.type).aggregates
    if field.slot == "link" or function not in allowed:
        known = ", ".join(sorted(allowed)) or "none"
        fail(item.at, "function_refused", f"A {field.type} field takes: {known}.")
    if function in ("count", "count_distinct"):
        raw = f"count({'DISTINCT ' if function == 'count_distinct' else ''}{slot})"
        return raw, f"{raw}::text", COUNT
    sibling = field.option("currency_field") or field.option("unit_field")
    if function in _SUMMED and sibling and sibling not in {g.path for g in query.group}:
        fail(
            item.at, "mixed_currency",
            f"{item.path} has several currencies or units: group by {sibling}, then the {function} means something.",
        )  # fmt: skip
    raw = f"{function}({slot})"
    if field.type in ("date", "moment"):
        pattern = "YYYY-MM-DD" if field.type == "date" else 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'
        return raw, f"coalesce('\"'||to_char({raw},'{pattern}')||'\"','null')", field
    extra = 2 if function == "avg" else 0
    return raw, f"coalesce({scaled(field, raw, extra=extra)},'null')", field


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
