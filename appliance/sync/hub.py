"""The hub's side of a conversation: hello and exchange. It answers, it never calls a site.

Promises: a question may come twice and is answered from what the databases hold; a frame is
committed before its receipt is written; what a node may not have is neither sent to it nor taken
from it; one stream that fails does not hold up the others; an exchange holds no lock while bytes
are on their way, and at most what one question and one answer may weigh.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.settings import SyncSettings
from appliance.db.database import Database
from appliance.sync import messages as say
from appliance.sync.attesting import Signer, attest, find_loss
from appliance.sync.chains import compare, read_ends
from appliance.sync.giving import Giving
from appliance.sync.heads import Heads
from appliance.sync.health import HealthBook
from appliance.sync.incarnation import (
    hub_went_back,
    issue_origin,
    needs_new_incarnation,
    note_attested,
    read_epoch,
    read_era,
    renew_epoch,
    was_attested,
)
from appliance.sync.lanes import Lanes
from appliance.sync.nodes import PeerNode, find_self
from appliance.sync.outgoing import forget_pages
from appliance.sync.people import read_people, take_changes
from appliance.sync.positions import (
    note_cursors,
    read_cuts,
    read_heads,
    read_people_mark,
    read_vectors,
)
from appliance.sync.pushed import Pushed
from appliance.sync.regaining import is_lacking, note_offered, own_origin
from appliance.sync.scope import StreamGrant, streams_for
from appliance.sync.taking import Taker
from appliance.sync.withdrawal import SignedProof, Told, draining_for, take_proof, told_for

Grants = dict[UUID, StreamGrant]
BUSY_WAIT_MS = 100
_pack = msgspec.msgpack.Encoder(uuid_format="bytes").encode


class Hub:
    """One per process."""

    def __init__(
        self, db: Database, settings: SyncSettings, health: HealthBook, signer: Signer
    ) -> None:
        """`signer` gives the key of this node as it is now."""
        self._db, self._health, self.signer = db, health, signer
        self._max_bytes = settings.max_bytes
        self._lanes = Lanes(per_tenant=settings.tenant_exchanges_max, in_all=settings.exchanges_max)

    def enter(self, tenant: UUID) -> AbstractContextManager[int]:
        """Room for one question that costs something. Raises Unavailable (come back later)."""
        return self._lanes.enter(tenant)

    async def greet(
        self, site: PeerNode, tenant: UUID, asked: say.Hello, *, session: bytes, version: str
    ) -> say.Welcome:
        """Begin a conversation: what the site may have and where both stand. Raises Clash."""
        protocol, db = say.agree(asked.protocols), self._db
        if asked.proof:
            await take_proof(db, site.id, tenant, say.decode(asked.proof, SignedProof))
        compared, epoch, doubted = await self._compare(site, tenant, asked)
        again = [] if compared else [say.Notice(say.SAY_AGAIN)]
        site = compared or site
        grants = await streams_for(db, site.id, tenant)
        told = await told_for(db, site.id, tenant)
        heads = await read_heads(db, tenant)
        people = await read_people_mark(db, tenant)
        words = await self._attest(site, tenant, asked, grants, heads)
        route, schema = db.routes.of(tenant, read=True), await Taker.schema_rev(db, tenant)
        me = await find_self(db)
        off_s = round((asked.clock_ms - _now_ms()) / 1000)
        notices = [
            *again,
            *_about_state(site, told),
            *_about_clock(off_s),
            *_about_cursors(grants, heads, asked.cursors.items()),
            *(_unproved(doubted) if asked.shown else []),
        ]
        await self.note(site, tenant, asked.cursors, grants)
        await self._health.note(
            tenant, site.origin, protocol=protocol, clock_off_s=off_s,
            notices=" ".join(sorted({n.code for n in notices})),
        )  # fmt: skip
        got = await read_vectors(db, tenant, sorted(site.origins))
        cuts = await read_cuts(db, tenant, got, asked.heard)
        if lacks := await is_lacking(db, site, tenant):
            ends = await read_ends(db, tenant)
            got |= {s: {**ends.get(s, {}), **got.get(s, {})} for s in grants}
        return say.Welcome(
            protocol, session, version, _now_ms(), say.Tenant(route.slug, route.name, schema),
            [
                say.Granted(g.stream, g.name, g.mode, g.epoch, heads[g.stream].head,
                            heads[g.stream].floor)
                for g in grants.values() if g.stream in heads
            ],
            standing_of(grants, heads, people), epoch, me.origin if me else 1,
            site.origin, site.incarnation, list(site.former_origins), self._limits(1), notices,
            _pack(told) if told else b"", got, cuts, lacks, (await read_era(db)).number,
            list(words.values()), doubted,
        )  # fmt: skip

    async def _compare(
        self, site: PeerNode, tenant: UUID, asked: say.Hello
    ) -> tuple[PeerNode | None, UUID, list[UUID]]:
        """Which of the two was put back from a backup: a new origin, or a new epoch, follows. None
        for a site that has to say so again inside the session; the streams of which it has yet to
        prove that they are not as they were.
        """
        db, epoch = self._db, await read_epoch(self._db)
        if site.state != "active":
            return site, epoch, []
        epoch, doubted = await self._look_back(site, tenant, asked, epoch)
        reason = await needs_new_incarnation(db, tenant, site, asked.made)
        if reason is None:
            return site, epoch, doubted
        if not site.session:
            # What opens a session may be an old opening that somebody kept.
            return None, epoch, doubted
        found = await issue_origin(db, site.id, site.origin, tenant=tenant, reason=reason)
        return msgspec.structs.replace(
            site, origin=found.origin, former_origins=found.former_origins,
            incarnation=found.incarnation,
        ), epoch, doubted  # fmt: skip

    async def _look_back(
        self, site: PeerNode, tenant: UUID, asked: say.Hello, epoch: UUID
    ) -> tuple[UUID, list[UUID]]:
        """Whether this hub was put back: its own word proves it, shown by whoever was given it."""
        db = self._db
        if loss := await find_loss(db, self.signer, tenant, asked.shown):
            after = (loss.number, loss.issued)
            epoch = await renew_epoch(db, epoch, "a site has shown what is lost", after=after)
            forget_pages(db)
            return epoch, []
        if asked.hub_epoch != epoch:
            return epoch, []
        doubted = await hub_went_back(db, tenant, asked.taken)
        if doubted and asked.unattested is None and not await was_attested(db, site.id):
            # A site of a program that cannot prove it.
            epoch = await renew_epoch(db, epoch, "a site has newer entries", is_claimed=True)
            forget_pages(db)
            return epoch, []
        if doubted:
            logs.event("sync.loss_claimed", level="error", tenant=tenant, node=site.id,
                       count=len(doubted))  # fmt: skip
        return epoch, doubted

    async def _attest(
        self, site: PeerNode, tenant: UUID, asked: say.Hello, grants: Grants, heads: Heads
    ) -> dict[UUID, bytes]:
        """Words on the streams of which the site has none."""
        if asked.unattested is None or site.state != "active":
            return {}
        await note_attested(self._db, site.id)
        upto = {s: heads[s].head for s in asked.unattested if s in grants and s in heads}
        return await attest(self._db, self.signer, tenant, upto)

    async def compare(self, site: PeerNode, tenant: UUID, asked: say.Compare) -> say.Compared:
        """How far the site's chains are ours too."""
        grants = await streams_for(self._db, site.id, tenant)
        leaving = await draining_for(self._db, site.id, tenant)
        named = [entry for entry in asked.entries if entry[0] in grants or entry[0] in leaving]
        return say.Compared(await compare(self._db, tenant, named))

    async def exchange(
        self, site: PeerNode, tenant: UUID, origin: int, asked: say.Exchange
    ) -> say.Exchanged:
        """Take what the site made, give what it lacks. Raises Unavailable (come back later)."""
        with self._lanes.enter(tenant) as busy:
            db = self._db
            grants = await streams_for(db, site.id, tenant)
            leaving = await draining_for(db, site.id, tenant)
            taker = Taker(db, tenant, origin=origin, peer=site.id)
            taking = Pushed(db, site, tenant, taker, frozenset({*grants, *leaving}))
            if await is_lacking(db, site, tenant):
                taking.hub_origin = await own_origin(db)
                if asked.has_offered:
                    await note_offered(db, site, tenant)
            receipts = [
                await taking.take(push, grants.get(push.stream) or leaving.get(push.stream))
                for push in asked.up
            ]
            giving = Giving(db, site, tenant, grants, await read_heads(db, tenant), self.signer)
            down = await giving.give(asked, min(asked.max_bytes, self._limits(busy).max_bytes))
            heads = await read_heads(db, tenant)
            down = giving.keep_behind_schema(down, heads)
            taken_up = b""
            if asked.changes:
                taken_up = _pack(await take_changes(db, tenant, site.id, asked.changes))
            slice_ = await read_people(db, tenant, site.id, asked.people_rev)
            people = await read_people_mark(db, tenant)
            await self.note(site, tenant, {p.stream: p.cursor for p in asked.down}, grants)
            return say.Exchanged(
                receipts, down, {s: heads[s].head for s in grants if s in heads},
                standing_of(grants, heads, people), _now_ms(), slice_ or b"", taken_up,
                self._limits(busy), giving.notices, epoch_of(grants),
            )  # fmt: skip

    async def note(
        self, site: PeerNode, tenant: UUID, cursors: dict[UUID, int], grants: Grants | None = None
    ) -> None:
        """Keep how far the site says it is, and that it was heard."""
        await self._health.note(tenant, site.origin)
        if cursors and grants is None:
            grants = await streams_for(self._db, site.id, tenant)
        known = grants or {}
        reached = {s: (c, known[s].epoch) for s, c in cursors.items() if s in known}
        await note_cursors(self._db, tenant, site.origin, reached)

    async def count(self, site: PeerNode, tenant: UUID, *, sent: int, received: int) -> None:
        """Note the bytes of a question and its answer."""
        await self._health.note(tenant, site.origin, sent=sent, received=received)

    def _limits(self, busy: int) -> say.Limits:
        """What one question may weigh, and how soon: less, and later, when many are at work."""
        size = max(say.ASK_BYTES_MIN, self._max_bytes // max(1, busy))
        return say.Limits(size, BUSY_WAIT_MS * (busy - 1))


def standing_of(grants: Grants, heads: Heads, people: int) -> bytes:
    """See messages.stand_of."""
    streams = [(s, g.epoch, heads[s].head) for s, g in grants.items() if s in heads]
    return say.stand_of(epoch_of(grants), people, streams)


def epoch_of(grants: Grants) -> int:
    """The epoch of a scope, by what it grants; 0 when that is nothing."""
    return max((g.epoch for g in grants.values()), default=0)


def _about_state(site: PeerNode, told: Told | None) -> list[say.Notice]:
    if site.state != "active":
        return [say.Notice(say.REVOKED, "This node was revoked; what it holds has to go.")]
    if told is None or told.leaving:
        return [say.Notice(say.WITHDRAWN, "This node holds nothing of this tenant any more.")]
    return []


def _unproved(doubted: list[UUID]) -> list[say.Notice]:
    detail = "This node took entries that the hub has not, and has nothing that the hub signed."
    return [say.Notice(say.UNPROVED, detail, stream) for stream in doubted[:1]]


def _about_clock(off_s: int) -> list[say.Notice]:
    if abs(off_s) < say.CLOCK_OFF_S:
        return []
    detail = (
        f"The clock of this node is off by {off_s} s; what it writes keeps its order all the same."
    )
    return [say.Notice(say.CLOCK_OFF, detail, None, off_s)]


def _about_cursors(
    grants: Grants, heads: Heads, cursors: Iterable[tuple[UUID, int]]
) -> list[say.Notice]:
    known = dict(cursors)
    return [
        say.behind(heads[stream].floor, stream)
        for stream in grants
        if stream in heads and known.get(stream, 0) < heads[stream].floor
    ]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
