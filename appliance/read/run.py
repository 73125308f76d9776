"""The read path: query, plan, one round trip, page.

`run` answers a page, `stream` all rows batch by batch, `fetch` whole records by id. The rows are
JSON texts as PostgreSQL made them; only a row with a masked field is opened on the way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.base.errors import Forbidden, Refused, TooLarge
from appliance.db.database import Database
from appliance.db.wire import Call, Rows
from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.profile import ScopeKind
from appliance.kernel.query import And, Cond, Or, Query, Test
from appliance.read.cursor import Cursors
from appliance.read.plan import (
    Plan,
    fingerprint,
    moment_text,
    plan_query,
    ruler_call,
    total_call,
)
from appliance.read.rows import Mask

BATCH = 1_000
# Stands in a plan for the id that is asked for; no record has it.
_ANY = UUID(int=0)
Batch = tuple[Plan, list[bytes]]


class Guard(Protocol):
    """What the door checks in the same round trip: the session and the revisions of rights."""

    @property
    def calls(self) -> Sequence[Call]:
        """Statements to run before the query."""

    def check(self, answers: Sequence[Rows]) -> None:
        """Raise when the answer must not be given."""


class Mark(msgspec.Struct, frozen=True):
    """A place for jumping: the number of the row before it, and the cursor."""

    position: int
    after: str


class Page(msgspec.Struct, frozen=True):
    """Rows as JSON texts; `next` is the cursor of the following page."""

    rows: list[bytes]
    next: str | None
    cost: int
    total: int | None = None
    ruler: tuple[Mark, ...] | None = None
    plan: Plan | None = None


async def run(
    db: Database, ctx: Ctx, query: Query, cursors: Cursors, *, guard: Guard | None = None
) -> Page:
    """One page. Raises Invalid, and what the guard and the database say."""
    binding = fingerprint(ctx, query)
    place: list[Json] | None = None
    started = query.asof or moment_text(ctx.at)
    if query.after:
        place, started = cursors.open(query.after, binding)
        query = msgspec.structs.replace(query, asof=started)
    plan = plan_query(ctx, query, place)
    calls: list[Call] = [*(guard.calls if guard else ()), plan.call]
    if query.total:
        calls.append(total_call(ctx, query))
    if query.ruler:
        calls.append(ruler_call(ctx, query))
    answers = await db.read(ctx.tenant, *calls)
    if guard:
        guard.check(answers[: len(guard.calls)])
    rest = answers[len(guard.calls) if guard else 0 :]
    rows, last = page_rows(plan, rest[0])

    def seal(place: Sequence[Json]) -> str:
        return cursors.seal(place, started, binding)

    return Page(
        rows=rows,
        next=seal(last) if last is not None else None,
        cost=plan.cost,
        total=int((rest[1].first() or (b"0",))[0] or 0) if query.total else None,
        ruler=_marks(rest[-1], seal) if query.ruler else None,
        plan=plan,
    )


def page_rows(plan: Plan, answer: Rows) -> tuple[list[bytes], list[str | None] | None]:
    """The rows of a page, masked where they must be, and the place after them if there is more."""
    found = answer.column()
    more = len(found) > plan.limit
    rows = [row or b"null" for row in found[: plan.limit]]
    if plan.projection.masks:
        rows = [_masked(row, plan.projection.masks) for row in rows]
    if not more or plan.grouped:
        return rows, None
    return rows, answer.values(plan.limit - 1)[1:]


def _masked(row: bytes, masks: Sequence[Mask]) -> bytes:
    record = msgspec.json.decode(row)
    for mask in masks:
        holder = record["fields"] if mask.inside else record
        value = holder.get(mask.key)
        if value is not None:
            holder[mask.key] = type_of(mask.field.type).mask(mask.field, value)
    return msgspec.json.encode(record)


def _marks(answer: Rows, seal: Callable[[Sequence[Json]], str]) -> tuple[Mark, ...]:
    marks = []
    for n in range(len(answer)):
        position, *place = answer.values(n)
        marks.append(Mark(int(str(position)), seal(place)))
    return tuple(marks)


async def stream(
    db: Database,
    ctx: Ctx,
    query: Query,
    *,
    guard: Guard | None = None,
    action: str = "read",
    cells: bool = False,
) -> AsyncIterator[Batch]:
    """All rows of a query in batches, each its own short transaction; at least one batch.

    With `action` "export" the rows lie in both scopes, that of reading and that of exporting; with
    `cells` they are texts of cells where that is possible: `plan.projection.cells` says so. The
    guard is checked with every batch: a session that ends stops the stream where it is. Groups
    come in one batch. Raises Forbidden, and TooLarge behind the last row that may be sent: a list
    is never cut in silence.
    """
    kind = ctx.schema.kind(query.source)
    if kind is not None and ctx.profile.sees(kind):
        if ctx.profile.scope(kind.key, action).kind is ScopeKind.NONE:
            raise Forbidden(f"Your profile may not {action} these records.")
    step = msgspec.structs.replace(query, limit=BATCH, after=None, total=False, ruler=False)
    place: list[str | None] | None = None
    sent = 0
    while True:
        plan = plan_query(ctx, step, place, action=action, cells=cells)
        calls = [*(guard.calls if guard else ()), plan.call]
        answers = await db.read(ctx.tenant, *calls, timeout_ms=limits.EXPORT_TIMEOUT_MS)
        if guard:
            guard.check(answers[:-1])
        rows, place = page_rows(plan, answers[-1])
        if sent + len(rows) > limits.EXPORT_ROWS_MAX:
            raise TooLarge(
                f"More than {limits.EXPORT_ROWS_MAX} rows: narrow the query and export in parts.",
                code="export.too_many_rows",
            )
        yield plan, rows
        sent += len(rows)
        if place is None:
            return


async def fetch(
    db: Database,
    ctx: Ctx,
    kind: str,
    ids: Sequence[UUID],
    *,
    guard: Guard | None = None,
    display: bool = True,
) -> dict[UUID, bytes]:
    """Whole records by id, as JSON texts; what the reader may not see is not there."""
    found: dict[UUID, bytes] = {}
    for start in range(0, max(1, len(ids)), limits.IN_LIST_MAX):
        part: list[Json] = [str(i) for i in ids[start : start + limits.IN_LIST_MAX]]
        where: Cond = Test("id", "in", part, "/id") if part else Or(())
        query = Query(source=kind, where=where, limit=max(1, len(part)), display=display)
        plan = plan_query(ctx, query)
        answers = await db.read(ctx.tenant, *(guard.calls if guard else ()), plan.call)
        if guard:
            guard.check(answers[:-1])
        rows, _ = page_rows(plan, answers[-1])
        ident = len(plan.keys)
        for n, row in enumerate(rows):
            found[UUID(str(answers[-1].values(n)[ident]))] = row
    return found


async def fetch_one(
    db: Database, ctx: Ctx, kind: str, ident: UUID, *, guard: Guard | None = None
) -> bytes:
    """One record. Raises Refused, alike for unknown and forbidden."""
    calls = list(guard.calls) if guard else []
    one = One(ctx, kind, ident) if ctx.profile.sees(ctx.schema.kind(kind)) else None
    answers = await db.read(ctx.tenant, *calls, *([one.call] if one else ()))
    if guard:
        guard.check(answers[: len(calls)])
    found = one.read(answers[-1]) if one else None
    if found is None:
        raise Refused("There is no such record for you.", code="record.unknown")
    return found


class One:
    """A whole record by id (`only` if a condition holds), as a call that others may run in a round
    trip of theirs. Raises Invalid for a condition that the reader may not ask.

    The plan is that of any record of the kind, so it is compiled once for all of them.
    """

    def __init__(self, ctx: Ctx, kind: str, ident: UUID, only: Cond | None = None) -> None:
        where: Cond = Test("id", "eq", str(_ANY), "/id")
        where = where if only is None else And((where, only))
        self._plan = plan_query(ctx, Query(source=kind, where=where, limit=1, display=True))
        statement, params = self._plan.call
        self.call: Call = (statement, tuple(ident if p == _ANY else p for p in params))

    def read(self, rows: Rows) -> bytes | None:
        """The record as JSON text, if there is one for this reader."""
        found, _ = page_rows(self._plan, rows)
        return found[0] if found else None
