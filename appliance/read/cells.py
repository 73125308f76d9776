"""A row as the texts of its cells: what delimited text is made of, ready from PostgreSQL.

A row with a separator between its cells costs a tenth of one that is read as JSON and written
cell by cell. The texts are those that shape/comma_separated makes of values, but for quotes and
the guard against formulas, which stay there. Where a column has no such text (masked values, sets,
structured values) the row is JSON as everywhere.
"""

from __future__ import annotations

import msgspec

from appliance.fields import type_of
from appliance.fields.choices import choices
from appliance.kernel.kind import Field
from appliance.kernel.predicate import SYSTEM_FIELDS
from appliance.kernel.profile import Mode
from appliance.kernel.query import Query
from appliance.read.names import Column, Names, visible_fields
from appliance.read.rows import MOMENT, Projection, display_texts, rollup
from appliance.read.sql import literal

# Controls that no text of a record may hold (fields/texts).
SEPARATOR = "\x1f"
END = "\x1e"
# Behind the fields of a whole record, whose number stands first.
BEHIND = ("unit", "owner", "created_at", "updated_at", "id")
# Their value in the record is the text of their cell.
_AS_KEPT = frozenset({
    "text", "long_text", "email", "phone", "url", "number", "money", "quantity", "integer",
    "yes_no", "date", "moment", "choice", "reference",
})  # fmt: skip
_Named = list[tuple[str, Column]]


def project_cells(names: Names, query: Query) -> Projection | None:
    """The projection of a query as cells; None where its rows must be JSON."""
    whole = not query.select
    columns = _of_record(names) if whole else _chosen(names, query)
    if columns is None or len(columns) < 2:
        return None
    shown = [
        (key, key if whole else path)
        for (key, column), path in zip(columns, _paths(query, columns), strict=True)
        if column.field.type == "reference" and column.field.option("target")
        and not (whole and column.field.system)
    ]  # fmt: skip
    displays = dict(display_texts(names, shown)) if query.display else {}
    texts = [_cell(names, column, displays.get(key, "")) for key, column in columns]
    keys = tuple((key, c.field) for key, c in columns)
    if whole:
        keys = keys[1 : -len(BEHIND)]
    return Projection(f"||'{SEPARATOR}'||".join(texts), (), keys, whole=whole, cells=True)


def _paths(query: Query, columns: _Named) -> list[str]:
    return [i.path for i in query.select] if query.select else [key for key, _ in columns]


def _of_record(names: Names) -> _Named | None:
    def system(name: str) -> tuple[str, Column]:
        return name, Column(SYSTEM_FIELDS[name], names.alias, names.kind, Mode.READ)

    own = [
        (field.name, Column(field, names.alias, names.kind, mode))
        for field, mode in visible_fields(names.ctx, names.kind)
    ]
    if not all(_has_text(names, column) for _, column in own):
        return None
    return [system("number"), *own, *map(system, BEHIND)]


def _chosen(names: Names, query: Query) -> _Named | None:
    found: _Named = []
    for item in query.select:
        if item.function is not None or item.path == "version":
            return None
        column = names.column(item.path, item.at, use="select")
        if not _has_text(names, column):
            return None
        found.append((item.alias, column))
    return found


def _has_text(names: Names, column: Column) -> bool:
    field = column.field
    if column.mode is Mode.MASKED:
        return False
    if field.type == "choice":
        labels = _labels(field, names.ctx.locale).values()
        return not any(SEPARATOR in label or END in label for label in labels)
    if field.type == "reference" and field.option("target"):
        target = names.ctx.schema.kind(str(field.option("target")))
        shown = target.by_name.get(target.display or "") if target else None
        return shown is None or shown.type in _AS_KEPT
    return field.is_column or field.type == "rollup" or field.type in _AS_KEPT


def _cell(names: Names, column: Column, display: str) -> str:
    """The text of one cell, never null."""
    field = column.field
    if field.type == "rollup":
        # A figure below zero, a text in JSON, has an apostrophe in front, as texts have.
        figure = f"nullif({rollup(names.ctx, names.sql, column)},'null')"
        return f"""coalesce(replace(replace({figure},'"-','''-'),'"',''),'')"""
    if field.is_column:
        source = column.slot
        if field.type == "moment":
            source = f"to_char({source},'{MOMENT}')"
        elif field.type == "reference":
            source = f"{source}::text"
    else:
        source = f"{column.alias}.data->>{literal(field.fid)}"
    if field.type == "choice" and (labels := _labels(field, names.ctx.locale)):
        known = names.sql.value(msgspec.json.encode(labels).decode(), "jsonb")
        return f"coalesce({known}->>({source}),{source},'')"
    if display:
        return f"coalesce(nullif({display},''),{source},'')"
    return f"coalesce({source},'')"


def _labels(field: Field, locale: str) -> dict[str, str]:
    """The labels of options that are not their keys."""
    type_ = type_of(field.type)
    texts = {key: type_.text(field, key, locale) for key in choices(field)}
    return {key: text for key, text in texts.items() if text != key}
