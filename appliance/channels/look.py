"""Records by id or by a reference, as far as the reader may take them away: one statement a block.

The guard of the read path stands in each statement; a field that is hidden or masked reads as
nothing, a kind that may not leave has no rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.db.columns import Column
from appliance.db.wire import Call, Rows
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Kind
from appliance.kernel.profile import Mode, ScopeKind
from appliance.kernel.text import fold
from appliance.read import visible_fields
from appliance.read.guard import READ, guarded
from appliance.read.sql import Sql, literal

EXPORT = ("read", "export")
Row = dict[str, str]
# Where a page begins: after this moment of creation and id.
Place = tuple[datetime, UUID]


class Look(msgspec.Struct, frozen=True):
    """A question, and how its answer is read."""

    call: Call
    names: tuple[str, ...]

    def read(self, rows: Rows) -> list[Row]:
        """Rows by name, `id` among them; what is empty or hidden is ''."""
        names = ("id", *self.names)
        return [
            {n: v.decode() if v is not None else "" for n, v in zip(names, row, strict=True)}
            for row in rows
        ]


def open_kind(ctx: Ctx, key: str, actions: tuple[str, ...] = EXPORT) -> Kind | None:
    """A kind whose records may be taken, in part at least."""
    kind = ctx.schema.kind(key)
    if kind is None or not ctx.profile.sees(kind):
        return None
    scopes = (ctx.profile.scope(key, action).kind for action in actions)
    return None if ScopeKind.NONE in scopes else kind


def open_fields(ctx: Ctx, kind: Kind) -> dict[str, Field]:
    """The fields that may be taken as they are."""
    return {f.name: f for f, mode in visible_fields(ctx, kind) if mode >= Mode.READ}


def look_by(
    ctx: Ctx, key: str, names: Sequence[str], by: str, ids: Sequence[UUID] | Sequence[str],
    *, actions: tuple[str, ...] = EXPORT,
) -> Look | None:  # fmt: skip
    """Live records by `id`, by a reference (ids) or by an indexed text (texts); None when they are
    not for the reader.
    """
    kind = open_kind(ctx, key, actions)
    if kind is None:
        return None
    fields = open_fields(ctx, kind)
    sql = Sql()
    table = guarded(ctx, sql, kind, alias="a", actions=actions)
    if by == "id":
        column, listed = "a.id", sql.value(Column("uuid", list(ids)), "uuid[]")
    else:
        field = fields.get(by)
        if field is None or not field.slot or not field.slot_ready:
            return None
        column = f"a.{field.slot}"
        if field.slot.startswith("r"):
            listed = sql.value(Column("uuid", list(ids)), "uuid[]")
        else:
            folded = sorted({fold(str(i))[: limits.TEXT_SLOT_CHARS_MAX] for i in ids})
            listed = sql.value(Column("text", folded), "text[]")
    text = (
        f"SELECT a.id::text{_columns(fields, names)} FROM {table.source} WHERE {table.guard} "
        f"AND {column} = ANY({listed}) ORDER BY a.id"
    )
    return Look(sql.finish(text), tuple(names))


def look_all(
    ctx: Ctx, key: str, names: Sequence[str], *, actions: tuple[str, ...] = READ
) -> Look | None:
    """All live records of a kind of few."""
    kind = open_kind(ctx, key, actions)
    if kind is None:
        return None
    sql = Sql()
    table = guarded(ctx, sql, kind, alias="a", actions=actions)
    columns = _columns(open_fields(ctx, kind), names)
    text = f"SELECT a.id::text{columns} FROM {table.source} WHERE {table.guard} ORDER BY a.id"
    return Look(sql.finish(text), tuple(names))


def look_page(
    ctx: Ctx, kind: Kind, names: Sequence[str], after: Place | None, limit: int
) -> Look:  # fmt: skip
    """The next records of a kind by creation; `created_at` in microseconds stands in the rows."""
    sql = Sql()
    table = guarded(ctx, sql, kind, alias="a", actions=EXPORT)
    beyond = ""
    if after is not None:
        at, ident = sql.value(after[0], "timestamptz"), sql.value(after[1], "uuid")
        beyond = f"AND (a.created_at, a.id) > ({at}, {ident}) "
    columns = _columns(open_fields(ctx, kind), names)
    text = (
        f"SELECT a.id::text, (extract(epoch FROM a.created_at) * 1000000)::bigint{columns} "
        f"FROM {table.source} WHERE {table.guard} {beyond}"
        f"ORDER BY a.created_at, a.id LIMIT {sql.value(limit, 'bigint')}"
    )
    return Look(sql.finish(text), ("created_at", *names))


def look_entries(ctx: Ctx, key: str, by: str, ids: Sequence[UUID]) -> Look | None:
    """The ids of a ledger's entries that may be taken, of some products."""
    kind = open_kind(ctx, key)
    field = open_fields(ctx, kind).get(by) if kind is not None else None
    if kind is None or field is None or not field.slot:
        return None
    sql = Sql()
    table = guarded(ctx, sql, kind, alias="a", actions=EXPORT, deleted=None)
    listed = sql.value(Column("uuid", list(ids)), "uuid[]")
    text = f"SELECT a.id::text FROM {table.source} WHERE {table.guard} AND a.{field.slot} = ANY({listed})"
    return Look(sql.finish(text), ())


def look_words(ctx: Ctx, key: str, name: str) -> Call | None:
    """The different texts of a field."""
    kind = open_kind(ctx, key)
    field = open_fields(ctx, kind).get(name) if kind is not None else None
    if kind is None or field is None:
        return None
    sql = Sql()
    table = guarded(ctx, sql, kind, alias="a", actions=EXPORT)
    text = f"SELECT DISTINCT a.data->>{literal(field.fid)} FROM {table.source} WHERE {table.guard}"
    return sql.finish(text)


def _columns(fields: dict[str, Field], names: Sequence[str]) -> str:
    found = (fields.get(n) for n in names)
    return "".join(
        f", a.data->>{literal(f.fid)}" if f is not None else ", NULL::text" for f in found
    )
