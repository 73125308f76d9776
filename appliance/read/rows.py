"""What a row looks like: JSON text made by PostgreSQL of the visible fields only.

Concatenation of texts is measured faster than jsonb_build_object, and a page then leaves as it
came, undecoded. Masked fields leave PostgreSQL in full and are masked before anything is sent:
such a page is decoded (`Projection.masks`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.profile import Mode
from appliance.kernel.query import Item, Query
from appliance.read.guard import guarded
from appliance.read.names import Column, Names, fail, visible_fields
from appliance.read.sql import Sql, literal

# Connections speak in UTC (db/database).
MOMENT = 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'
_PLAIN = re.compile(r"[^a-z0-9_]")
_SYSTEM_REGISTERS = ("@unit", "@owner", "@number", "!")


class Mask(msgspec.Struct, frozen=True):
    """Where in a row a masked value stands: below `fields` in whole records, else at the top."""

    key: str
    field: Field
    inside: bool


class Projection(msgspec.Struct, frozen=True):
    """The expression of a row, what must be masked in it, and its keys with their fields.

    `whole`: the row is a record, its keys stand below `fields`. `cells`: the row is the texts of its
    cells with separators between (read/cells).
    """

    text: str
    masks: tuple[Mask, ...]
    keys: tuple[tuple[str, Field], ...]
    whole: bool = False
    cells: bool = False


def project(names: Names, query: Query) -> Projection:
    """The projection a query asks for: chosen paths, or the record as a whole."""
    if not query.select:
        return whole_record(names, query)
    parts = []
    if not any(item.alias == "id" for item in query.select):
        parts.append(_pair("id", _uuid(f"{names.alias}.id")))
    masks: list[Mask] = []
    keys: list[tuple[str, Field]] = []
    shown: list[tuple[str, str]] = []
    for item in query.select:
        field, text, mode = _item(names, item)
        keys.append((item.alias, field))
        parts.append(_pair(item.alias, text))
        if mode is Mode.MASKED:
            masks.append(Mask(item.alias, field, inside=False))
        elif field.type == "reference" and field.option("target"):
            shown.append((item.alias, item.path))
    if query.display and shown:
        parts.append(_pair("display", _display(names, shown)))
    return Projection(_object(parts), tuple(masks), tuple(keys))


def whole_record(names: Names, query: Query) -> Projection:
    """The record of the HTTP contract, with every field the reader may see."""
    alias, kind, ctx = names.alias, names.kind, names.ctx
    parts = [
        _pair("id", _uuid(f"{alias}.id")),
        _pair("kind", f"'\"'||{alias}.kind||'\"'"),
        _pair("number", _text(f"{alias}.number")),
        _pair("version", version(ctx, kind, alias)),
        _pair("unit", _uuid(f"{alias}.unit_id")),
        _pair("owner", _uuid(f"{alias}.owner_id")),
        _pair("created_at", _moment(f"{alias}.created_at")),
        _pair("created_by", _uuid(f"{alias}.created_by")),
        _pair("updated_at", _moment(f"{alias}.updated_at")),
        _pair("updated_by", _uuid(f"{alias}.updated_by")),
    ]
    if query.deleted:
        parts.append(_pair("deleted_at", _moment(f"{alias}.deleted_at")))
        parts.append(_pair("deleted_by", _uuid(f"{alias}.deleted_by")))
    inner: list[str] = []
    masks: list[Mask] = []
    keys: list[tuple[str, Field]] = []
    shown: list[tuple[str, str]] = []
    for field, mode in visible_fields(ctx, kind):
        inner.append(_pair(field.name, _value(names, Column(field, alias, kind, mode))))
        keys.append((field.name, field))
        if mode is Mode.MASKED:
            masks.append(Mask(field.name, field, inside=True))
        elif field.type == "reference":
            shown.append((field.name, field.name))
    parts.append(_pair("fields", _object(inner)))
    if query.display and shown:
        parts.append(_pair("display", _display(names, shown)))
    return Projection(_object(parts), tuple(masks), tuple(keys), whole=True)


def _item(names: Names, item: Item) -> tuple[Field, str, Mode]:
    if item.function is not None:
        fail(item.at, "needs_group", "Functions stand in a query with group, or alone.")
    if item.path == "version":
        field = Field(fid="@version", name="version", type="text", system=True)
        return field, version(names.ctx, names.kind, names.alias), Mode.READ
    column = names.column(item.path, item.at, use="select")
    return column.field, _value(names, column), column.mode


def _value(names: Names, column: Column) -> str:
    field = column.field
    if field.is_column:
        slot = column.slot
        match field.type:
            case "moment":
                return _moment(slot)
            case "reference":
                return _uuid(slot)
            case _:
                return _text(slot)
    if field.type == "rollup":
        return rollup(names.ctx, names.sql, column)
    return f"coalesce(({column.alias}.data->{literal(field.fid)})::text,'null')"


def version(ctx: Ctx, kind: Kind, alias: str) -> str:
    """The version token without the registers of fields that are hidden from the reader."""
    readable = {f.register for f, mode in visible_fields(ctx, kind) if mode >= Mode.READ}
    if readable == {f.register for f in kind.fields}:
        return f"'\"'||{alias}.stamps||'\"'"
    kept = "|".join(
        _PLAIN.sub(r"[\g<0>]", name) for name in sorted({*readable, *_SYSTEM_REGISTERS})
    )
    others = literal(f";(?!(?:{kept})[/=])[^;]*")
    return f"'\"'||regexp_replace({alias}.stamps,{others},'','g')||'\"'"


def rollup(ctx: Ctx, sql: Sql, column: Column) -> str:
    """A guarded sub-select over the records that refer to this one; null beyond one's rights."""
    options = column.field.options
    child = ctx.schema.kind(str(options.get("kind")))
    if child is None or not ctx.profile.sees(child):
        return "'null'"
    via = _readable(ctx, child, options.get("via"))
    if via is None or via.type != "reference" or via.option("target") != column.kind.key:
        return "'null'"
    summed = _readable(ctx, child, options.get("field")) if options.get("op") == "sum" else None
    if options.get("op") == "sum" and (summed is None or not str(summed.slot).startswith("n")):
        return "'null'"
    sibling = summed and (summed.option("currency_field") or summed.option("unit_field"))
    other = _readable(ctx, child, sibling, indexed=False) if sibling else None
    if sibling and other is None:
        # Amounts of several currencies have no sum; which they are, only their reader may know.
        return "'null'"
    table = guarded(ctx, sql, child)
    alias = table.alias
    figure = "count(*)::text"
    if summed is not None:
        figure = scaled(summed, f"coalesce(sum({alias}.{summed.slot}), 0)")
    if other is not None:
        mixed = f"count(DISTINCT coalesce({alias}.data->>{literal(other.fid)}, '')) > 1"
        figure = f"CASE WHEN {mixed} THEN 'null' ELSE {figure} END"
    tied = f"{alias}.{via.slot} = {column.alias}.id"
    return f"(SELECT {figure} FROM {table.source} WHERE {tied} AND {table.guard})"


