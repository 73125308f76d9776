"""How many conflicts and parked entries wait, as a worker counted them last."""

from __future__ import annotations

import msgspec
import redis.asyncio as aioredis

COUNTS_KEY = "nexus:inbox"
COUNTS_LAST_S = 300
PARKED = "parked"
_decode = msgspec.json.Decoder(dict[str, int]).decode


async def read_counts(client: aioredis.Redis) -> dict[str, int]:
    """By sort of conflict, and PARKED; empty when nobody counted lately. Raises RedisError."""
    found = await client.get(COUNTS_KEY)
    return _decode(found) if found else {}
