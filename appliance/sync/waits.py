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
from typing import NamedTuple
from uuid import UUID

from appliance.base.errors import Unavailable
from appliance.db.database import Database
from appliance.sync import messages as say
from appliance.sync.heads import HeadBoard, Heads
from appliance.sync.hub import Grants, standing_of
from appliance.sync.nodes import PeerNode
from appliance.sync.positions import read_people_mark
from appliance.sync.scope import COMMON, find_scope, streams_for
from appliance.sync.wake import Ear, Waker
from appliance.write.log import common_stream

WAITS_MAX = 1_000
RECHECK_S = 10.0
# Without wakes (Redis is away) a commit is found this late at most.
LOOK_S = 2.0


class _View(NamedTuple):
    """What a node may have, and what that was worked out from."""

    grants: Grants
    people: int
    mark: tuple[int, str]
    places: tuple[int, ...]

    def fits(self, heads: Heads, tenant: UUID) -> bool:
        """Whether no stream is new, and neither units nor masks can have changed."""
        return self.places == _places(heads, tenant)


def _places(heads: Heads, tenant: UUID) -> tuple[int, ...]:
    common = (heads.get(common_stream(tenant, name)) for name in COMMON)
    return (len(heads), *(head.head for head in common if head is not None))


class Waits:
    """Those of one process. `closing` ends them all."""

    def __init__(self, db: Database, waker: Waker, closing: asyncio.Event) -> None:
        self._db, self._waker, self._closing = db, waker, closing
        self._board = HeadBoard(db)
        self._people: dict[UUID, tuple[float, int]] = {}
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
        view, is_sure = _View({}, 0, (0, ""), ()), False
        first: dict[UUID, int] = {}
        while True:
            heads = await self._board.read(tenant, within_s=0.0 if is_woken else LOOK_S / 2)
            if clock() >= recheck or not view.fits(heads, tenant):
                view = await self._renew(view, site, tenant, heads)
                recheck = clock() + RECHECK_S
            standing = standing_of(view.grants, heads, view.people)
            if standing != known and not is_sure:
                # What others have read a moment ago is no news for somebody who has just asked.
                people, is_sure = await self._people_mark(tenant, is_fresh=True), True
                view = view._replace(people=people)
                continue
            left = end - clock()
            if standing != known or left <= 0 or self._closing.is_set():
                now = {s: heads[s].head for s in view.grants if s in heads}
                hints = {s: head for s, head in now.items() if first.get(s) != head}
                return say.Waited(standing, standing != known, hints)
            first = first or {s: heads[s].head for s in view.grants if s in heads}
            is_woken = await ear.wait(min(left, LOOK_S))

    async def _renew(self, view: _View, site: PeerNode, tenant: UUID, heads: Heads) -> _View:
        """What the node may have now; worked out anew only when what it follows from has moved."""
        scope = await find_scope(self._db, site.id, tenant)
        people = await self._people_mark(tenant)
        mark = (scope.epoch, scope.state) if scope is not None else (0, "")
        if view.mark == mark and view.fits(heads, tenant):
            return _View(view.grants, people, mark, view.places)
        grants = await streams_for(self._db, site.id, tenant)
        return _View(grants, people, mark, _places(heads, tenant))

    async def _people_mark(self, tenant: UUID, *, is_fresh: bool = False) -> int:
        """The same for all who wait, and not older than what they look for."""
        known = self._people.get(tenant)
        if known is None or is_fresh or time.monotonic() - known[0] > RECHECK_S / 2:
            known = self._people[tenant] = (
                time.monotonic(), await read_people_mark(self._db, tenant),
            )  # fmt: skip
        return known[1]

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
