"""What rows look like when they leave in bulk: JSON, NDJSON, CSV, XLSX, one file each.

Every form is a stream of bytes made batch by batch: the memory of an export does not grow with
its rows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping

import msgspec

from appliance.base.errors import NotAcceptable
from appliance.db.database import Database
from appliance.kernel.context import Ctx
from appliance.kernel.query import Query
from appliance.read.groups import is_grouped
from appliance.read.run import Batch, Guard, stream
from appliance.read.shape.comma_separated import write_csv
from appliance.read.shape.rows_of_json import write_json, write_ndjson
from appliance.read.shape.workbook import write_xlsx

Writer = Callable[[Ctx, AsyncIterator[Batch]], AsyncIterator[bytes]]

WRITERS: Mapping[str, Writer] = {
    "json": write_json,
    "ndjson": write_ndjson,
    "csv": write_csv,
    "xlsx": write_xlsx,
}
MEDIA: Mapping[str, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


async def export(
    db: Database, ctx: Ctx, query: Query, form: str, *, guard: Guard | None = None
) -> AsyncIterator[bytes]:
    """All rows of a query as a file of the given form, in pieces.

    The first batch is read before this returns, so that every refusal comes before the first
    byte. Raises NotAcceptable, Invalid, Forbidden; while it streams also TooLarge and what the
    guard and the database say, which must end the answer torn.
    """
    write = WRITERS.get(form)
    if write is None:
        raise NotAcceptable(f"Rows leave as one of {', '.join(WRITERS)}.")
    if form in ("csv", "xlsx") and not is_grouped(query):
        query = msgspec.structs.replace(query, display=True)
    batches = stream(db, ctx, query, guard=guard, action="export", cells=form == "csv")
    first = await anext(batches)
    return write(ctx, _with_first(first, batches))


async def _with_first(first: Batch, rest: AsyncIterator[Batch]) -> AsyncIterator[Batch]:
    yield first
    async for batch in rest:
        yield batch
