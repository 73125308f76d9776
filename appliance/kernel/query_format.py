"""A query as text that reads back as the same tree (kernel/query_text).

Conditions that hold a single one become that one; nothing else changes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from appliance.base import limits
from appliance.kernel.kind import Json
from appliance.kernel.tree import FLAGS, And, Cond, Group, Item, Not, Or, Query, Related, Sort, Test

_SIGNS = {"eq": "=", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_LISTS = {"in": "in", "not_in": "not in", "has_any": "has any", "has_all": "has all"}
_WORDS = {"contains": "contains", "starts_with": "starts with", "under": "under"}
# Words that would be read as such where a name may stand.
_RESERVED = frozenset({
    "select", "where", "search", "group", "having", "sort", "limit", "asof", *FLAGS, "not",
    "any", "none", "matches", "true", "false", "last", "next",
})  # fmt: skip


def format_text(query: Query) -> str:
    """A query as text; `after` is not a part of it."""
    parts = [_name(query.source)]
    if query.select:
        parts.append("select " + ", ".join(map(_item, query.select)))
    if query.where is not None:
        parts.append("where " + _cond(query.where))
    if query.search is not None:
        parts.append("search " + _quote(query.search))
    if query.group:
        parts.append("group " + ", ".join(map(_group, query.group)))
    if query.having is not None:
        parts.append("having " + _cond(query.having))
    if query.sort:
        parts.append("sort " + ", ".join(map(_sort, query.sort)))
    if query.limit != limits.PAGE_ROWS_DEFAULT:
        parts.append(f"limit {query.limit}")
    if query.asof is not None:
        parts.append("asof " + _quote(query.asof))
    parts += [flag for flag in FLAGS if getattr(query, flag)]
    return " ".join(parts)


def _name(path: str) -> str:
    return f"`{path}`" if path in _RESERVED else path


def _quote(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def _item(item: Item) -> str:
    text, default = _name(item.path), item.path
    if item.function:
        text = f"{item.function}({item.path if item.path == '*' else text})"
        default = f"{item.function}_{item.path}".replace(".", "_")
        default = item.function if item.path == "*" else default
    return text if item.alias == default else f"{text} as {_name(item.alias)}"


def _group(group: Group) -> str:
    text = _name(group.path) + (f" by {group.bucket}" if group.bucket else "")
    return text if group.alias == group.path else f"{text} as {_name(group.alias)}"


def _sort(sort: Sort) -> str:
    text = f"-{_name(sort.path)}" if sort.descending else _name(sort.path)
    return f"{text} nulls first" if sort.nulls_first else text


def _cond(cond: Cond) -> str:
    match cond:
        case And(items=items):
            return _many(items, " and ", "true")
        case Or(items=items):
            return _many(items, " or ", "false")
        case Not(item=item):
            return f"not ({_cond(item)})"
        case Related():
            inner = f" where {_cond(cond.where)}" if cond.where is not None else ""
            return f"{'none' if cond.negated else 'any'}({_name(cond.relation)}{inner})"
        case Test():
            return _test(cond)


def _many(items: Sequence[Cond], word: str, empty: str) -> str:
    if len(items) < 2:
        return _cond(items[0]) if items else empty
    return word.join(f"({_cond(i)})" if isinstance(i, And | Or) else _cond(i) for i in items)


def _test(test: Test) -> str:
    name, op, value = _name(test.path), test.op, test.value
    if op == "matches":
        return f"matches {_quote(value)}"
    if op == "is_null":
        return f"{name} is null" if value is True else f"{name} is not null"
    if op in _LISTS and isinstance(value, list):
        return f"{name} {_LISTS[op]} ({', '.join(map(_quote, value))})"
    if op == "between" and isinstance(value, list):
        return f"{name} between {_quote(value[0])} and {_quote(value[1])}"
    if op == "within" and isinstance(value, dict):
        ((side, days),) = value.items()
        return f"{name} within {side.removesuffix('_days')} {days} days"
    return f"{name} {_SIGNS.get(op) or _WORDS.get(op) or op} {_quote(value)}"
