"""A site's side of one tenant's conversation: hello, then exchange while there is something, wait.

Promises: nothing is known that the database does not hold, so a kill anywhere is a repetition;
what the hub has is what its receipts say, never what was sent; a stream that the hub refuses stays
where it is and holds up no other; after a hello in which one of the two was found to have been put
back from a backup, the conversation begins anew under what was agreed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from uuid import UUID

import httpx
import msgspec

from appliance.base import logs
from appliance.base.errors import Clash
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.sync import messages as say
from appliance.sync import people
from appliance.sync.arriving import Arrivals
from appliance.sync.blobs import doubt_hub
from appliance.sync.bootstrap import STATES_AFTER, Bootstrap, wanted
from appliance.sync.checking import Checking
from appliance.sync.client import HubClient
from appliance.sync.hello import Begun, make_hello, say_hello
from appliance.sync.incarnation import (
    note_hub_epoch,
    read_own_tips,
    take_origin,
)
from appliance.sync.keys import NodeKey
from appliance.sync.mending import mend, park_own, read_held
from appliance.sync.nodes import PeerNode
from appliance.sync.outgoing import read_after
from appliance.sync.positions import (
    note_acked,
    read_heads,
    read_pending,
    read_positions,
)
from appliance.sync.taking import Taker
from appliance.sync.withdrawal import Told, take_told
from appliance.write.incoming import Forked
from appliance.write.refold import fold_early, recount

# A stream the hub refused is offered again after this long.
STUCK_S = 60.0
SCHEMA = "schema"
_FIRST = {SCHEMA: 0, "shared": 1}
_PEOPLE_REV = Statement("SELECT people_rev FROM hold WHERE tenant_id = $1")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a conversation needs. `transport` is for a hub in the same process."""

    db: Database
    me: PeerNode
    hub: PeerNode
    key: NodeKey
    max_bytes: int = say.ASK_BYTES_MAX
    states_after: int = STATES_AFTER
    transport: httpx.AsyncBaseTransport | None = None


