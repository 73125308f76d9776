"""Staging: the rows of a file as a child reads them, into one table, by block.

A run that is prepared again starts from nothing: staging has no effect but its rows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import msgspec

from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Call, Statement
from connectors.sdk import parent
from connectors.sdk.contract import Done, Mapping, Progress, Rows, StagedRow

_CLEAR = Statement("DELETE FROM intake_row WHERE tenant_id = $1 AND run = $2")
_INSERT = Statement(
    "INSERT INTO intake_row (tenant_id, run, no, sheet, line, key, data, faults, sort) "
    "SELECT $1, $2, n, s, l, k, d::jsonb, f::jsonb, CASE f WHEN '[]' THEN 'staged' ELSE 'faulty' END "
    "FROM unnest($3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[]) "
    "AS u(n, s, l, k, d, f)"
)
_encode = msgspec.json.encode
Report = Callable[[int, int], Awaitable[None]]


async def stage(
    db: Database, tenant: UUID, run: UUID, connector: str, path: Path, mapping: Mapping, *,
    report: Report,
) -> Done:  # fmt: skip
    """Read the file and keep its rows. Raises connectors.sdk.contract.Refused."""
    async with db.transaction(tenant) as tx:
        await tx.run((_CLEAR, (tenant, run)))
    number, done = 0, None
    async for frame in parent.read(connector, path, mapping):
        if isinstance(frame, Rows):
            async with db.transaction(tenant) as tx:
                await tx.run(_rows_call(tenant, run, number, frame.rows), commit=True)
            number += len(frame.rows)
        elif isinstance(frame, Progress):
            await report(frame.rows, frame.total)
        else:
            done = frame
    assert done is not None, "a reading ends with Done or raises"
    return done


def _rows_call(tenant: UUID, run: UUID, first: int, rows: tuple[StagedRow, ...]) -> Call:
    columns = zip(
        *(
            (
                n,
                r.place.sheet,
                r.place.row,
                r.key,
                _encode(r.values).decode(),
                _encode(r.faults).decode(),
            )
            for n, r in enumerate(rows, first)
        ),
        strict=True,
    )
    types = ("bigint", "text", "bigint", "text", "text", "text")
    return _INSERT, (tenant, run, *(Column(t, c) for t, c in zip(types, columns, strict=True)))
