"""Names in the reader's own schema: what is hidden does not exist.

A path is resolved step by step over references the reader may follow; each step joins the target
with the reader's guard in the join condition, so a row out of scope reads as empty and never
matches. A hidden field, a field that never was and a kind without rights give the same answer,
before any data is touched. A masked field may only be selected.
"""

from __future__ import annotations

from typing import NoReturn

import msgspec

from appliance.base import limits
from appliance.base.errors import FieldFault, Invalid
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Field, Kind
from appliance.kernel.predicate import SYSTEM_FIELDS
from appliance.kernel.profile import Mode
from appliance.read.scope import guard
from appliance.read.sql import Sql


class Column(msgspec.Struct, frozen=True):
    """A resolved name: the field, the table it is read from, and what it is to the reader."""

    field: Field
    alias: str
    kind: Kind
    mode: Mode

    @property
    def slot(self) -> str:
        """The comparable column, qualified."""
        return f"{self.alias}.{self.field.slot}"


class Names:
    """The tables of one SELECT: the main one and the joins that paths have asked for."""

    def __init__(self, ctx: Ctx, sql: Sql, kind: Kind, alias: str) -> None:
        self.ctx = ctx
        self.sql = sql
        self.kind = kind
        self.alias = alias
        self.joins: list[str] = []
        self._joined: dict[str, tuple[Kind, str]] = {}

    def column(self, path: str, at: str, *, use: str) -> Column:
        """Resolve a path for a use: select, filter, sort, group or aggregate. Raises Invalid."""
        *steps, last = path.split(".")
        kind, alias = self.kind, self.alias
        walked = ""
        for step in steps:
            walked = f"{walked}.{step}" if walked else step
            kind, alias = self._step(kind, alias, step, walked, at)
        field, mode = self._find(kind, last, at)
        if mode is Mode.MASKED and use != "select":
            unknown_field(at, path)
        if use != "select":
            _check_usable(field, path, at)
        return Column(field, alias, kind, mode)

    def _find(self, kind: Kind, name: str, at: str) -> tuple[Field, Mode]:
        system = SYSTEM_FIELDS.get(name)
        if system is not None:
            return system, Mode.READ
        field = kind.by_name.get(name)
        mode = self.ctx.profile.mode(kind.key, field) if field is not None else Mode.HIDDEN
        if field is None or mode is Mode.HIDDEN:
            unknown_field(at, name)
        return field, mode

    def _step(self, kind: Kind, alias: str, name: str, walked: str, at: str) -> tuple[Kind, str]:
        known = self._joined.get(walked)
        if known is not None:
            return known
        field, mode = self._find(kind, name, at)
        target = self.ctx.schema.kind(str(field.option("target")))
        if field.type != "reference" or mode < Mode.READ or target is None:
            unknown_field(at, walked)
        if not self.ctx.profile.sees(target):
            unknown_field(at, walked)
        joined = self.join(f"{alias}.{field.slot}", target)
        self._joined[walked] = (target, joined)
        return target, joined

    def join(self, source: str, target: Kind) -> str:
        """A guarded LEFT JOIN of the record that `source` refers to; its alias."""
        joined = self.sql.alias()
        if len(self.joins) >= limits.JOINS_MAX:
            raise Invalid(f"A query follows at most {limits.JOINS_MAX} relations.", code="query.too_many_joins")
        conditions = " AND ".join([f"{joined}.id = {source}", *guard(self.ctx, self.sql, target, joined)])
        self.joins.append(f" LEFT JOIN record {joined} ON {conditions}")
        return joined


def _check_usable(field: Field, path: str, at: str) -> None:
    if not field.slot or (not field.filterable and field.slot != "link" and field.type != "reference"):
        fail(at, "not_filterable", f"{path} is not indexed: it can be shown, not filtered, sorted or counted.")
    if not field.slot_ready:
        fail(at, "field_indexing", f"{path} is being indexed; try again when the job is done.")


def readable_kind(ctx: Ctx, key: str, at: str) -> Kind:
    """A kind the reader may read. Raises Invalid, alike for unknown and forbidden."""
    kind = ctx.schema.kind(key)
    if kind is None or not ctx.profile.sees(kind):
        fail(at, "unknown_kind", "There is no such kind for you.")
    return kind


def unknown_field(at: str, name: str) -> NoReturn:
    """The one answer for hidden, masked in use, and never existing."""
    fail(at, "unknown_field", "There is no such field for you.")


def fail(at: str, code: str, detail: str) -> NoReturn:
    """Refuse the query at one place."""
    raise Invalid("The query cannot be run as it is.", code="query.invalid", faults=(FieldFault(at, code, detail),))