class Talk:
    """One conversation, from hello to close. Any error ends it; what it knew is read again."""

    def __init__(self, parts: Parts, tenant: UUID, client: HubClient | None = None) -> None:
        self._parts, self._db, self._tenant, self.hub = parts, parts.db, tenant, parts.hub
        self.client = client or HubClient(
            parts.hub, tenant, me=parts.me.id, key=parts.key, transport=parts.transport
        )
        self._taker = Taker(parts.db, tenant, origin=parts.me.origin, peer=parts.hub.id)
        self._arrivals = Arrivals(parts.db, tenant, parts.hub, self._taker)
        self.states = Bootstrap(
            parts.db, tenant, self.client, self._taker, hub_origin=parts.hub.origin,
            at_any_length=parts.states_after == 0,
        )  # fmt: skip
        self.checking = Checking(parts.db, tenant, self.client, self.states)
        self._joining: set[UUID] = set()
        # Of which the log is as good as the states.
        self._by_log: set[UUID] = set()
        self.standing = b""
        self.notices: list[say.Notice] = []
        self.must_purge = False
        # Exchanges after which one of the two had more than before.
        self.moved = 0
        self._grants: dict[UUID, say.Granted] = {}
        self._hints: dict[UUID, int] = {}
        self._named: dict[UUID, int] = {}
        self._got: dict[UUID, dict[int, int]] = {}
        self._stuck: dict[UUID, float] = {}
        self._lost: set[UUID] = set()
        self._has_asked = self._must_greet = False
        # Whether chains may have parted, and whether that was looked at in this conversation.
        self._is_doubtful = self._has_mended = False
        self._is_offering = False
        self._most = say.ASK_BYTES_MAX

    async def close(self) -> None:
        """Let the connection go."""
        await self.client.close()

    async def greet(self, proof: bytes = b"") -> say.Welcome:
        """Hear what this node may have and where both stand. Raises Begun."""
        db, tenant, me, hub = self._db, self._tenant, self._parts.me, self._parts.hub
        own = sorted(me.origins)
        positions = await read_positions(db, tenant, hub.origin)
        self._arrivals.cursors = {stream: p.cursor for stream, p in positions.items()}
        made = await read_own_tips(db, tenant, own)
        kept = self._arrivals.kept
        await kept.load()
        hello = await make_hello(kept, me, self._arrivals.cursors, proof)
        welcome = await say_hello(db, self.client, hub, hello, self._parts.transport)
        if shown := kept.find_proof(welcome):
            # The hub has less than it signed for.
            logs.event("sync.loss_shown", level="error", tenant=tenant, count=len(shown))
            hello = msgspec.structs.replace(hello, shown=shown)
            welcome = await say_hello(db, self.client, hub, hello, self._parts.transport)
        if await note_hub_epoch(db, [tenant], welcome.hub_epoch, welcome.hub_origin):
            await doubt_hub(db, tenant)
            raise Begun("The hub was put back from a backup; everything is offered to it again.")
        if await take_origin(db, welcome.origin, welcome.incarnation, welcome.former):
            raise Begun("This node was put back from a backup; it writes under a new origin now.")
        await kept.keep(welcome.attested)
        told = await self._hear(welcome)
        leaving = frozenset(s for s, _ in told.withdrawn) if told else frozenset()
        ordered = sorted(welcome.streams, key=lambda g: (_FIRST.get(g.name, 2), g.stream))
        self._grants = {g.stream: g for g in ordered}
        self._hints = {g.stream: g.head for g in ordered}
        after = self._parts.states_after
        self._joining = await wanted(db, tenant, self._grants, self._arrivals.cursors, after)
        self._joining -= self._by_log
        heads = await read_heads(db, tenant)
        # What has to go is offered too: it goes once the hub has what was made in it.
        is_over = told is not None and told.leaving
        offered = [*self._grants, *(s for s in heads if s not in self._grants
                                    and (is_over or s in leaving))]  # fmt: skip
        self._is_offering = welcome.is_lacking
        held = await read_held(db, tenant, me, welcome) if welcome.is_lacking else {}
        self._got = {
            s: {o: welcome.got.get(s, {}).get(o, 0) for o in (*own, *held.get(s, ()))}
            for s in offered
        }
        # What was made here and is not here any more (put back, or withdrawn and granted again).
        self._lost = {
            s for s in self._grants for o, q in self._got[s].items()
            if o in me.origins and q > made.get(s, {}).get(o, (0, b""))[0]
        }  # fmt: skip
        ends = {s: heads[s].head for s in offered if s in heads}
        await self._note_acked({s: end for s, end in ends.items() if end}, welcome.cuts)
        self._named, self._has_asked = dict(self._arrivals.cursors), False
        self._must_greet, self._most = False, welcome.limits.max_bytes
        self.standing, self.notices = welcome.standing, list(welcome.notices)
        if not self._has_mended:
            is_former = bool(me.former_origins) and (self._lost or await self.has_pending())
            self._is_doubtful = bool(is_former) or self._is_offering
        return welcome

    async def _mend(self) -> int:
        """See that our chains are the hub's; how many entries were made anew. Raises Begun."""
        if not self._is_doubtful:
            # A hub that found it out has given us a new origin.
            await self.greet()
        self._is_doubtful, self._has_mended = False, True
        streams = [s for s in self._got if s in self._grants]
        count = await mend(
            self._db, await self._taker.ctx(), self._parts.me.origins, streams, self.client.compare
        )
        if count:
            self._stuck.clear()
            await self.greet()
        return count

    async def _hear(self, welcome: say.Welcome) -> Told | None:
        """Hold what the hub says of this node's scope."""
        if not welcome.told:
            return None
        told = say.decode(welcome.told, Told)
        if await take_told(self._db, self._tenant, told, self._parts.me.origin):
            self._taker.renew()
        self.must_purge = bool(told.withdrawn) or told.leaving
        return told

    @property
    def lag(self) -> int:
        """How many entries of the hub are not taken yet, as it was heard last."""
        cursors = self._arrivals.cursors
        return sum(max(0, head - cursors.get(s, 0)) for s, head in self._hints.items())

    async def has_pending(self) -> bool:
        """Whether the hub lacks something that was made here and would be offered now."""
        return any(not self._is_stuck(s) for s in await self._pending())

    async def catch_up(self, *, anyway: bool = False) -> None:
        """Exchange until neither side has anything the other lacks, or nothing moves any more.

        `anyway` asks once even when nothing is known to be lacking.
        """
        if anyway:
            self._has_asked = False
        if self._is_doubtful:
            await self._mend()
        while await self._exchange():
            pass
        while self._joining:
            # What was made here is at the hub by now, so that the states know of it.
            await self._join(next(s for s in self._grants if s in self._joining))
            while await self._exchange():
                pass
        await self.states.settle(self._grants.keys())

    async def _join(self, stream: UUID) -> None:
        """Take a stream's states, and its log from there on."""
        cut = await self.states.take(stream, self._arrivals.cursors.get(stream, 0))
        if cut is None:
            self._by_log.add(stream)
        else:
            self._arrivals.cursors[stream] = cut
        self._joining.discard(stream)
        if _FIRST.get(self._name(stream)) is not None:
            # What follows is read by this schema, and may be of units that are known only now.
            self._taker.renew()
            await fold_early(self._db, await self._taker.ctx())
            await self.greet()

    def _is_later(self, stream: UUID) -> bool:
        """Whether a stream has to wait for states: its own, or those that say how to read it."""
        first = min((_FIRST.get(self._name(s), 2) for s in self._joining), default=3)
        return stream in self._joining or _FIRST.get(self._name(stream), 2) > first

    async def wait(self, hold_s: float) -> bool:
        """Wait at the hub; whether it has something that was not heard of yet."""
        moved = {s: c for s, c in self._arrivals.cursors.items() if self._named.get(s) != c}
        found = await self.client.wait(self.standing, hold_s, moved)
        self._named.update(moved)
        # An exchange may have gone on meanwhile and know of it already.
        if is_new := found.standing != self.standing:
            self._has_asked = False
            self._hints.update({s: h for s, h in found.hints.items() if s in self._grants})
        return is_new

    async def _exchange(self) -> bool:
        """One question; whether another is worth it."""
        cursors = self._arrivals.cursors
        size = min(self.client.pace.size, self._parts.max_bytes, self._most)
        up, ends = await self._collect(size)
        changes = await people.read_changes(self._db, self._tenant) or b""
        down = [
            say.Pull(s, cursors.get(s, 0), g.epoch, s in self._lost)
            for s, g in self._grants.items()
            if self._hints.get(s, 0) > cursors.get(s, 0) and not self._is_later(s)
        ]
        has_offered = self._is_offering and not up and not await self._pending()
        if not (up or down or changes or has_offered) and self._has_asked:
            return False
        before = (dict(cursors), {s: dict(v) for s, v in self._got.items()})
        answer = await self.client.exchange(
            say.Exchange(up, down, size, await self._people_rev(), changes, has_offered)
        )
        self._has_asked = True
        self._is_offering = self._is_offering and not has_offered
        self._named.update({p.stream: p.cursor for p in down})
        is_parted = await self._take_receipts(answer, ends)
        try:
            await self._take_answer(answer)
        except Forked:
            if not await self._mend():
                raise
            return True
        if is_parted and await self._mend():
            return True
        has_news = answer.hints != self._hints
        self._hints, self.standing = dict(answer.hints), answer.standing
        self._lost -= {s for s in self._lost if cursors.get(s, 0) >= self._hints.get(s, 0)}
        self.notices += [n for n in answer.notices if n not in self.notices]
        if answer.hints.keys() != self._grants.keys() or answer.epoch != self._epoch():
            await self.greet()
            return True
        if self._must_greet:
            await self.greet()
        await self._arrivals.finish(self._grants, self._hints)
        self._most = answer.limits.max_bytes
        if answer.limits.min_wait_ms:
            await asyncio.sleep(min(answer.limits.min_wait_ms, 60_000) / 1000)
        has_moved = (cursors, self._got) != before
        self.moved += has_moved
        return (has_moved or has_news) and await self._is_behind()

    async def _is_behind(self) -> bool:
        if any(head > self._arrivals.cursors.get(s, 0) for s, head in self._hints.items()):
            return True
        return await self.has_pending()

    async def _pending(self) -> dict[UUID, int]:
        return await read_pending(self._db, self._tenant, self._got)

    async def _collect(self, room: int) -> tuple[list[say.Push], dict[UUID, int]]:
        """What this node made and the hub lacks, and up to where in our order that goes."""
        pending = await self._pending()
        pushes: list[say.Push] = []
        ends: dict[UUID, int] = {}
        for stream in self._got:
            grant = self._grants.get(stream)
            if stream not in pending or self._is_stuck(stream) or (grant and grant.mode != "rw"):
                continue
            batch = await read_after(
                self._db, self._tenant, stream, pending[stream] - 1,
                origins=frozenset(self._got[stream]), max_bytes=room,
            )  # fmt: skip
            if batch.frames:
                pushes.append(say.Push(stream, batch.frames))
                ends[stream] = batch.upto
            room -= sum(len(frame) for frame in batch.frames)
            if room <= 0 or (batch.more and self._name(stream) == SCHEMA):
                break
        return pushes, ends

    async def _take_receipts(self, answer: say.Exchanged, ends: dict[UUID, int]) -> bool:
        """What the hub has now; what it refused rests for a while. Whether a chain is another there."""
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
                await park_own(self._db, await self._taker.ctx(), receipt.stream,
                               self._parts.hub.origin, receipt.parked)  # fmt: skip
        await self._note_acked(ends, cuts)
        return any(receipt.problem == say.FORKED for receipt in answer.receipts)

    async def _note_acked(
        self, ends: dict[UUID, int], cuts: list[tuple[UUID, int, int, int]] | None = None
    ) -> None:
        """Keep up to where the hub has all of ours; `ends` is how far our own order was looked at."""
        pending = await self._pending()
        acked = {s: pending[s] - 1 if s in pending else end for s, end in ends.items()}
        if cuts:
            # The hub's word on our clocks; the newest of two values may be another one now. Only
            # then the receipt counts: what is cut off here is asked for again.
            await note_acked(self._db, self._tenant, self._parts.hub.origin, {}, cuts)
            places = [(stream, origin, oseq) for stream, origin, oseq, _ in cuts]
            await recount(self._db, await self._taker.ctx(), places)
        await note_acked(self._db, self._tenant, self._parts.hub.origin, acked)

    async def _take_answer(self, answer: say.Exchanged) -> None:
        """Schema first, then who may sign in, then the rest in the order it came."""
        known = [d for d in answer.down if d.stream in self._grants]
        for delivery in known:
            if self._name(delivery.stream) == SCHEMA:
                await self._arrivals.take(delivery, is_schema=True)
                await fold_early(self._db, await self._taker.ctx())
        if answer.taken_up:
            taken = say.decode(answer.taken_up, people.TakenUp)
            await people.settle_changes(self._db, self._tenant, taken)
        if answer.people:
            await people.take_people(self._db, self._tenant, answer.people)
        for delivery in known:
            if self._name(delivery.stream) != SCHEMA:
                await self._take(delivery)

    async def _take(self, delivery: say.Delivery) -> None:
        """A stream's frames; one whose unit has only just come is held after the next hello."""
        try:
            await self._arrivals.take(delivery, is_schema=False)
        except Clash as unknown:
            if unknown.code != "sync.stream_unknown":
                raise
            self._must_greet = True

    async def _people_rev(self) -> int:
        (rows,) = await self._db.read(self._tenant, (_PEOPLE_REV, (self._tenant,)))
        return int((rows.first() or (b"0",))[0] or 0)

    def _is_stuck(self, stream: UUID) -> bool:
        return self._stuck.get(stream, 0.0) > time.monotonic()

    def _name(self, stream: UUID) -> str:
        return self._grants[stream].name if stream in self._grants else ""

    def _epoch(self) -> int:
        return max((g.epoch for g in self._grants.values()), default=0)

    def _note(self, name: str, stream: UUID, code: str) -> None:
        logs.event(name, level="warning", tenant=self._tenant, stream=stream, code=code)
