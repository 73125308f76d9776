"""A site's side of one tenant's conversation: hello, then exchange while there is something, wait.

Promises: nothing is known that the database does not hold, so a kill anywhere is a repetition;
the schema is taken before what was written under it; what the hub has is what its receipts say,
never what was sent; a stream that the hub refuses stays where it is and holds up no other.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from uuid import UUID

import httpx

from appliance import __version__
from appliance.base import logs
from appliance.base.errors import Malformed
from appliance.db.database import Database
from appliance.sync import messages as say
from appliance.sync.client import HubClient
from appliance.sync.keys import NodeKey
from appliance.sync.nodes import PeerNode
from appliance.sync.outgoing import read_after
from appliance.sync.people import take_people
from appliance.sync.positions import (
    note_acked,
    note_cursors,
    read_heads,
    read_pending,
    read_positions,
)
from appliance.sync.taking import Taker
from appliance.write.receive import receive

# A stream the hub refused is offered again after this long.
STUCK_S = 60.0
_FIRST = {"schema": 0, "shared": 1}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a conversation needs. `transport` is for a hub in the same process."""

    db: Database
    me: PeerNode
    hub: PeerNode
    key: NodeKey
    max_bytes: int = say.ASK_BYTES_MAX
    transport: httpx.AsyncBaseTransport | None = None


