"""What every long answer needs: a place on the node, and a reader who is still there and may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from appliance.access.session import Stale
from appliance.base.errors import Limited
from appliance.base.ids import uuid7
from appliance.http.answers import Stream
from appliance.http.ask import Ask, Gate
from appliance.http.credentials import find_token
from appliance.http.visit import address_of

EVENTS = "text/event-stream"
STREAMS_MAX = 200
HEARTBEAT_S = 15.0


class Count:
    """How many streams are open in this process."""

    open = 0


def open_stream(ask: Ask, frames: AsyncIterator[bytes]) -> Stream:
    """Frames as server-sent events until the client leaves. Raises Limited."""
    if Count.open >= STREAMS_MAX:
        raise Limited("This node has no room for another live stream.", retry_after_s=30)
    return Stream(_counted(ask, frames), EVENTS, {"X-Accel-Buffering": "no"}, until_gone=True)


async def _counted(ask: Ask, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    gauge = ask.node.metrics.live
    Count.open += 1
    gauge.inc()
    try:
        async for frame in frames:
            yield frame
    finally:
        Count.open -= 1
        gauge.dec()


def frame(event: str, data: Any, ident: str | None = None) -> bytes:
    """One event."""
    place = f"id: {ident}\n".encode() if ident else b""
    return place + f"event: {event}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


class Reader:
    """Who listens: proved again while the stream is open, as they are then."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._token = find_token(ask.scope)

    async def prove(self) -> None:
        """The reader as they are now. Raises Unauthenticated when the session has ended."""
        sessions = self._ask.node.sessions
        while True:
            ctx, guard = await sessions.enter(
                self._token, uuid7(), address=address_of(self._ask.scope)
            )
            self._ask.enter(ctx, Gate(guard))
            try:
                await self._ask.verify()
            except Stale:
                sessions.forget(self._token)
                continue
            await sessions.touch(ctx, self._token, guard)
            return
