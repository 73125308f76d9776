"""The chore of imports: see how the sources of connector workers stand, say what is new, count.

A worker that dies says nothing, and a file that does not come makes no noise: somebody has to look
at the clock. What somebody has to hear of is logged once when it begins and once when it is over.
"""

from __future__ import annotations

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from appliance.base import logs
from appliance.base.clock import now
from appliance.base.errors import ApplianceError
from appliance.intake import figures
from appliance.intake.sources import ALERTS, note_alert
from appliance.work.node import WorkNode


async def watch_sources(node: WorkNode) -> int:
    """Look at the sources of every tenant; how many alerts began or ended."""
    counted: list[figures.TenantFigures] = []
    news, at = 0, now()
    for route in node.db.routes.all():
        try:
            found, rows = await figures.count(node.db, route.tenant, route.slug, at)
            for figure, row in zip(found.sources, rows, strict=True):
                alert = figure.state if figure.state in ALERTS else ""
                if alert == row.alerted:
                    continue
                if await note_alert(node.db, route.tenant, row.key, alert):
                    news += 1
                    logs.event(
                        "source.alerted" if alert else "source.recovered",
                        level="warning" if alert else "info", tenant=route.tenant,
                        source=row.key, worker=row.worker, connector=row.told.connector,
                        state=figure.state, code=row.told.code or None,
                    )  # fmt: skip
        except ApplianceError as error:
            logs.event("imports.tenant_skipped", tenant=route.tenant, code=error.code)
            continue
        counted.append(found)
    client = aioredis.Redis.from_url(node.redis_url)
    try:
        await figures.keep(client, counted)
    except (RedisError, OSError) as error:
        logs.event("imports.not_counted", error_type=type(error).__name__)
    finally:
        await client.aclose()
    return news