def _readable(ctx: Ctx, kind: Kind, name: Json, *, indexed: bool = True) -> Field | None:
    """A field of a kind that the reader may read, in its slot if it is to be computed with."""
    field = kind.by_name.get(str(name))
    if field is None or ctx.profile.mode(kind.key, field) < Mode.READ:
        return None
    return field if not indexed or (field.slot and field.slot_ready) else None


def scaled(field: Field, text: str, *, extra: int = 0) -> str:
    """A number of slot units as canonical JSON text; `extra` fraction digits for averages."""
    type_ = type_of(field.type)
    if field.type == "integer" and not extra:
        return f"({text})::text"
    slot_scale = type_.slot_scale(field)  # type: ignore[attr-defined]
    digits = type_.scale(field) + extra  # type: ignore[attr-defined]
    value = f"round(({text})::numeric / {10**slot_scale}, {digits})"
    if "currency_field" in field.options:
        # In whichever currency it is: two digits, and more where they say more.
        value = f"round({value}, greatest(2, min_scale({value})))"
    return f"'\"'||{value}||'\"'"


def _display(names: Names, shown: list[tuple[str, str]]) -> str:
    return _object([_pair(key, _text(source)) for key, source in display_texts(names, shown)])


def display_texts(names: Names, shown: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Texts of referenced records, as far as the reader may read them: key and expression."""
    ctx = names.ctx
    for key, path in shown:
        steps, _, name = path.rpartition(".")
        kind, _ = names.step(steps, "", shown=True) if steps else (names.kind, "")
        field, _ = names.find(kind, name, "")
        target = ctx.schema.kind(str(field.option("target")))
        if target is None or not ctx.profile.sees(target) or not field.slot:
            continue
        target, alias = names.step(path, "", shown=True)
        text = target.by_name.get(target.display or "")
        readable = text is not None and ctx.profile.mode(target.key, text) >= Mode.READ
        source = f"{alias}.data->>{literal(text.fid)}" if text and readable else f"{alias}.number"
        yield key, source


def _object(parts: list[str]) -> str:
    """A JSON object as text."""
    if not parts:
        return "'{}'"
    return "('{'||" + "||','||".join(parts) + "||'}')"


def _pair(key: str, text: str) -> str:
    quoted = literal(f'"{key}":')
    return f"{quoted}||{text}"


def _text(source: str) -> str:
    return f"coalesce(to_json({source})::text,'null')"


def _uuid(source: str) -> str:
    return f"coalesce('\"'||{source}||'\"','null')"


def _moment(source: str) -> str:
    return f"coalesce('\"'||to_char({source},'{MOMENT}')||'\"','null')"
