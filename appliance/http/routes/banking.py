"""Bank lines and invoices: propose matches, confirm them, say no, take back.

Lines, statements and matches themselves are records: they are read with queries.
"""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.banking import Part, Settled, confirm, decline, unmatch
from appliance.banking.ledger import check_kinds
from appliance.http.answers import reply
from appliance.http.ask import Ask
from appliance.http.route import API, Book
from appliance.kernel.kind import Json

book = Book("banking")
PATH = f"{API}/banking"
WRITES: dict[str, Any] = {"writes": True, "capability": "records.use"}


class Matching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines booked since a day are matched (180 days)."""

    since: date | None = None


class Started(msgspec.Struct, frozen=True):
    """The job that matches: its progress is under /jobs/{id}."""

    job: UUID


class Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Proposals by their ids, and parts of lines that a person says themselves."""

    matches: list[UUID] = []
    parts: list[Part] = []


class Chosen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Matches by their ids."""

    matches: list[UUID]


@book.route("POST", f"{PATH}/match", **WRITES, body=Matching, answers={202: Started})
async def match_lines(ask: Ask) -> ASGIResponse:
    """Look which open invoices the lines may be for; what is found waits for a person."""
    given, ctx = ask.read(Matching), ask.ctx
    check_kinds(ctx)
    payload: dict[str, Json] = {
        "by": str(ctx.actor), "profile": ctx.profile.id, "units": [str(u) for u in sorted(ctx.units)],
        "since": given.since.isoformat() if given.since else None,
    }  # fmt: skip
    job = await ask.node.jobs.enqueue(ctx.tenant, "banking.match", payload, ctx.actor)
    return reply(Started(job), 202)


@book.route("POST", f"{PATH}/confirm", **WRITES, body=Confirmation, answers={200: Settled})
async def confirm_matches(ask: Ask) -> ASGIResponse:
    """Make payments and allocations of matches, in one change; all of them, or none."""
    given = ask.read(Confirmation)
    done = await confirm(ask.node.db, ask.ctx, matches=given.matches, parts=given.parts)
    return _settled(done)


@book.route("POST", f"{PATH}/decline", **WRITES, body=Chosen, answers={200: Settled})
async def decline_matches(ask: Ask) -> ASGIResponse:
    """Say no to proposals; they are not made again."""
    return _settled(await decline(ask.node.db, ask.ctx, ask.read(Chosen).matches))


@book.route("POST", f"{PATH}/unmatch", **WRITES, body=Chosen, answers={200: Settled})
async def unmatch_lines(ask: Ask) -> ASGIResponse:
    """Take confirmed matches back: their allocations are reversed, their history stays."""
    return _settled(await unmatch(ask.node.db, ask.ctx, ask.read(Chosen).matches))


def _settled(done: Settled) -> ASGIResponse:
    return reply(done, 200, {"X-Change-Set": str(done.change_set)})
