"""Frames of a peer on their way into the log: opened, proved, and taken under the schema of now."""

from __future__ import annotations

from uuid import UUID

from appliance.base.clock import now
from appliance.base.errors import Unavailable
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx, Door
from appliance.kernel.kind import Schema
from appliance.kernel.profile import Profile
from appliance.meta import load_schema
from appliance.sync.batch import Frame
from appliance.sync.frames import decode_frame

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

    async def open(self, data: bytes) -> Frame:
        """A frame with its hashes proved. Raises Malformed."""
        await self._prepare()
        return decode_frame(data, self._log_key)

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


async def _state(db: Database, tenant: UUID) -> tuple[int, bytes]:
    (rows,) = await db.read(tenant, (_STATE, (tenant,)))
    row = rows.first()
    if row is None:
        raise Unavailable("The tenant is not on this database.", dependency="placement")
    return int(row[0] or 0), bytes.fromhex((row[1] or b"\\x")[2:].decode())
