"""API keys: rights lent to programs."""

from __future__ import annotations

import msgspec
from litestar.response.base import ASGIResponse

from appliance.access import keys
from appliance.access.sessions import KEYS, SessionRow, end_session, list_sessions
from appliance.http.answers import empty, reply
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.http.route import API, Book

book = Book("keys")
PATH = f"{API}/keys"


class Keys(msgspec.Struct, frozen=True):
    """Live keys, newest first."""

    keys: list[SessionRow]


@book.route("GET", PATH, capability="keys.manage", answers={200: Keys})
async def list_keys(ask: Ask) -> ASGIResponse:
    """The API keys of the tenant."""
    return reply(Keys(await list_sessions(ask.node.db, ask.ctx.tenant, None, KEYS)))


@book.route("POST", PATH, capability="keys.manage", writes=True, body=keys.NewKey,
            answers={201: keys.MadeKey})  # fmt: skip
async def make_key(ask: Ask) -> ASGIResponse:
    """A key for a program, never wider than your own rights."""
    new = ask.read(keys.NewKey)
    check_storable(new.label, "/label")
    check_storable(new.profile, "/profile")
    return reply(await keys.make_key(ask.node.db, ask.ctx, new), 201)


@book.route("DELETE", f"{PATH}/{{id}}", capability="keys.manage", answers={204: None})
async def end_key(ask: Ask) -> ASGIResponse:
    """End a key; its next request fails."""
    await end_session(ask.node.db, ask.ctx, ask.ident(), own=False, sorts=KEYS, reason="revoked")
    return empty()
