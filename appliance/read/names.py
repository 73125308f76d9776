"""Names in the reader's own schema: what is hidden does not exist.

A path is resolved step by step over references the reader may follow; each step joins the target
with the reader's guard in the join condition, so a row out of scope reads as empty and never
matches. A hidden field, a field that never was and a kind without rights give the same answer,
before any data is touched. A masked field may only be selected.
"""

from __future__ import annotations

from typing import NoReturn

import msgspec

from appliance.base.errors import FieldFault, Invalid
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Kind
from appliance.kernel.predicate import SYSTEM_FIELDS
from appliance.kernel.profile import Mode
from appliance.read import cost
from appliance.read.guard import Table, guarded
from appliance.read.sql import Sql

_REFUSED = "The query cannot be run as it is."


class Column(msgspec.Struct, frozen=True):
    """A resolved name: the field, the table it is read from, and what it is to the reader.

    `text` stands in the place of the column where a group or an aggregate is meant.
    """

    field: Field
    alias: str
    kind: Kind
    mode: Mode
    text: str = ""

    @property
    def slot(self) -> str:
        """The comparable column, qualified."""
        return self.text or f"{self.alias}.{self.field.slot}"


class Names:
    """The tables of one SELECT: the main one and the joins that paths have asked for."""

    def __init__(self, ctx: Ctx, sql: Sql, table: Table) -> None:
        self.ctx = ctx
        self.sql = sql
        self.kind = table.kind
        self.alias = table.alias
        self.guard = table.guard
        self._from = table.source
        self.joins: list[str] = []
        self._joined: dict[str, tuple[Kind, str]] = {}

    @property
    def source(self) -> str:
        """The FROM list."""
        return f"FROM {self._from}{''.join(self.joins)}"

    def column(self, path: str, at: str, *, use: str) -> Column:
        """Resolve a path for a use: select, filter, sort, group or aggregate. Raises Invalid."""
        steps, _, last = path.rpartition(".")
        kind, alias = self.step(steps, at) if steps else (self.kind, self.alias)
        field, mode = self.find(kind, last, at)
        if use != "select":
            if mode is Mode.MASKED:
                unknown_field(at)
            check_usable(field, path, at)
        return Column(field, alias, kind, mode)

    def find(self, kind: Kind, name: str, at: str) -> tuple[Field, Mode]:
        """A field that exists for the reader, and its mode. Raises Invalid."""
        system = SYSTEM_FIELDS.get(name)
        if system is not None:
            return system, Mode.READ
        field = kind.by_name.get(name)
        mode = self.ctx.profile.mode(kind.key, field) if field is not None else Mode.HIDDEN
        if field is None or mode is Mode.HIDDEN:
            unknown_field(at)
        return field, mode

    def step(self, path: str, at: str, *, shown: bool = False) -> tuple[Kind, str]:
        """The kind and table that a path of references leads to, joined once. Raises Invalid.

        `shown` joins serve the display texts of a row; they are not the query's own.
        """
        known = self._joined.get(path)
        if known is not None:
            return known
        before, _, name = path.rpartition(".")
        kind, alias = self.step(before, at) if before else (self.kind, self.alias)
        field, mode = self.find(kind, name, at)
        target = self.ctx.schema.kind(str(field.option("target")))
        if field.type != "reference" or mode < Mode.READ or target is None or not field.slot:
            unknown_field(at)
        if not self.ctx.profile.sees(target):
            unknown_field(at)
        if not shown:
            cost.count_join(self.sql)
        table = guarded(self.ctx, self.sql, target)
        self.joins.append(
            f" LEFT JOIN {table.source}"
            f" ON {table.alias}.id = {alias}.{field.slot} AND {table.guard}"
        )
        found = self._joined[path] = (target, table.alias)
        return found


def check_usable(field: Field, path: str, at: str) -> None:
    """Refuse a field that has no place in an index, or not yet."""
    if not field.slot or not (
        field.filterable or field.slot == "link" or field.type == "reference"
    ):
        fail(
            at,
            "not_filterable",
            f"{path} is not indexed: it can be shown, not filtered, sorted or counted.",
        )
    if not field.slot_ready:
        fault = FieldFault(
            at, "field_indexing", f"{path} is being indexed; try again when the job is done."
        )
        raise Invalid(_REFUSED, code="field.indexing", faults=(fault,))


def visible_fields(ctx: Ctx, kind: Kind) -> tuple[tuple[Field, Mode], ...]:
    """The fields of a kind that exist for the reader, with their modes, in display order."""
    modes = ctx.profile.grant(kind.key).fields
    found = ((f, modes.get(f.fid, Mode.HIDDEN)) for f in kind.fields)
    return tuple((f, mode) for f, mode in found if mode is not Mode.HIDDEN)


def readable_kind(ctx: Ctx, key: str, at: str) -> Kind:
    """A kind the reader may read. Raises Invalid, alike for unknown and forbidden."""
    kind = ctx.schema.kind(key)
    if kind is None or not ctx.profile.sees(kind):
        fail(at, "unknown_kind", "There is no such kind for you.")
    return kind


def unknown_field(at: str) -> NoReturn:
    """The one answer for hidden, masked in use, and never existing."""
    fail(at, "unknown_field", "There is no such field for you.")


def fail(at: str, code: str, detail: str) -> NoReturn:
    """Refuse the query at one place."""
    raise Invalid(_REFUSED, code="query.invalid", faults=(FieldFault(at, code, detail),))
