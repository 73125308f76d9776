"""Sources of connector workers for people: how they stand, look now, pause, go on; dead letters.

Whoever may import sees the sources and has them looked at; stopping one, and what others have
brought, is for those who approve.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base.clock import now
from appliance.base.errors import Refused
from appliance.files.rows import find_file, why_not
from appliance.files.states import FileState
from appliance.http.answers import empty, reply
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.http.route import API, Book
from appliance.intake import dead, mappings, runs, sources
from appliance.kernel.kind import Json
from connectors.sdk.contract import Mapping
from connectors.sdk.schedule import Schedule

book = Book("intake")
PATH = f"{API}/intake/sources"
ONE = f"{PATH}/{{key}}"
DEAD = f"{API}/intake/dead"
_KEY = re.compile("[a-z0-9][a-z0-9_-]{0,39}")
LETTER = f"{DEAD}/{{id}}"
SEES: dict[str, Any] = {"capability": "import.run"}
STEERS: dict[str, Any] = {"capability": "import.approve", "writes": True}


class SourceView(msgspec.Struct, frozen=True):
    """One source. `state`: ok, new, or what somebody should hear of: `stopped` (permanent trouble,
    `code` and `detail` say which; resume it), `silent` (its worker says nothing), `overdue` (no file
    by `expected_by`), `failing` (tried again later and later), `paused`. `dead`: its files that
    failed for good.
    """

    key: str
    state: str
    worker: str
    connector: str
    name: str
    place: str
    address: str
    schedule: Schedule
    is_paused: bool
    is_looking: bool
    overdue_since: datetime | None
    last_look_at: datetime | None
    last_good_at: datetime | None
    last_file_at: datetime | None
    next_look_at: datetime | None
    failures: int
    code: str
    detail: str
    looks: int
    files: int
    bytes: int
    faults: dict[str, int]
    dead: int
    known_at: datetime
    told_at: datetime


class SourceList(msgspec.Struct, frozen=True):
    """All sources, by key."""

    sources: list[SourceView]


class LetterPage(msgspec.Struct, frozen=True):
    """Newest first; `next` is `before` of the following page."""

    letters: list[dead.Letter]
    next: UUID | None


class LetterParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of dead letters, of one source or of all."""

    source: Annotated[str, msgspec.Meta(max_length=60)] = ""
    before: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=dead.LIST_MAX)] = 50


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`mapping`: read it by this one, whole or by its name; else by what was confirmed since."""

    mapping: Mapping | str | None = None


class Dismissal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why it is put aside."""

    note: Annotated[str, msgspec.Meta(max_length=300)] = ""


@book.route("GET", PATH, **SEES, answers={200: SourceList})
async def list_sources(ask: Ask) -> ASGIResponse:
    """Every source that a worker has told of, with its state."""
    at = now()
    found = await sources.list_sources(ask.node.db, ask.ctx.tenant)
    return reply(SourceList([view_source(row, at) for row in found]))


@book.route("GET", ONE, **SEES, answers={200: SourceView})
async def read_source(ask: Ask) -> ASGIResponse:
    """One source."""
    return reply(await _view(ask))


@book.route("DELETE", ONE, **STEERS, answers={204: None})
async def forget_source(ask: Ask) -> ASGIResponse:
    """Take a source off the list that no worker has any more."""
    await sources.forget(ask.node.db, ask.ctx, _key(ask))
    return empty()


@book.route("POST", f"{ONE}/look", **SEES, writes=True, answers={202: SourceView})
async def look_now(ask: Ask) -> ASGIResponse:
    """Have its worker look as soon as it hears of it, within seconds."""
    await sources.ask_look(ask.node.db, ask.ctx, _key(ask))
    return reply(await _view(ask), 202)


@book.route("POST", f"{ONE}/pause", **STEERS, answers={202: SourceView})
async def pause_source(ask: Ask) -> ASGIResponse:
    """No look begins before it is resumed."""
    await sources.pause(ask.node.db, ask.ctx, _key(ask))
    return reply(await _view(ask), 202)


