"""The query language over HTTP: one page as JSON, or all rows as NDJSON, CSV or XLSX."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base import limits
from appliance.http.answers import raw
from appliance.http.ask import Ask
from appliance.http.export import JSON, MEDIA, choose_media, export
from appliance.http.question import QueryBody, Questions, TextBody, text_question
from appliance.http.route import API, Book
from appliance.kernel.kind import Json
from appliance.kernel.query import Query
from appliance.read import Page, run

book = Book("query")
PATH = f"{API}/query"
_questions = Questions()


class Place(msgspec.Struct, frozen=True):
    """Where a long list can be jumped to: `position` rows stand before the cursor."""

    position: int
    after: str


class QueryPage(msgspec.Struct, frozen=True):
    """A page. `total` and `ruler` are there when asked for; `total` is counted up to a cap."""

    rows: list[dict[str, Json]]
    next: str | None
    cost: int
    total: int | None = None
    ruler: tuple[Place, ...] | None = None


class QueryParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query in text form, and the page."""

    q: str
    after: str | None = None


SHARED: dict[str, Any] = {
    "capability": "query.run", "gated": True, "answers": {200: QueryPage}, "media": MEDIA,
    "headers": ("Accept",),
}  # fmt: skip


@book.route("POST", PATH, **SHARED, body=QueryBody | TextBody, body_most=limits.QUERY_BYTES_MAX)
async def run_query(ask: Ask) -> ASGIResponse:
    """Run a query. `Accept` chooses JSON, NDJSON, CSV or XLSX; all but JSON are exports."""
    return await _answer(ask, _questions.read(ask))


@book.route("GET", PATH, **SHARED, params=QueryParams)
async def run_text_query(ask: Ask) -> ASGIResponse:
    """Run a query in text form: `deal where amount >= 1000 sort -amount limit 50`."""
    given = ask.params(QueryParams)
    return await _answer(ask, text_question(given.q, given.after, "/q"))


async def _answer(ask: Ask, query: Query) -> ASGIResponse:
    media = choose_media(ask.header("accept"))
    if media != JSON:
        return await export(ask, query, media)
    page = await run(ask.node.db, ask.ctx, query, ask.node.cursors, guard=ask.gate)
    return raw(page_text(page))


def page_text(page: Page) -> bytes:
    """A page as JSON: the rows as they came, undecoded."""
    parts = [b'{"rows":[', b",".join(page.rows), b'],"next":', msgspec.json.encode(page.next)]
    parts.append(b',"cost":%d' % page.cost)
    if page.total is not None:
        parts.append(b',"total":%d' % page.total)
    if page.ruler is not None:
        parts += [b',"ruler":', msgspec.json.encode(page.ruler)]
    parts.append(b"}")
    return b"".join(parts)
