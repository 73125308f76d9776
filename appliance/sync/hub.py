"""The hub's side of a conversation: hello, exchange, wait. It answers, it never calls a site.

Promises: a question may come twice and is answered from what the databases hold; a frame is
committed before its receipt is written; what a node may not have is neither sent to it nor taken
from it; one stream that fails does not hold up the others; an exchange holds no lock while bytes
are on their way, and at most what one question and one answer may weigh.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.clock import now
from appliance.base.errors import ApplianceError, Malformed, Unavailable
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.kernel.change import Logged
from appliance.kernel.context import Ctx, Door
from appliance.kernel.profile import Profile
from appliance.meta import load_schema
from appliance.sync import messages as say
from appliance.sync.frames import decode_frame
from appliance.sync.heads import Heads
from appliance.sync.lanes import Lanes
from appliance.sync.nodes import PeerNode
from appliance.sync.outgoing import read_after
from appliance.sync.people import people_rev, read_people
from appliance.sync.positions import note_cursors, read_heads, read_vectors
from appliance.sync.scope import StreamGrant, refuses, streams_for
from appliance.write.receive import Forked, receive

SCHEMA = "schema"
Grants = dict[UUID, StreamGrant]


class Hub:
    """One per process. `max_bytes` bounds a question and an answer, in bytes on the wire."""

    def __init__(self, db: Database, *, max_bytes: int = say.ASK_BYTES_MAX) -> None:
        self._db = db
        self._max_bytes = max_bytes
        self._lanes = Lanes()

    async def greet(
        self, site: PeerNode, tenant: UUID, asked: say.Hello, *, session: bytes, version: str
    ) -> say.Welcome:
        """Begin a conversation: what the site may have and where both stand. Raises Clash."""
        protocol = say.agree(asked.protocols)
        grants = await streams_for(self._db, site.id, tenant)
        heads = await read_heads(self._db, tenant)
        vectors = await read_vectors(self._db, tenant, sorted(site.origins))
        people = await people_rev(self._db, tenant)
        schema = await load_schema(self._db, tenant)
        route = self._db.routes.of(tenant, read=True)
        notices = [
            *_about_clock(asked.clock_ms),
            *_about_cursors(grants, heads, asked.cursors.items()),
            *_about_origin(vectors, asked),
        ]
        return say.Welcome(
            protocol, session, version, _now_ms(),
            say.Tenant(route.slug, route.name, schema.rev),
            [
                say.Granted(g.stream, g.name, g.mode, g.epoch, heads[g.stream].head,
                            heads[g.stream].floor, vectors.get(g.stream, {}))
                for g in grants.values() if g.stream in heads
            ],
            people, standing_of(grants, heads, people), self._limits(1), notices,
        )  # fmt: skip

    async def exchange(
        self, site: PeerNode, tenant: UUID, origin: int, asked: say.Exchange
    ) -> say.Exchanged:
        """Take what the site made, give what it lacks. Raises Unavailable (come back later)."""
        with self._lanes.enter(tenant) as busy:
            db = self._db
            grants = await streams_for(db, site.id, tenant)
            taking = _Taking(db, site, tenant, origin, grants)
            receipts = [await taking.take(push) for push in asked.up]
            giving = _Giving(db, site, tenant, grants, await read_heads(db, tenant))
            down = await giving.give(asked, min(asked.max_bytes, self._limits(busy).max_bytes))
            heads = await read_heads(db, tenant)
            down = giving.keep_behind_schema(down, heads)
            people, slice_ = await read_people(db, tenant, site.id, asked.people_rev)
            reached = {p.stream: (p.cursor, p.epoch) for p in asked.down if p.stream in grants}
            await note_cursors(db, tenant, site.origin, reached)
            return say.Exchanged(
                receipts, down, {s: heads[s].head for s in grants if s in heads},
                standing_of(grants, heads, people), _now_ms(), people, slice_,
                self._limits(busy), giving.notices,
            )  # fmt: skip

    def _limits(self, busy: int) -> say.Limits:
        """What one question may weigh: less for each when many are at work."""
        return say.Limits(max(say.ASK_BYTES_MIN, self._max_bytes // max(1, busy)))


class _Taking:
    """What one node sends up."""

    def __init__(
        self, db: Database, site: PeerNode, tenant: UUID, origin: int, grants: Grants
    ) -> None:
        self._db, self._site, self._tenant = db, site, tenant
        self._origin, self._grants = origin, grants
        self._origins = site.origins

    async def take(self, push: say.Push) -> say.Receipt:
        """One stream's frames, each whole or not at all; what stops it is said in the receipt."""
        grant = self._grants.get(push.stream)
        if grant is None:
            return say.Receipt(push.stream, {}, problem=say.NOT_GRANTED)
        if grant.mode != "rw":
            return say.Receipt(push.stream, {}, problem=say.READ_ONLY)
        taken = say.Receipt(push.stream, {})
        for frame in push.frames:
            taken = await self._frame(grant, frame, taken)
            if taken.problem or taken.gap:
                break
        if taken.got:
            return taken
        vectors = await read_vectors(self._db, self._tenant, sorted(self._origins))
        return msgspec.structs.replace(taken, got=vectors.get(push.stream, {}))

    async def _frame(self, grant: StreamGrant, data: bytes, sofar: say.Receipt) -> say.Receipt:
        replace = msgspec.structs.replace
        try:
            frame = decode_frame(data)
        except Malformed as bad:
            return replace(sofar, got={}, problem=say.BROKEN_FRAME, detail=bad.detail)
        entries = frame.entries
        if frame.stream != grant.stream or any(e.entry.stream != grant.stream for e in entries):
            return replace(sofar, got={}, problem=say.BROKEN_FRAME, detail="another stream's frame")
        if any(e.entry.origin not in self._origins for e in entries):
            return replace(sofar, got={}, problem=say.FOREIGN_ORIGIN)
        try:
            taken = await receive(
                self._db, await self._ctx(), grant.stream, _judge(grant, entries),
                peer=self._site.origin, from_hub=False,
            )  # fmt: skip
        except Unavailable:
            # Nothing of what follows would fare better.
            raise
        except Forked as forked:
            self._note(say.FORKED, "error")
            return replace(sofar, got={}, problem=say.FORKED, detail=forked.detail)
        except ApplianceError as refused:
            self._note(refused.code, "warning")
            return replace(sofar, got={}, problem=refused.code, detail=refused.detail)
        own = self._origins
        return say.Receipt(
            grant.stream, {o: q for o, q in taken.got.items() if o in own},
            [*sofar.cuts, *((o, q, e) for (o, q), e in taken.cuts.items() if o in own)],
            [*sofar.parked, *(say.Parked(p.origin, p.oseq, p.reason) for p in taken.parked)],
            taken.gap,
        )  # fmt: skip

    async def _ctx(self) -> Ctx:
        """Whoever acts for a peer: what its people might do was checked where they did it."""
        return await peer_context(self._db, self._tenant, self._origin, self._site.id)

    def _note(self, code: str, level: str) -> None:
        logs.event(
            "sync.frame_refused", level=level, code=code, tenant=self._tenant, node=self._site.id
        )


