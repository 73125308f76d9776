"""What a row looks like: JSON text made by PostgreSQL of the visible fields only.

Concatenation of texts is measured faster than jsonb_build_object, and a page then leaves as it
came, undecoded. Masked fields leave PostgreSQL in full and are masked before anything is sent:
such a page is decoded (`Projection.masks`).
"""

from __future__ import annotations

import re

import msgspec

from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Kind
from appliance.kernel.profile import Mode
from appliance.kernel.query import Item, Query
from appliance.read.names import Column, Names, fail
from appliance.read.scope import guard
from appliance.read.sql import Sql

_FID = re.compile(r"[a-z][a-z0-9_~.]{0,80}\Z")
_MOMENT = "YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\""


class Mask(msgspec.Struct, frozen=True):
    """Where in a row a masked value stands: below `fields` in whole records, else at the top."""

    key: str
    field: Field
    inside: bool


class Projection(msgspec.Struct, frozen=True):
    """The expression of a row, what must be masked in it, and its keys with their fields."""

    text: str
    masks: tuple[Mask, ...]
    keys: tuple[tuple[str, Field], ...]


def project(names: Names, query: Query) -> Projection:
    """The projection a query asks for: chosen paths, or the record as a whole."""
    if not query.select:
        return whole_record(names, display=query.display)
    parts = [f"'\"id\":\"'||{names.alias}.id||'\"'"]
    masks: list[Mask] = []
    keys: list[tuple[str, Field]] = []
    shown: list[tuple[str, Column]] = []
    for item in query.select:
        key, field, text, column = _item(names, item)
        keys.append((key, field))
        if item.alias != "id":
            parts.append(f"'{_quoted(key)}:'||{text}")
        if column is not None and column.mode is Mode.MASKED:
            masks.append(Mask(key, field, inside=False))
        if column is not None and field.type == "reference" and column.mode >= Mode.READ:
            shown.append((key, column))
    if query.display and shown:
        parts.append(f"'\"display\":'||{_display(names, shown)}")
    return Projection(_object(parts), tuple(masks), tuple(keys))


def whole_record(names: Names, *, display: bool) -> Projection:
    """The record of the HTTP contract, with every field the reader may see."""
    alias, kind, ctx = names.alias, names.kind, names.ctx
    parts = [
        f"'\"id\":\"'||{alias}.id||'\"'",
        f"'\"kind\":\"'||{alias}.kind||'\"'",
        f"'\"number\":'||{_text(f'{alias}.number')}",
        f"'\"version\":\"'||{version(ctx, kind, alias)}||'\"'",
        f"'\"unit\":'||{_uuid(f'{alias}.unit_id')}",
        f"'\"owner\":'||{_uuid(f'{alias}.owner_id')}",
        f"'\"created_at\":'||{_moment(f'{alias}.created_at')}",
        f"'\"created_by\":'||{_uuid(f'{alias}.created_by')}",
        f"'\"updated_at\":'||{_moment(f'{alias}.updated_at')}",
        f"'\"updated_by\":'||{_uuid(f'{alias}.updated_by')}",
    ]
    inner: list[str] = []
    masks: list[Mask] = []
    keys: list[tuple[str, Field]] = []
    shown: list[tuple[str, Column]] = []
    for field in kind.fields:
        mode = ctx.profile.mode(kind.key, field)
        if mode is Mode.HIDDEN:
            continue
        column = Column(field, alias, kind, mode)
        inner.append(f"'{_quoted(field.name)}:'||{_value(names, column, field.name, '')}")
        keys.append((field.name, field))
        if mode is Mode.MASKED:
            masks.append(Mask(field.name, field, inside=True))
        elif field.type == "reference":
            shown.append((field.name, column))
    parts.append(f"'\"fields\":'||{_object(inner)}")
    if display and shown:
        parts.append(f"'\"display\":'||{_display(names, shown)}")
    return Projection(_object(parts), tuple(masks), tuple(keys))


def _item(names: Names, item: Item) -> tuple[str, Field, str, Column | None]:
    if item.function is not None:
        fail(item.at, "needs_group", "Functions stand in a query with group, or alone.")
    if item.path == "version":
        text = f"'\"'||{version(names.ctx, names.kind, names.alias)}||'\"'"
        return item.alias, Field(fid="@version", name="version", type="text"), text, None
    column = names.column(item.path, item.at, use="select")
    return item.alias, column.field, _value(names, column, item.path, item.at), column


