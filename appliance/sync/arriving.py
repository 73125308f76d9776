"""What a site takes from its hub's answer: frames into the log, and how far that goes.

Promises: of a frame whole transactions are taken, the cursor is saved with the last of an answer; the
schema is taken before what was written under it, then who may sign in, then the rest in the order
it came; a stream that seems to leave something out is read from its beginning, once.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import aclosing
from uuid import UUID

from appliance.base import logs
from appliance.base.errors import Malformed, Unavailable
from appliance.db.database import Database
from appliance.sync import messages as say
from appliance.sync.attesting import Kept
from appliance.sync.nodes import PeerNode
from appliance.sync.positions import note_cursors
from appliance.sync.taking import Taker
from appliance.sync.withdrawal import arrived
from appliance.write.receive import receive


class Arrivals:
    """Of one conversation. `cursors` is how far the hub's streams were taken."""

    def __init__(self, db: Database, tenant: UUID, hub: PeerNode, taker: Taker) -> None:
        self._db, self._tenant, self._hub, self._taker = db, tenant, hub, taker
        self.cursors: dict[UUID, int] = {}
        self.kept = Kept(db, tenant, hub)
        self._gaps: set[UUID] = set()
        self._whole: set[UUID] = set()

    async def take(self, delivery: say.Delivery, *, is_schema: bool) -> None:
        """A stream's frames, each in a transaction of its own."""
        stream = delivery.stream
        last = len(delivery.frames) - 1
        n, is_kept = -1, False
        async with aclosing(self._taker.open(delivery.frames)) as frames:
            async for reach, frame in frames:
                n += 1
                if reach.stream != stream:
                    raise Malformed("The hub sent a frame of another stream.", code="sync.frame")
                if frame is None:
                    continue
                is_kept = n == last
                taken = await receive(
                    self._db, await self._taker.ctx(), stream, frame.entries,
                    peer=self._hub.origin, cursor=delivery.upto if is_kept else None,
                    from_hub=True, proved=frame.before,
                )  # fmt: skip
                if is_schema:
                    self._taker.renew()
                if taken.gap:
                    await self._go_back(stream)
                    return
        self.cursors[stream] = delivery.upto
        if not is_kept:
            await self._keep(stream)
        if delivery.attested:
            await self.kept.keep([delivery.attested])

    async def finish(self, streams: Collection[UUID], hints: dict[UUID, int]) -> None:
        """Streams that were taken up to their head are whole: they may be written here again."""
        for stream in streams:
            if stream not in self._whole and self.cursors.get(stream, 0) >= hints.get(stream, 0):
                self._whole.add(stream)
                if await arrived(self._db, self._tenant, stream):
                    self._taker.renew()

    async def _go_back(self, stream: UUID) -> None:
        """The cursor is ahead of what is here: what is known costs little to read again."""
        logs.event("sync.pull_gap", level="warning", tenant=self._tenant, stream=stream)
        self.cursors[stream] = 0
        await self._keep(stream)
        if stream in self._gaps:
            raise Unavailable(
                "The hub's stream leaves out entries that this node has not; see `nexus sync status`.",
                dependency="hub", code="sync.pull_gap", retry_after_s=60,
            )  # fmt: skip
        self._gaps.add(stream)

    async def _keep(self, stream: UUID) -> None:
        reached = {stream: (self.cursors[stream], 0)}
        await note_cursors(self._db, self._tenant, self._hub.origin, reached)
