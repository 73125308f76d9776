"""The long waits of sites at their hub: an answer the moment something is new for them.

Promises: what was committed before the wait began is answered at once, whether or not a wake was
heard; a waiting site costs an ear and a timer, no connection to the database; a scope that is
changed or withdrawn is noticed within RECHECK_S even when nothing is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from uuid import UUID

from appliance.base.errors import Unavailable
from appliance.db.database import Database
from appliance.sync import messages as say
from appliance.sync.heads import HeadBoard
from appliance.sync.hub import Grants, standing_of
from appliance.sync.nodes import PeerNode
from appliance.sync.people import people_rev
from appliance.sync.scope import streams_for
from appliance.sync.wake import Ear, Waker

WAITS_MAX = 1_000
RECHECK_S = 10.0
# Without wakes (Redis is away) a commit is found this late at most.
LOOK_S = 2.0


class Waits:
    """Those of one process. `closing` ends them all."""

    def __init__(self, db: Database, waker: Waker, closing: asyncio.Event) -> None:
        self._db, self._waker, self._closing = db, waker, closing
        self._board = HeadBoard(db)
        self._open = 0

    async def wait(self, site: PeerNode, tenant: UUID, asked: say.Waiting) -> say.Waited:
        """Until the hub's standing for the site is another than it says. Raises Unavailable."""
        if self._open >= WAITS_MAX:
            raise Unavailable(
                "The hub has no room for another waiting site.", dependency="hub",
                code="sync.busy", retry_after_s=30,
            )  # fmt: skip
        hold_s = min(max(asked.hold_ms / 1000, say.HOLD_S_MIN), say.HOLD_S_MAX)
        self._open += 1
        try:
            with self._waker.listen(tenant) as ear:
                async with self._ended_by_closing(ear):
                    return await self._look(site, tenant, asked.standing, hold_s, ear)
        finally:
            self._open -= 1

    async def _look(
        self, site: PeerNode, tenant: UUID, known: bytes, hold_s: float, ear: Ear
    ) -> say.Waited:
        clock = time.monotonic
        end, recheck, is_woken = clock() + hold_s, 0.0, True
        grants: Grants = {}
        people = 0
        while True:
            if clock() >= recheck:
                grants = await streams_for(self._db, site.id, tenant)
                people = await people_rev(self._db, tenant)
                recheck = clock() + RECHECK_S
            heads = await self._board.read(tenant, within_s=0.0 if is_woken else LOOK_S / 2)
            standing = standing_of(grants, heads, people)
            left = end - clock()
            if standing != known or left <= 0 or self._closing.is_set():
                return say.Waited(standing, standing != known)
            is_woken = await ear.wait(min(left, LOOK_S))

    @contextlib.asynccontextmanager
    async def _ended_by_closing(self, ear: Ear) -> AsyncIterator[None]:
        async def ring() -> None:
            await self._closing.wait()
            ear.ring(None)

        ending = asyncio.create_task(ring())
        try:
            yield
        finally:
            ending.cancel()
