"""Live updates as server-sent events, resumable by Last-Event-ID."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base.errors import Limited
from appliance.http.answers import Stream
from appliance.http.ask import Ask
from appliance.http.feed import Feed
from appliance.http.question import read_text
from appliance.http.route import API, Book
from appliance.read import plan_query

book = Book("live")
STREAMS_MAX = 200
_MEDIA = "text/event-stream"


class LiveParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind, or a query in text form whose filter the frames pass."""

    query: str


class Count:
    """How many streams are open in this process: each holds a connection to Redis."""

    open = 0


@book.route("GET", f"{API}/live", capability="live.read", params=LiveParams, answers={200: str},
            media=(_MEDIA,), headers=("Last-Event-ID",))  # fmt: skip
async def follow_live(ask: Ask) -> ASGIResponse:
    """Frames `change`, `leave`, `reset` and `end` about records you may read."""
    query = read_text(ask.params(LiveParams).query, "/query")
    # A name that is not there for the reader is refused now, not in the first frame.
    plan_query(ask.ctx, msgspec.structs.replace(query, select=(), group=(), after=None))
    if Count.open >= STREAMS_MAX:
        raise Limited("This node has no room for another live stream.", retry_after_s=30)
    feed = Feed(ask, query, ask.header("last-event-id"))
    return Stream(_counted(ask, feed), _MEDIA, {"X-Accel-Buffering": "no"}, until_gone=True)


async def _counted(ask: Ask, feed: Feed) -> AsyncIterator[bytes]:
    gauge = ask.node.metrics.live
    Count.open += 1
    gauge.inc()
    try:
        async for frame in feed.frames():
            yield frame
    finally:
        Count.open -= 1
        gauge.dec()
