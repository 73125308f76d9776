"""Live updates as server-sent events, resumable by Last-Event-ID."""

from __future__ import annotations

import msgspec
from litestar.response.base import ASGIResponse

from appliance.http.ask import Ask
from appliance.http.feed import Feed
from appliance.http.question import read_text
from appliance.http.route import API, Book
from appliance.http.streams import EVENTS, open_stream
from appliance.read import plan_query

book = Book("live")


class LiveParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind, or a query in text form whose filter the frames pass."""

    query: str


@book.route("GET", f"{API}/live", capability="live.read", params=LiveParams, answers={200: str},
            media=(EVENTS,), headers=("Last-Event-ID",))  # fmt: skip
async def follow_live(ask: Ask) -> ASGIResponse:
    """Frames `change`, `leave`, `reset` and `end` about records you may read."""
    query = read_text(ask.params(LiveParams).query, "/query")
    # A name that is not there for the reader is refused now, not in the first frame.
    plan_query(ask.ctx, msgspec.structs.replace(query, select=(), group=(), after=None))
    return open_stream(ask, Feed(ask, query, ask.header("last-event-id")).frames())
