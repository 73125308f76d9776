"""The chore of the inbox: forget clashes that are over, count what waits for people.

The counts go to Redis for a while; the API shows them in its metrics, and shows none when no
worker has counted lately.
"""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import msgspec
import redis.asyncio as aioredis
from redis.exceptions import RedisError

from appliance.base import logs
from appliance.base.errors import ApplianceError
from appliance.db.wire import Statement
from appliance.sync.waiting import COUNTS_KEY, COUNTS_LAST_S, PARKED
from appliance.work.node import WorkNode, system_context
from appliance.write.clashes import sweep

_NOBODY = UUID(int=0)
_COUNTS = Statement(
    # A reference of what is deleted itself stands again when that is restored, and not before.
    "SELECT sort, count(*) FROM conflict c WHERE tenant_id = $1 AND (sort <> 'dangling_ref' OR NOT "
    "EXISTS (SELECT FROM record r WHERE r.tenant_id = $1 AND r.id = c.record_id "
    "AND r.deleted_at IS NOT NULL)) GROUP BY sort UNION ALL "
    f"SELECT '{PARKED}', count(*) FROM parked WHERE tenant_id = $1 AND state = 'waiting'"
)


async def tend_inbox(node: WorkNode) -> int:
    """Count what is open in every tenant; how many ended clashes were forgotten."""
    counts: Counter[str] = Counter()
    gone = 0
    for route in node.db.routes.all():
        try:
            found = await _count(node, route.tenant)
            if found["unique"] + found["dangling_ref"] + found["negative_stock"]:
                ctx = await system_context(node, route.tenant, _NOBODY)
                async with node.db.transaction(route.tenant) as tx:
                    swept = await sweep(tx, ctx)
                gone += swept
                found = await _count(node, route.tenant) if swept else found
        except ApplianceError as error:
            logs.event("conflicts.tenant_skipped", tenant=route.tenant, code=error.code)
            continue
        counts.update(found)
    client = aioredis.Redis.from_url(node.redis_url)
    try:
        await client.set(COUNTS_KEY, msgspec.json.encode(dict(counts)), ex=COUNTS_LAST_S)
    except (RedisError, OSError) as error:
        logs.event("conflicts.not_counted", error_type=type(error).__name__)
    finally:
        await client.aclose()
    return gone


async def _count(node: WorkNode, tenant: UUID) -> Counter[str]:
    (rows,) = await node.db.read(tenant, (_COUNTS, (tenant,)))
    return Counter({(sort or b"").decode(): int(n or 0) for sort, n in rows})
