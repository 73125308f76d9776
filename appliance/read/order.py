"""Sorting and keyset pages: the place after a row is its sort values and its id.

A page costs the same at any depth. The index of a slot holds no empty values, so a list sorted
by one field is read in two branches, first the rows that have a value, straight from the index,
then those that have none; PostgreSQL does not begin the second while the first fills the page.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from appliance.kernel.kind import Json
from appliance.kernel.query import And, Cond, Sort, Test
from appliance.read.names import Names, fail
from appliance.read.sql import Sql, slot_type

_NEVER_NULL = frozenset({"id", "created_at", "updated_at", "created_by", "updated_by"})


class Key(msgspec.Struct, frozen=True):
    """One sort column; `nullable` unless it always has a value or the query demands one."""

    column: str
    type: str
    descending: bool
    nulls_first: bool
    nullable: bool


def keys_of(names: Names, sort: tuple[Sort, ...], where: Cond | None) -> list[Key]:
    """The sort columns, the id last, so that the order is total."""
    keys: list[Key] = []
    demanded = _demanded(where)
    for entry in sort:
        column = names.column(entry.path, entry.at, use="sort")
        if column.field.slot == "link":
            fail(entry.at, "not_sortable", f"{entry.path} has many values: it cannot be sorted by.")
        slot = str(column.field.slot)
        keys.append(
            Key(
                column.slot,
                slot_type(slot),
                entry.descending,
                entry.nulls_first,
                nullable=not (
                    entry.path in demanded or (slot in _NEVER_NULL and column.alias == names.alias)
                ),
            )
        )
    if not any(k.column == f"{names.alias}.id" for k in keys):
        last = keys[-1].descending if keys else False
        keys.append(Key(f"{names.alias}.id", "uuid", last, False, nullable=False))
    return keys


def _demanded(where: Cond | None) -> frozenset[str]:
    """Paths that a row must have a value in to pass the filter at all."""
    match where:
        case Test(op="is_null", path=path, value=False):
            return frozenset({path})
        case Test(op=op, path=path) if op not in ("ne", "not_in", "is_null", "matches"):
            return frozenset({path})
        case And():
            return frozenset().union(*map(_demanded, where.items))
        case _:
            return frozenset()


def order_by(keys: list[Key]) -> str:
    """The ORDER BY list."""
    parts = []
    for key in keys:
        text = f"{key.column} DESC" if key.descending else key.column
        if key.nullable and key.nulls_first != key.descending:
            text += " NULLS FIRST" if key.nulls_first else " NULLS LAST"
        parts.append(text)
    return ", ".join(parts)


def after(sql: Sql, keys: list[Key], values: Sequence[Json]) -> str:
    """The condition of the rows behind a place; `values` in key order, None for empty."""
    plain = all(not k.nullable for k in keys) and len({k.descending for k in keys}) == 1
    if plain:
        sign = "<" if keys[0].descending else ">"
        columns = ", ".join(k.column for k in keys)
        places = ", ".join(sql.value(str(v), k.type) for k, v in zip(keys, values, strict=True))
        return f"({columns}) {sign} ({places})"
    branches: list[str] = []
    for n, key in enumerate(keys):
        beyond = _beyond(sql, key, values[n])
        if beyond != "false":
            same = [_same(sql, k, v) for k, v in zip(keys[:n], values[:n], strict=True)]
            branches.append(f"({' AND '.join([*same, beyond])})")
    return f"({' OR '.join(branches) or 'false'})"


def _same(sql: Sql, key: Key, value: Json) -> str:
    if value is None:
        return f"{key.column} IS NULL"
    return f"{key.column} = {sql.value(str(value), key.type)}"


def _beyond(sql: Sql, key: Key, value: Json) -> str:
    sign = "<" if key.descending else ">"
    if value is None:
        return f"{key.column} IS NOT NULL" if key.nulls_first else "false"
    text = f"{key.column} {sign} {sql.value(str(value), key.type)}"
    return f"({text} OR {key.column} IS NULL)" if key.nullable and not key.nulls_first else text