@book.route("POST", f"{ONE}/resume", **STEERS, answers={202: SourceView})
async def resume_source(ask: Ask) -> ASGIResponse:
    """Go on after a pause or after permanent trouble, with a look at once."""
    await sources.resume(ask.node.db, ask.ctx, _key(ask))
    return reply(await _view(ask), 202)


@book.route("GET", DEAD, **SEES, params=LetterParams, answers={200: LetterPage})
async def list_dead(ask: Ask) -> ASGIResponse:
    """Files that failed for good: not fetched, not let pass, not understood."""
    given = ask.params(LetterParams)
    check_storable(given.source, "/source")
    found = await dead.list_letters(
        ask.node.db, ask.ctx, source=given.source, before=given.before, limit=given.limit
    )
    return reply(LetterPage(found, found[-1].id if len(found) == given.limit else None))


@book.route("POST", f"{LETTER}/replay", **SEES, writes=True, body=Replay, answers={204: None})
async def replay_letter(ask: Ask) -> ASGIResponse:
    """Fetch or read it again, as it failed; it leaves the list when it succeeds."""
    given, ident, db = ask.read(Replay), ask.ident(), ask.node.db
    key = await dead.find_lost(db, ask.ctx, ident)
    if key is not None:
        await dead.ask_again(db, ask.ctx, ident, key)
    else:
        await _read_again(ask, await dead.find_failed(db, ask.ctx, ident), given)
    return empty()


@book.route("POST", f"{LETTER}/dismiss", **SEES, writes=True, body=Dismissal, answers={204: None})
async def dismiss_letter(ask: Ask) -> ASGIResponse:
    """Put it aside with a note; its worker moves the file to `failed` where it may."""
    given, ident, db, ctx = ask.read(Dismissal), ask.ident(), ask.node.db, ask.ctx
    check_storable(given.note, "/note")
    key = await dead.find_lost(db, ctx, ident)
    if key is not None:
        await dead.dismiss_lost(db, ctx, ident, key, note=given.note)
    else:
        await dead.dismiss_run(db, ctx, await dead.find_failed(db, ctx, ident), given.note)
    return empty()


def view_source(row: sources.SourceRow, at: datetime) -> SourceView:
    """A source as people see it."""
    told = row.told
    return SourceView(
        row.key, sources.state_of(row, at), row.worker, told.connector, told.name, told.place,
        told.address, told.schedule, row.is_paused, told.is_looking and not row.is_quiet,
        sources.overdue(row, at), told.last_look_at, told.last_good_at, told.last_file_at,
        told.next_look_at, told.failures, told.code, told.detail, told.looks, told.files,
        told.bytes, told.faults, row.lost, row.known_at, row.told_at,
    )  # fmt: skip


async def _read_again(ask: Ask, run: runs.IntakeRun, given: Replay) -> None:
    """A failed run from its file on, or from its source on where the file is not for use."""
    db, tenant = ask.node.db, ask.ctx.tenant
    mapping = given.mapping
    if isinstance(mapping, str):
        mapping = (await mappings.get_named(db, tenant, run.connector, mapping)).mapping
    file = await find_file(db, tenant, run.blob) if run.blob is not None else None
    refusal = None
    if run.blob is not None and (file is None or file.state is not FileState.RELEASED):
        refusal = why_not(file) if file is not None else "The file is not here any more."
    if not await dead.begin_anew(db, ask.ctx, run, refusal=refusal, mapping=mapping):
        return
    payload: dict[str, Json] = {"run": str(run.id)}
    job = await ask.node.jobs.enqueue(tenant, "intake.prepare", payload, ask.ctx.actor)
    async with db.transaction(tenant) as tx:
        await tx.run(runs.set_call(tenant, run.id, "job_id", job), commit=True)


async def _view(ask: Ask) -> SourceView:
    return view_source(await sources.get_source(ask.node.db, ask.ctx.tenant, _key(ask)), now())


def _key(ask: Ask) -> str:
    key = ask.names["key"]
    if not _KEY.fullmatch(key):
        raise Refused("There is no such source for you.", code="source.unknown")
    return key
