"""The heads of a tenant's streams, read once for all who wait for them in this process.

Two hundred sites wait for one hub: a commit that wakes them costs one small query, not two
hundred, and no more than twenty a second however often the tenant writes. Who asks gets an answer
that was read after they asked, unless they say that an older one will do.
"""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from appliance.db.database import Database
from appliance.sync.positions import Head, read_heads

APART_S = 0.05
Heads = dict[UUID, Head]


class HeadBoard:
    """One per process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._next: dict[UUID, asyncio.Task[Heads]] = {}
        self._last: dict[UUID, tuple[float, Heads]] = {}
        self._locks: dict[UUID, asyncio.Lock] = {}

    async def read(self, tenant: UUID, *, within_s: float = 0.0) -> Heads:
        """The heads as they are now or later, or were `within_s` ago. Raises Unavailable."""
        known = self._last.get(tenant)
        if known is not None and time.monotonic() - known[0] < within_s:
            return known[1]
        task = self._next.get(tenant)
        if task is None:
            task = self._next[tenant] = asyncio.create_task(self._read(tenant))
        # One who goes away must not take the answer from the others.
        return await asyncio.shield(task)

    async def _read(self, tenant: UUID) -> Heads:
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            known = self._last.get(tenant)
            if known is not None:
                await asyncio.sleep(max(0.0, known[0] + APART_S - time.monotonic()))
            # Who asks from here on may have seen what this reading does not: a new one for them.
            del self._next[tenant]
            at = time.monotonic()
            found = await read_heads(self._db, tenant)
            self._last[tenant] = (at, found)
            return found