def _value(names: Names, column: Column, path: str, at: str) -> str:
    field = column.field
    if field.system:
        slot = column.slot
        match field.type:
            case "moment":
                return _moment(slot)
            case "reference":
                return _uuid(slot)
            case _:
                return _text(slot)
    if field.type == "rollup":
        return rollup(names.ctx, names.sql, column, at)
    assert _FID.match(field.fid), "field ids are made by the write path"
    return f"coalesce(({column.alias}.data->'{field.fid}')::text,'null')"


def version(ctx: Ctx, kind: Kind, alias: str) -> str:
    """The version token without the registers of fields that are hidden from the reader."""
    readable = {f.register for f in kind.fields if ctx.profile.mode(kind.key, f) >= Mode.READ}
    hidden = sorted({f.register for f in kind.fields} - readable)
    if not hidden:
        return f"{alias}.stamps"
    names = "|".join(re.escape(name) for name in hidden).replace("\\-", "-").replace("\\~", "~")
    return f"regexp_replace({alias}.stamps, ';({names})(/[^=]*)?=[^;]*', '', 'g')"


def rollup(ctx: Ctx, sql: Sql, column: Column, at: str) -> str:
    """A guarded sub-select over the records that refer to this one; null beyond one's rights."""
    options = column.field.options
    child = ctx.schema.kind(str(options.get("kind")))
    if child is None or not ctx.profile.sees(child):
        return "'null'"
    via = child.by_name.get(str(options.get("via")))
    if via is None or via.type != "reference" or ctx.profile.mode(child.key, via) < Mode.READ:
        return "'null'"
    alias = sql.alias()
    tied = f"{alias}.{via.slot} = {column.alias}.id"
    where = " AND ".join([tied, *guard(ctx, sql, child, alias)])
    if options.get("op") == "count":
        return f"(SELECT count(*)::text FROM record {alias} WHERE {where})"
    summed = child.by_name.get(str(options.get("field")))
    if (
        summed is None
        or ctx.profile.mode(child.key, summed) < Mode.READ
        or not (summed.slot or "").startswith("n")
        or not summed.slot_ready
    ):
        return "'null'"
    total = scaled(summed, f"coalesce(sum({alias}.{summed.slot}), 0)")
    return f"(SELECT {total} FROM record {alias} WHERE {where})"


def scaled(field: Field, text: str, *, extra: int = 0) -> str:
    """A number of slot units as canonical JSON text; `extra` fraction digits for averages."""
    type_ = type_of(field.type)
    if field.type == "integer" and not extra:
        return f"({text})::text"
    slot_scale = type_.slot_scale(field)  # type: ignore[attr-defined]
    digits = type_.scale(field) + extra  # type: ignore[attr-defined]
    return f"'\"'||round(({text})::numeric / {10**slot_scale}, {digits})||'\"'"


def _display(names: Names, shown: list[tuple[str, Column]]) -> str:
    """Texts of referenced records, as far as the reader may read them."""
    parts: list[str] = []
    for key, column in shown:
        target = names.ctx.schema.kind(str(column.field.option("target")))
        if target is None or not names.ctx.profile.sees(target):
            continue
        alias = names.join(column.slot, target)
        field = target.by_name.get(target.display or "")
        readable = field is not None and names.ctx.profile.mode(target.key, field) >= Mode.READ
        source = f"{alias}.data->>'{field.fid}'" if field and readable else f"{alias}.number"
        parts.append(f"'{_quoted(key)}:'||{_text(source)}")
    return _object(parts)


def _object(parts: list[str]) -> str:
    """A JSON object as text; split so that no expression gets too deep."""
    if not parts:
        return "'{}'"
    return "('{'||" + "||','||".join(parts) + "||'}')"


def _quoted(key: str) -> str:
    return f'"{key}"'


def _text(source: str) -> str:
    return f"coalesce(to_json({source})::text,'null')"


def _uuid(source: str) -> str:
    return f"coalesce('\"'||{source}||'\"','null')"


def _moment(source: str) -> str:
    return f"coalesce('\"'||to_char({source},'{_MOMENT}')||'\"','null')"