class _Giving:
    """What one node is sent down."""

    def __init__(
        self, db: Database, site: PeerNode, tenant: UUID, grants: Grants, heads: Heads
    ) -> None:
        self._db, self._site, self._tenant = db, site, tenant
        self._grants, self._heads = grants, heads
        self.notices: list[say.Notice] = []

    async def give(self, asked: say.Exchange, room: int) -> list[say.Delivery]:
        """Frames after each cursor, in the order asked for, as far as `room` bytes go."""
        found: list[say.Delivery] = []
        for pull in asked.down:
            grant, head = self._grants.get(pull.stream), self._heads.get(pull.stream)
            if grant is None or head is None or head.head <= pull.cursor or room <= 0:
                continue
            if pull.cursor < head.floor:
                self.notices.append(_behind(head.floor, pull.stream))
                continue
            batch = await read_after(
                self._db, self._tenant, pull.stream, pull.cursor, origins=None,
                without=frozenset() if pull.own else self._site.origins,
                mask=grant.mask, max_bytes=room,
            )  # fmt: skip
            room -= sum(len(frame) for frame in batch.frames)
            found.append(say.Delivery(pull.stream, batch.frames, batch.upto, batch.more))
            if batch.more and grant.name == SCHEMA:
                # Entries are read with the schema they were written under, so it goes first.
                break
        return found

    def keep_behind_schema(self, found: list[say.Delivery], heads: Heads) -> list[say.Delivery]:
        """Hold back what may have been written under a schema newer than the one that is sent."""
        schema = next((g.stream for g in self._grants.values() if g.name == SCHEMA), None)
        if schema is None or schema not in heads:
            return found
        if heads[schema].head == self._heads[schema].head:
            return found
        return [delivery for delivery in found if delivery.stream == schema]


