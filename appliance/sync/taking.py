"""Frames of a peer on their way into the log: opened, proved, and taken under the schema of now.

A frame of which everything is here costs little more than a look at its head. While one is being
written the next is made ready in a thread, because most of the time of each is another's: this
process's for one, the database's for the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from uuid import UUID

from appliance.base.clock import now
from appliance.base.errors import Unavailable
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.values import bytea_of
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Schema
from appliance.kernel.profile import Profile
from appliance.meta import load_schema
from appliance.sync.batch import Frame, Reach, reach_of
from appliance.sync.frames import open_frame, read_frame
from appliance.write.incoming import Tip
from appliance.write.receive import read_tips

_STATE = Statement("SELECT schema_rev, log_key FROM tenant_state WHERE tenant_id = $1")


class Taker:
    """What is needed to take a peer's entries for one tenant; `renew` after a change of schema."""

    def __init__(self, db: Database, tenant: UUID, *, origin: int, peer: UUID) -> None:
        """`origin` is this node's own, `peer` the id of the node that sends."""
        self._db, self._tenant, self._origin, self._peer = db, tenant, origin, peer
        self._schema: Schema | None = None
        self._log_key = b""

    @staticmethod
    async def schema_rev(db: Database, tenant: UUID) -> int:
        """The revision of the schema as it is now. Raises Unavailable."""
        return (await _state(db, tenant))[0]

    def renew(self) -> None:
        """Look at the schema again before the next frame."""
        self._schema = None

    async def open(
        self, frames: Sequence[bytes], *, skip_known: bool = True
    ) -> AsyncGenerator[tuple[Reach, Frame | None], None]:
        """Frames with their hashes proved, in their order; None for one that is here already.

        Raises Malformed. Close it when not all are taken.
        """
        await self._prepare()
        coming: asyncio.Task[tuple[Reach, Frame | None]] | None = None
        try:
            for n in range(len(frames)):
                found = await (coming or self._open(frames[n], skip_known=skip_known))
                coming = None
                if n + 1 < len(frames):
                    coming = asyncio.create_task(self._open(frames[n + 1], skip_known=skip_known))
                yield found
        finally:
            if coming is not None:
                await asyncio.gather(coming, return_exceptions=True)

    async def _open(self, data: bytes, *, skip_known: bool) -> tuple[Reach, Frame | None]:
        batch = open_frame(data)
        reach = reach_of(batch)
        if skip_known and _has(await read_tips(self._db, self._tenant, reach.stream), reach):
            return reach, None
        return reach, await asyncio.to_thread(read_frame, batch, self._log_key)

    async def ctx(self) -> Ctx:
        """Whoever acts for a peer: what its people might do was checked where they did it."""
        return Ctx(
            tenant=self._tenant, origin=self._origin, actor=self._peer,
            profile=Profile(id="", key="sync"), schema=await self._prepare(), door=Door.SYNC,
            request_id=uuid7(), at=now(),
        )  # fmt: skip

    async def _prepare(self) -> Schema:
        if self._schema is None:
            rev, self._log_key = await _state(self._db, self._tenant)
            self._schema = await load_schema(self._db, self._tenant, rev)
        return self._schema


def _has(tips: Mapping[int, Tip], reach: Reach) -> bool:
    """Whether all of a frame is here, and nothing in it says otherwise."""
    for origin, oseq in reach.last.items():
        tip = tips.get(origin, Tip())
        if oseq > tip.oseq or (
            oseq == tip.oseq and reach.after.get(origin) not in (None, tip.hash)
        ):
            return False
    return True


async def _state(db: Database, tenant: UUID) -> tuple[int, bytes]:
    (rows,) = await db.read(tenant, (_STATE, (tenant,)))
    row = rows.first()
    if row is None:
        raise Unavailable("The tenant is not on this database.", dependency="placement")
    return int(row[0] or 0), bytea_of(row[1])
