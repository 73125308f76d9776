"""The description of the API: common, and with the reader's own kinds."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.response.base import ASGIResponse

from appliance.http.answers import raw
from appliance.http.ask import Ask
from appliance.http.kindview import tag_of
from appliance.http.openapi import for_tenant
from appliance.http.route import API, PUBLIC, Book, Route

_MEDIA = "application/json"


def describe(common: dict[str, Any]) -> list[Route]:
    """The routes that serve `common`, which may still grow until the first request."""
    book = Book("description")

    @book.route("GET", "/schema/openapi.json", capability=PUBLIC, answers={200: dict[str, Any]})
    async def read_openapi(ask: Ask) -> ASGIResponse:
        """What you read here."""
        del ask
        return raw(msgspec.json.encode(common), media=_MEDIA)

    @book.route(
        "GET", f"{API}/openapi.json", capability="schema.read", answers={200: dict[str, Any]}
    )
    async def read_own_openapi(ask: Ask) -> ASGIResponse:
        """The description with the kinds you see, and the fields you may read and write."""
        body = msgspec.json.encode(for_tenant(common, ask.ctx))
        return raw(body, headers={"ETag": tag_of(ask)}, media=_MEDIA)

    return book.routes
