"""One live stream: what changed, read again under the reader's rights of this moment.

The tenant's Redis stream says only which records were touched. Each is read through the read
path; what the reader may see leaves as `change`, what they could see before and no longer can
leaves as `leave`, and of everything else (a change of hidden fields alone among it) not even the
id leaves. When the thread is lost (Redis was emptied, the reader was away too long, one change
touched too many records) a `reset` frame tells the client to read its list again. The session is
proved with every frame and heartbeat.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
from redis.exceptions import RedisError

from appliance.base import limits, logs
from appliance.base.errors import ApplianceError, Refused, Unauthenticated
from appliance.http.ask import Ask
from appliance.http.sight import judge
from appliance.http.streams import HEARTBEAT_S, Reader, frame
from appliance.kernel.query import And, Query, Test
from appliance.read import fetch, run

# One blocking read of Redis; short, so that a stopping node is not held up by it.
_BLOCK_MS = 1_000
_BATCH = 100
_RETRY_S = 1.0
_ENTRY_ID = re.compile(r"\d{1,20}-\d{1,20}\Z")
_START = "0-0"


class Feed:
    """The frames of one connection."""

    def __init__(self, ask: Ask, query: Query, after: str | None) -> None:
        self._ask = ask
        self._node = ask.node
        self._query = query
        self._key = f"events:{ask.ctx.tenant}"
        self._reader = Reader(ask)
        self._place = after if after and _ENTRY_ID.match(after) else None
        self._is_sure = self._was_away = False

    async def frames(self) -> AsyncIterator[bytes]:
        """Frames until the session ends, the node stops or the client leaves."""
        yield b"retry: 2000\n\n"
        loop = asyncio.get_running_loop()
        proved = loop.time()
        while not self._node.closing.is_set():
            try:
                if not self._is_sure and await self._find_place():
                    yield self._frame("reset", {"reason": "place_unknown"})
                for ident, payload in await self._next():
                    self._place = ident
                    async for told in self._tell(payload):
                        proved = loop.time()
                        yield told
                if loop.time() - proved >= HEARTBEAT_S:
                    await self._reader.prove()
                    proved = loop.time()
                    yield b": still here\n\n"
            except (Unauthenticated, Refused):
                yield self._frame("end", {"reason": "session_ended"})
                return
            except ApplianceError as error:
                logs.event("live.frame_failed", level="warning", code=error.code)
                yield self._frame("reset", {"reason": "unavailable"})
                await asyncio.sleep(_RETRY_S)
        yield self._frame("end", {"reason": "node_stopping"})

    async def _find_place(self) -> bool:
        """Make sure where to go on; true when something may have been missed."""
        lost = self._was_away
        try:
            if self._place is not None:
                if await self._node.redis.xrange(self._key, self._place, self._place, count=1):
                    self._is_sure = True
                    return False
                lost = True
            last: Any = await self._node.redis.xrevrange(self._key, count=1)
        except (RedisError, OSError):
            self._was_away = True
            return False
        self._place = last[0][0].decode() if last else _START
        self._is_sure, self._was_away = True, False
        return lost

    async def _next(self) -> list[tuple[str, bytes]]:
        """Entries after the place; none when it stayed quiet. A Redis that went away may have
        come back empty, so after that the place is looked for anew.
        """
        place = self._place
        if not self._is_sure or place is None:
            await asyncio.sleep(_RETRY_S)
            return []
        try:
            found: Any = await self._node.redis.xread(
                {self._key: place}, count=_BATCH, block=_BLOCK_MS
            )
        except (RedisError, OSError):
            self._is_sure = False
            return []
        if not found:
            return []
        pairs = found[0][1] if isinstance(found, list) else next(iter(found.values()))[0]
        return [(ident.decode(), fields.get(b"data", b"{}")) for ident, fields in pairs]

    async def _tell(self, payload: bytes) -> AsyncIterator[bytes]:
        """The frames of one entry."""
        change = msgspec.json.decode(payload)
        kind = self._query.source
        if kind not in change.get("kinds", ()):
            return
        if change.get("more"):
            yield self._frame("reset", {"reason": "many_changes", "kind": kind})
            return
        # One frame of a peer's entries may bring several change sets, each of its author's making.
        sets = {UUID(s) for s in (change["change_set"], *change.get("change_sets", ()))}
        ids = [UUID(c["id"]) for c in change["changes"] if c["kind"] == kind]
        for start in range(0, len(ids), limits.IN_LIST_MAX):
            part = ids[start : start + limits.IN_LIST_MAX]
            await self._reader.prove()
            shown = await self._visible(part)
            told = await judge(self._ask, kind, part, shown, sets)
            for ident in part:
                if ident in shown and ident not in told.untold:
                    yield self._frame(
                        "change", {"kind": kind, "id": ident, "record": msgspec.Raw(shown[ident])}
                    )
            for ident in told.left:
                yield self._frame("leave", {"kind": kind, "id": ident})

    async def _visible(self, ids: list[UUID]) -> dict[UUID, bytes]:
        """The records among `ids` that the reader may read and the query selects."""
        ask, query = self._ask, self._query
        if not ask.ctx.profile.sees(ask.ctx.schema.kind(query.source)):
            return {}
        if query.where is not None or query.search is not None:
            wanted = And(
                (
                    *((query.where,) if query.where else ()),
                    Test("id", "in", [str(i) for i in ids], "/id"),
                )
            )
            narrow = msgspec.structs.replace(
                query, where=wanted, select=(), sort=(), limit=len(ids), after=None
            )
            page = await run(self._node.db, ask.ctx, narrow, self._node.cursors)
            return {UUID(msgspec.json.decode(r, type=_Ident).id): r for r in page.rows}
        return await fetch(self._node.db, ask.ctx, query.source, ids)

    def _frame(self, event: str, data: dict[str, Any]) -> bytes:
        return frame(event, data, self._place)


class _Ident(msgspec.Struct):
    id: str
