"""Entries of other nodes that were not applied, and what becomes of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base.errors import FieldFault, Invalid
from appliance.base.roles import EVERYWHERE
from appliance.http.answers import reply
from appliance.http.ask import Ask
from appliance.http.route import API, Book
from appliance.sync.deciding import What, decide
from appliance.sync.parked import PAGE_MAX, Told, Waiting, list_parked, show_parked

book = Book("parked")
PATH = f"{API}/sync/parked"
_STATES = ("waiting", "released", "skipped")


class ParkedParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page; `before` is `next` of the page before."""

    state: str = "waiting"
    limit: int = 50
    before: UUID | None = None


class ParkedList(msgspec.Struct, frozen=True):
    """Newest first."""

    parked: list[Waiting]
    next: UUID | None


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Apply it after all."""

    reason: str = ""


class Skip(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Let it go; the reason is kept."""

    reason: str


MANAGES: dict[str, Any] = {"placed": EVERYWHERE, "capability": "sync.manage"}


@book.route("GET", PATH, **MANAGES, params=ParkedParams, answers={200: ParkedList})
async def read_parked_list(ask: Ask) -> ASGIResponse:
    """What waits for a decision, or was decided."""
    given = ask.params(ParkedParams)
    if not 0 < given.limit <= PAGE_MAX:
        raise _fail("/limit", f"Expected 1 to {PAGE_MAX}.")
    if given.state not in _STATES:
        raise _fail("/state", f"Expected {', '.join(_STATES)}.")
    found = await list_parked(
        ask.node.db, ask.ctx, state=given.state, limit=given.limit, before=given.before
    )
    return reply(ParkedList(found, found[-1].id if len(found) == given.limit else None))


@book.route("GET", f"{PATH}/{{id}}", **MANAGES, answers={200: Told})
async def read_parked(ask: Ask) -> ASGIResponse:
    """One transaction with its entries, as far as you may read their records."""
    return reply(await show_parked(ask.node.db, ask.ctx, ask.ident()))


@book.route("POST", f"{PATH}/{{id}}/release", **MANAGES, writes=True, body=Release,
            answers={200: Told}, refuses=(409,))  # fmt: skip
async def release_parked(ask: Ask) -> ASGIResponse:
    """Apply it after all; what still cannot be applied goes on waiting with its new reason."""
    reason = ask.read(Release).reason
    return reply(await decide(ask.node.db, ask.ctx, ask.ident(), What.RELEASE, reason=reason))


@book.route("POST", f"{PATH}/{{id}}/skip", **MANAGES, writes=True, body=Skip,
            answers={200: Told}, refuses=(409,))  # fmt: skip
async def skip_parked(ask: Ask) -> ASGIResponse:
    """Let it go. `steps` of the answer say the same as a body of POST /changes, to be edited."""
    reason = ask.read(Skip).reason
    return reply(await decide(ask.node.db, ask.ctx, ask.ident(), What.SKIP, reason=reason))


def _fail(pointer: str, detail: str) -> Invalid:
    return Invalid(
        detail, code="request.parameter", faults=(FieldFault(pointer, "out_of_range", detail),)
    )
