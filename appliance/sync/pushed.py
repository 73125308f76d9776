"""What a hub takes from a site: frames of its own entries, judged by what the site may write.

Promises: entries of origins that are not the node's, and of streams that it never had, are
refused; what it may not write is kept for a person, in its place in the chain; what a revoked node
still sends is kept before the log, and acknowledged, so that the node may let it go.
"""

from __future__ import annotations

from contextlib import aclosing
from uuid import UUID

import msgspec

from appliance.base import logs
from appliance.base.errors import ApplianceError, Malformed, Unavailable
from appliance.db.database import Database
from appliance.sync import messages as say
from appliance.sync.batch import Frame, Reach
from appliance.sync.chains import read_ends
from appliance.sync.giving import SCHEMA
from appliance.sync.incarnation import FORKED, issue_origin
from appliance.sync.judging import Judge
from appliance.sync.nodes import PeerNode
from appliance.sync.parked import hold
from appliance.sync.positions import read_vectors
from appliance.sync.remade import mark_known
from appliance.sync.scope import StreamGrant
from appliance.sync.taking import Taker
from appliance.write.incoming import Forked, transactions
from appliance.write.receive import receive
from appliance.write.refold import fold_early

_replace = msgspec.structs.replace


class Pushed:
    """What one site sends in one question."""

    def __init__(
        self, db: Database, site: PeerNode, tenant: UUID, taker: Taker, writable: frozenset[UUID]
    ) -> None:
        """`writable` are all streams that the site may write."""
        self._db, self._site, self._tenant, self._taker = db, site, tenant, taker
        # Set where this hub was put back from a backup and wants from the site what others made:
        # the one origin of which nobody can have more (sync/regaining).
        self.hub_origin: int | None = None
        self._writable = writable

    async def take(self, push: say.Push, grant: StreamGrant | None) -> say.Receipt:
        """One stream's frames, by whole transactions; what stops it is said in the receipt.

        A grant of mode `w` is of a stream that was the node's until now: what it made before it
        heard of that is as good as ever.
        """
        taken = say.Receipt(push.stream, {})
        is_revoked = self._site.state != "active" or self._site.scope_state != "active"
        if grant is None:
            return _replace(taken, problem=say.NOT_GRANTED)
        if "w" not in grant.mode:
            return _replace(taken, problem=say.READ_ONLY)
        opened = self._taker.open(push.frames, skip_known=not is_revoked)
        try:
            async with aclosing(opened) as frames:
                async for reach, frame in frames:
                    problem, detail = self._refuse(push.stream, reach)
                    if problem:
                        taken = _replace(taken, got={}, problem=problem, detail=detail)
                    elif frame is not None and is_revoked:
                        taken = await self._hold(frame, taken)
                    elif frame is not None:
                        taken = await self._take(frame, grant, taken)
                    if taken.problem or taken.gap:
                        break
                    if grant.name == SCHEMA and not is_revoked:
                        self._taker.renew()
                        await fold_early(self._db, await self._taker.ctx())
        except Malformed as bad:
            self._note(say.BROKEN_FRAME)
            taken = _replace(taken, got={}, problem=say.BROKEN_FRAME, detail=bad.detail)
        return taken if taken.got else _replace(taken, got=await self._got(push.stream))

    def _refuse(self, stream: UUID, reach: Reach) -> tuple[str, str]:
        """Why a frame may not be taken, and what is wrong with it; empty when it may."""
        if reach.stream != stream:
            self._note(say.BROKEN_FRAME)
            return say.BROKEN_FRAME, "of another stream"
        if not all(map(self._may_send, reach.last)):
            self._note(say.FOREIGN_ORIGIN)
            return say.FOREIGN_ORIGIN, ""
        return "", ""

    def _may_send(self, origin: int) -> bool:
        if origin in self._site.origins:
            return True
        return self.hub_origin is not None and origin != self.hub_origin

    async def _take(self, frame: Frame, grant: StreamGrant, sofar: say.Receipt) -> say.Receipt:
        ctx = await self._taker.ctx()
        judge = Judge(
            self._tenant, ctx.schema.kinds, grant.mask, self._writable, self._site.id,
            frozenset(self._site.origins) if self.hub_origin is None else frozenset(),
        )  # fmt: skip
        # Also what others made, which a site gives back to a hub that has lost it: its word is the
        # only one for that.
        entries = await judge.judge(self._db, frame.entries)
        try:
            self._check_proved(frame)
            entries = await mark_known(self._db, self._tenant, entries)
            taken = await receive(
                self._db, ctx, frame.stream, entries, peer=self._site.origin, from_hub=False,
                proved=frame.before,
            )  # fmt: skip
        except Unavailable:
            # Nothing of what follows would fare better.
            raise
        except Forked as forked:
            self._note(say.FORKED, "error")
            if forked.origin == self._site.origin:
                # It was put back or copied, and has gone on beyond what is here.
                await issue_origin(
                    self._db, self._site.id, self._site.origin, tenant=self._tenant, reason=FORKED
                )
            return _replace(sofar, got={}, problem=say.FORKED, detail=forked.detail)
        except ApplianceError as refused:
            self._note(refused.code)
            return _replace(sofar, got={}, problem=refused.code, detail=refused.detail)
        may = self._may_send
        return say.Receipt(
            frame.stream, {o: q for o, q in taken.got.items() if may(o)},
            [*sofar.cuts, *((o, q, e) for (o, q), e in taken.cuts.items() if may(o))],
            [*sofar.parked, *(say.Parked(p.origin, p.oseq, p.reason) for p in taken.parked)],
            taken.gap,
        )  # fmt: skip

    async def _hold(self, frame: Frame, sofar: say.Receipt) -> say.Receipt:
        """Keep what a revoked node made; it is not in the log, and its receipt says that it came."""
        ctx, got = await self._taker.ctx(), dict(sofar.got)
        async with self._db.transaction(self._tenant) as tx:
            for part in transactions(frame.entries):
                await hold(tx, ctx, frame.stream, self._site.origin, part)
        for logged in frame.entries:
            got[logged.entry.origin] = logged.entry.oseq
        self._note("late_write_after_revoke")
        return _replace(sofar, got=got)

    def _check_proved(self, frame: Frame) -> None:
        """What others made is taken from nobody's word alone. Raises Forked."""
        for logged in frame.entries:
            if not logged.hash and logged.entry.origin not in self._site.origins:
                raise Forked(logged.entry.origin, logged.entry.oseq)

    async def _got(self, stream: UUID) -> dict[int, int]:
        if self.hub_origin is not None:
            return (await read_ends(self._db, self._tenant)).get(stream, {})
        vectors = await read_vectors(self._db, self._tenant, sorted(self._site.origins))
        return vectors.get(stream, {})

    def _note(self, code: str, level: str = "warning") -> None:
        logs.event(
            "sync.frame_refused", level=level, code=code, tenant=self._tenant, node=self._site.id
        )
