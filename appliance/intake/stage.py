"""Staging: the rows of a file as a child reads them, judged, into one table, by block.

A run that is prepared again starts from nothing: staging has no effect but its rows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import UUID

import msgspec

from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Call, Statement
from appliance.kernel.kind import Json
from connectors.sdk.contract import Done, Fault, Progress, Refused, Rows, StagedRow

_CLEAR = Statement("DELETE FROM intake_row WHERE tenant_id = $1 AND run = $2")
_INSERT = Statement(
    "INSERT INTO intake_row (tenant_id, run, no, sheet, line, entity, key, data, faults, sort, target, "
    "changes) SELECT $1, $2, n, s, l, e, k, d::jsonb, f::jsonb, o, t, c::jsonb "
    "FROM unnest($3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[], "
    "$9::text[], $10::text[], $11::uuid[], $12::text[]) AS u(n, s, l, e, k, d, f, o, t, c)"
)
_TYPES = ("bigint", "text", "bigint", "text", "text", "text", "text", "text", "uuid", "text")
_encode = msgspec.json.encode
Report = Callable[[int, int], Awaitable[None]]


class Change(msgspec.Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """One field's step; a price is named `price:<type>` and carries its currency."""

    field: str
    before: Json
    after: Json
    currency: str = ""


class Judged(msgspec.Struct, frozen=True):
    """What the plan says of a row."""

    sort: str
    target: UUID | None = None
    changes: tuple[Change, ...] = ()
    faults: tuple[dict[str, Json], ...] = ()


Judge = Callable[[Sequence[StagedRow]], Awaitable[list[Judged]]]


async def stage(
    db: Database, tenant: UUID, run: UUID, frames: AsyncIterator[Rows | Progress | Done], *,
    judge: Judge, report: Report, rows_max: int,
) -> Done:  # fmt: skip
    """Keep the rows of a reading with what `judge` says of them, block by block.

    Raises connectors.sdk.contract.Refused, also for more rows than the budget of the run.
    """
    async with db.transaction(tenant) as tx:
        await tx.run((_CLEAR, (tenant, run)))
    number, done = 0, None
    async for frame in frames:
        if isinstance(frame, Rows):
            if number + len(frame.rows) > rows_max:
                raise Refused(Fault("too-many-rows", f"at most {rows_max} rows", "more"))
            judged = await judge(frame.rows)
            async with db.transaction(tenant) as tx:
                await tx.run(_rows_call(tenant, run, number, frame.rows, judged), commit=True)
            number += len(frame.rows)
        elif isinstance(frame, Progress):
            await report(frame.rows, frame.total)
        else:
            done = frame
    assert done is not None, "a reading ends with Done or raises"
    return done


def _rows_call(
    tenant: UUID, run: UUID, first: int, rows: Sequence[StagedRow], judged: Sequence[Judged]
) -> Call:
    lines = (
        (
            n, r.place.sheet, r.place.row, r.entity, r.key, _encode(r.values).decode(),
            _encode([*r.faults, *j.faults]).decode(), j.sort, j.target, _encode(j.changes).decode(),
        )
        for n, (r, j) in enumerate(zip(rows, judged, strict=True), first)
    )  # fmt: skip
    columns = zip(*lines, strict=True)
    return _INSERT, (tenant, run, *(Column(t, c) for t, c in zip(_TYPES, columns, strict=True)))
