"""How imports and their sources go, in numbers, as a worker of the node counted them last.

The counts go to Redis for a while, so that a scrape costs no query for each tenant; when nobody has
counted lately there are none, because old ones would look like news.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec
import redis.asyncio as aioredis

from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Statement
from appliance.intake.sources import SourceRow, list_sources, overdue, state_of

KEY = "nexus:imports"
LAST_S = 300
_TALLY = Statement(
    "SELECT connector, ending, runs, rows, ms FROM intake_tally WHERE tenant_id = $1 ORDER BY 1, 2"
)
_DEAD = Statement(
    "SELECT (SELECT count(*) FROM intake_lost WHERE tenant_id = $1 AND state = 'open') + "
    "(SELECT count(*) FROM intake_run WHERE tenant_id = $1 AND state = 'failed' "
    "AND dismissed_at IS NULL)"
)


class SourceFigure(msgspec.Struct, frozen=True):
    """One source."""

    key: str
    state: str
    last_good_at: datetime | None
    known_at: datetime
    is_overdue: bool
    failures: int
    looks: int
    files: int
    bytes: int
    faults: dict[str, int]


class RunFigure(msgspec.Struct, frozen=True):
    """Runs of one connector that came to one end: planned, applied, failed, cancelled, reverted."""

    connector: str
    end: str
    runs: int
    rows: int
    ms: int


class TenantFigures(msgspec.Struct, frozen=True):
    """One tenant by its short name."""

    tenant: str
    sources: tuple[SourceFigure, ...]
    runs: tuple[RunFigure, ...]
    dead: int


_decode = msgspec.json.Decoder(tuple[TenantFigures, ...]).decode


async def count(
    db: Database, tenant: UUID, slug: str, now: datetime
) -> tuple[TenantFigures, list[SourceRow]]:
    """The figures of a tenant, and its sources as they stand."""
    found = await list_sources(db, tenant)
    tally, dead = await db.read(tenant, (_TALLY, (tenant,)), (_DEAD, (tenant,)))
    runs = tuple(
        RunFigure(text_of(r[0]), text_of(r[1]), int(r[2] or 0), int(r[3] or 0), int(r[4] or 0))
        for r in tally
    )
    sources = tuple(_figure(row, now) for row in found)
    number = int((dead.first() or (b"0",))[0] or 0)
    return TenantFigures(slug, sources, runs, number), found


async def keep(client: aioredis.Redis, figures: list[TenantFigures]) -> None:
    """Let the API processes have them. Raises RedisError."""
    await client.set(KEY, msgspec.json.encode(figures), ex=LAST_S)


async def read_figures(client: aioredis.Redis) -> tuple[TenantFigures, ...]:
    """As they were counted last; empty when nobody counted lately. Raises RedisError."""
    found = await client.get(KEY)
    return _decode(found) if found else ()


def _figure(row: SourceRow, now: datetime) -> SourceFigure:
    told = row.told
    is_overdue = overdue(row, now) is not None and not row.is_paused
    return SourceFigure(
        row.key, state_of(row, now), told.last_good_at, row.known_at, is_overdue, told.failures,
        told.looks, told.files, told.bytes, told.faults,
    )  # fmt: skip
