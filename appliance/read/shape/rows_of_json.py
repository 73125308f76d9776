"""Rows as JSON: one array in one object, or one object a line. Rows pass undecoded."""

from __future__ import annotations

from collections.abc import AsyncIterator

from appliance.kernel.context import Ctx
from appliance.read.run import Batch


async def write_json(_: Ctx, batches: AsyncIterator[Batch]) -> AsyncIterator[bytes]:
    """`{"rows": [...], "next": null}`, the form of a page with all rows on it."""
    lead = b'{"rows":['
    async for _plan, rows in batches:
        if rows:
            yield lead + b",".join(rows)
            lead = b","
    yield (lead if lead != b"," else b"") + b'],"next":null}'


async def write_ndjson(_: Ctx, batches: AsyncIterator[Batch]) -> AsyncIterator[bytes]:
    """One row a line."""
    async for _plan, rows in batches:
        if rows:
            yield b"\n".join(rows) + b"\n"