class Talk:
    """One conversation, from hello to close. Any error ends it; what it knew is read again."""

    def __init__(self, parts: Parts, tenant: UUID) -> None:
        self._parts, self._db, self._tenant = parts, parts.db, tenant
        self.client = HubClient(
            parts.hub, tenant, me=parts.me.id, key=parts.key, transport=parts.transport
        )
        self._taker = Taker(parts.db, tenant, origin=parts.me.origin, peer=parts.hub.id)
        self.welcome: say.Welcome | None = None
        self.standing = b""
        self.notices: list[say.Notice] = []
        self._grants: dict[UUID, say.Granted] = {}
        self._hints: dict[UUID, int] = {}
        self._cursors: dict[UUID, int] = {}
        self._told: dict[UUID, int] = {}
        self._got: dict[UUID, dict[int, int]] = {}
        self._stuck: dict[UUID, float] = {}
        self._people_rev = 0
        self._has_asked = False

    async def close(self) -> None:
        """Let the connection go."""
        await self.client.close()

    async def greet(self, proof: bytes = b"") -> say.Welcome:
        """Hear what this node may have and where both stand."""
        positions = await read_positions(self._db, self._tenant, self._parts.hub.origin)
        heads = await read_heads(self._db, self._tenant)
        own = self._parts.me.origins
        self._cursors = {stream: p.cursor for stream, p in positions.items()}
        made = {h.stream: (h.origin, h.oseq) for h in heads.values() if h.origin in own and h.oseq}
        welcome = await self.client.greet(
            say.Hello(say.PROTOCOLS, __version__, time.time_ns() // 1_000_000, made,
                      self._cursors, proof)
        )  # fmt: skip
        self.welcome, self.notices = welcome, list(welcome.notices)
        ordered = sorted(welcome.streams, key=lambda g: (_FIRST.get(g.name, 2), g.stream))
        self._grants = {g.stream: g for g in ordered}
        self._hints = {g.stream: g.head for g in ordered}
        self._got = {g.stream: {o: g.got.get(o, 0) for o in own} for g in ordered}
        self._told, self._has_asked = dict(self._cursors), False
        self.standing = welcome.standing
        self._people_rev = 0
        return welcome

    async def has_pending(self) -> bool:
        """Whether the hub lacks something that was made here and would be offered now."""
        return any(not self._is_stuck(s) for s in await self._pending())

    async def catch_up(self) -> None:
        """Exchange until neither side has anything the other lacks, or nothing moves any more."""
        while await self._exchange():
            pass

    async def wait(self, hold_s: float) -> bool:
        """Wait at the hub; whether it has something that was not heard of yet."""
        moved = {s: c for s, c in self._cursors.items() if self._told.get(s) != c}
        found = await self.client.wait(self.standing, hold_s, moved)
        self._told.update(moved)
        # An exchange may have gone on meanwhile and know of it already.
        return found.standing != self.standing

    async def _exchange(self) -> bool:
        """One question; whether another is worth it."""
        size = min(self.client.pace.size, self._parts.max_bytes)
        up, ends = await self._collect(size)
        down = [
            say.Pull(s, self._cursors.get(s, 0), g.epoch)
            for s, g in self._grants.items()
            if self._hints.get(s, 0) > self._cursors.get(s, 0)
        ]
        if not up and not down and self._has_asked:
            return False
        before = (dict(self._cursors), {s: dict(v) for s, v in self._got.items()})
        answer = await self.client.exchange(say.Exchange(up, down, size, self._people_rev))
        self._has_asked = True
        self._told.update({p.stream: p.cursor for p in down})
        await self._take_receipts(answer, ends)
        await self._take_deliveries(answer)
        self._hints, self.standing = dict(answer.hints), answer.standing
        self.notices += [n for n in answer.notices if n not in self.notices]
        if answer.hints.keys() != self._grants.keys() or answer.epoch != self._epoch():
            await self.greet()
            return True
        if answer.limits.min_wait_ms:
            await asyncio.sleep(min(answer.limits.min_wait_ms, 60_000) / 1000)
        return (self._cursors, self._got) != before and await self._is_behind()

    async def _is_behind(self) -> bool:
        if any(head > self._cursors.get(s, 0) for s, head in self._hints.items()):
            return True
        return await self.has_pending()

    async def _pending(self) -> dict[UUID, int]:
        return await read_pending(self._db, self._tenant, self._got)

    async def _collect(self, room: int) -> tuple[list[say.Push], dict[UUID, int]]:
        """What this node made and the hub lacks, and up to where in our order that goes."""
        pending = await self._pending()
        pushes: list[say.Push] = []
        ends: dict[UUID, int] = {}
        for stream, grant in self._grants.items():
            if stream not in pending or grant.mode != "rw" or self._is_stuck(stream):
                continue
            batch = await read_after(
                self._db, self._tenant, stream, pending[stream] - 1, origins=self._parts.me.origins,
                without=frozenset(), max_bytes=room,
            )  # fmt: skip
            if batch.frames:
                pushes.append(say.Push(stream, batch.frames))
                ends[stream] = batch.upto
            room -= sum(len(frame) for frame in batch.frames)
            if room <= 0 or (batch.more and grant.name == "schema"):
                break
        return pushes, ends

    async def _take_receipts(self, answer: say.Exchanged, ends: dict[UUID, int]) -> None:
        """What the hub has now; what it refused rests for a while."""
        cuts: list[tuple[UUID, int, int, int]] = []
        for receipt in answer.receipts:
            known = self._got.get(receipt.stream)
            if known is None:
                continue
            known.update({o: q for o, q in receipt.got.items() if o in known})
            cuts += [(receipt.stream, *cut) for cut in receipt.cuts]
            if receipt.problem:
                self._stuck[receipt.stream] = time.monotonic() + STUCK_S
                self._note("sync.push_refused", receipt.stream, receipt.problem)
            if receipt.parked:
                self._note("sync.push_parked", receipt.stream, receipt.parked[0].reason)
        pending = await self._pending()
        acked = {s: pending[s] - 1 if s in pending else end for s, end in ends.items()}
        await note_acked(self._db, self._tenant, self._parts.hub.origin, acked, cuts)

    async def _take_deliveries(self, answer: say.Exchanged) -> None:
        """Schema first, then who may log in, then the rest in the order it came."""
        schema = [d for d in answer.down if self._name(d.stream) == "schema"]
        for delivery in schema:
            await self._take(delivery)
        if answer.people:
            await take_people(self._db, self._tenant, answer.people)
        self._people_rev = answer.people_rev
        for delivery in answer.down:
            if delivery not in schema:
                await self._take(delivery)

    async def _take(self, delivery: say.Delivery) -> None:
        """A stream's frames, each in a transaction; the last one carries the cursor."""
        stream, hub = delivery.stream, self._parts.hub
        if stream not in self._grants:
            return
        last = len(delivery.frames) - 1
        for n, data in enumerate(delivery.frames):
            frame = await self._taker.open(data)
            if frame.stream != stream:
                raise Malformed("The hub sent a frame of another stream.", code="sync.frame")
            taken = await receive(
                self._db, await self._taker.ctx(), stream, frame.entries, peer=hub.origin,
                cursor=delivery.upto if n == last else None, from_hub=True,
            )  # fmt: skip
            if taken.gap:
                # The cursor is ahead of what is here: from the start, what is known costs little.
                self._note("sync.pull_gap", stream, "gap")
                self._cursors[stream] = 0
                await self._keep_cursor(stream)
                return
            if self._name(stream) == "schema":
                self._taker.renew()
        self._cursors[stream] = delivery.upto
        if not delivery.frames:
            await self._keep_cursor(stream)

    async def _keep_cursor(self, stream: UUID) -> None:
        reached = {stream: (self._cursors[stream], self._grants[stream].epoch)}
        await note_cursors(self._db, self._tenant, self._parts.hub.origin, reached)

    def _is_stuck(self, stream: UUID) -> bool:
        return self._stuck.get(stream, 0.0) > time.monotonic()

    def _name(self, stream: UUID) -> str:
        return self._grants[stream].name if stream in self._grants else ""

    def _epoch(self) -> int:
        return max((g.epoch for g in self._grants.values()), default=0)

    def _note(self, name: str, stream: UUID, code: str) -> None:
        logs.event(name, level="warning", tenant=self._tenant, stream=stream, code=code)