async def peer_context(db: Database, tenant: UUID, origin: int, peer: UUID) -> Ctx:
    """The context in which a peer's entries are taken, under the schema as it is now."""
    return Ctx(
        tenant=tenant, origin=origin, actor=peer, profile=Profile(id="", key="sync"),
        schema=await load_schema(db, tenant), door=Door.SYNC, request_id=uuid7(), at=now(),
    )  # fmt: skip


def standing_of(grants: Grants, heads: Heads, people: int) -> bytes:
    """See messages.stand_of."""
    epoch = max((g.epoch for g in grants.values()), default=0)
    streams = [(s, g.epoch, heads[s].head) for s, g in grants.items() if s in heads]
    return say.stand_of(epoch, people, streams)


def _judge(grant: StreamGrant, entries: Sequence[Logged]) -> list[Logged]:
    """Mark what the node may not write: its transaction is kept for a person, not applied."""
    refused: dict[tuple[int, int], str] = {}
    for logged in entries:
        why = refuses(grant.mask, logged)
        if why:
            refused.setdefault((logged.entry.origin, logged.entry.tx), why)
    if not refused:
        return list(entries)
    replace = msgspec.structs.replace
    return [
        replace(e, parked=refused.get((e.entry.origin, e.entry.tx), e.parked)) for e in entries
    ]


def _about_clock(theirs_ms: int) -> list[say.Notice]:
    off = round((theirs_ms - _now_ms()) / 1000)
    if abs(off) < say.CLOCK_OFF_S:
        return []
    detail = f"The clock of this node is off by {off} s; what it writes keeps its order all the same."
    return [say.Notice(say.CLOCK_OFF, detail, None, off)]


def _about_cursors(
    grants: Grants, heads: Heads, cursors: Iterable[tuple[UUID, int]]
) -> list[say.Notice]:
    known = dict(cursors)
    return [
        _behind(heads[stream].floor, stream)
        for stream in grants
        if stream in heads and known.get(stream, 0) < heads[stream].floor
    ]


def _about_origin(vectors: dict[UUID, dict[int, int]], asked: say.Hello) -> list[say.Notice]:
    """A node that has less of its own entries than the hub was put back from a backup."""
    return [
        say.Notice(say.FORKED, "The hub has newer entries of this node than it has itself.",
                   stream, vectors[stream][origin])
        for stream, (origin, oseq) in asked.made.items()
        if vectors.get(stream, {}).get(origin, 0) > oseq
    ]  # fmt: skip


def _behind(floor: int, stream: UUID) -> say.Notice:
    detail = "The hub's log of this stream begins later: the states of its records are needed first."
    return say.Notice(say.REBASE, detail, stream, floor)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
