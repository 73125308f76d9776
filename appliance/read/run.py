"""The read path: query, plan, one round trip, page.

`run` answers a page, `stream` all rows batch by batch, `fetch` whole records by id. The rows are
JSON texts as PostgreSQL made them; only a row with a masked field is opened on the way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol
from uuid import UUID

import msgspec

from appliance.base import limits
from appliance.base.errors import Refused
from appliance.db.database import Database
from appliance.db.wire import Call, Rows
from appliance.fields import type_of
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.query import And, Cond, Query, Test
from appliance.read.cursor import Cursors
from appliance.read.plan import Plan, fingerprint, plan_query, ruler_call, total_call
from appliance.read.rows import Mask

BATCH = 1_000


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
    binding = fingerprint(ctx, query) if query.after or query.limit else b""
    place = cursors.open(query.after, binding) if query.after else None
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
    total = int((rest[1].first() or (b"0",))[0] or 0) if query.total else None
    return Page(
        rows=rows,
        next=cursors.seal(last, binding) if last is not None else None,
        cost=plan.cost,
        total=total,
        ruler=_marks(rest[-1], cursors, binding) if query.ruler else None,
        plan=plan,
    )


def page_rows(plan: Plan, answer: Rows) -> tuple[list[bytes], list[Json] | None]:
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


def _marks(answer: Rows, cursors: Cursors, binding: bytes) -> tuple[Mark, ...]:
    marks = []
    for n in range(len(answer)):
        position, *place = answer.values(n)
        marks.append(Mark(int(str(position)), cursors.seal(place, binding)))
    return tuple(marks)


async def stream(
    db: Database, ctx: Ctx, query: Query, *, guard: Guard | None = None
) -> AsyncIterator[tuple[Plan, list[bytes]]]:
    """All rows of a query in batches, each its own short transaction, up to EXPORT_ROWS_MAX.

    The guard is checked with every batch: a session that ends stops the export where it is.
    """
    step = msgspec.structs.replace(query, limit=BATCH, after=None, total=False, ruler=False)
    place: list[Json] | None = None
    sent = 0
    while sent < limits.EXPORT_ROWS_MAX:
        plan = plan_query(ctx, step, place)
        calls = [*(guard.calls if guard else ()), plan.call]
        answers = await db.read(ctx.tenant, *calls, timeout_ms=limits.EXPORT_TIMEOUT_MS)
        if guard:
            guard.check(answers[:-1])
        rows, place = page_rows(plan, answers[-1])
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
        part = [str(i) for i in ids[start : start + limits.IN_LIST_MAX]]
        where: Cond = Test("id", "in", part, "/id") if part else And(())
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
    if not ctx.profile.sees(ctx.schema.kind(kind)):
        if guard:
            guard.check(await db.read(ctx.tenant, *guard.calls))
        raise Refused("There is no such record for you.", code="record.unknown")
    found = await fetch(db, ctx, kind, [ident], guard=guard)
    if ident not in found:
        raise Refused("There is no such record for you.", code="record.unknown")
    return found[ident]
