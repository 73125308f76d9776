"""What waits for somebody to decide: conflicts of records, by the rights on the records."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.base.errors import FieldFault, Invalid
from appliance.base.roles import EVERYWHERE
from appliance.http import versions
from appliance.http.answers import reply
from appliance.http.ask import Ask
from appliance.http.outcomes import Written, written
from appliance.http.route import API, Book
from appliance.kernel.kind import Json
from appliance.sync.conflicts import (
    COUNT_CAP,
    PAGE_MAX,
    SORTS,
    Filter,
    Place,
    count,
    find,
    read_page,
)
from appliance.sync.resolving import (
    AT_ONCE,
    ATOMIC_MAX,
    Choice,
    Decided,
    Rule,
    resolve,
    resolve_many,
)
from appliance.sync.showing import Shown, show_many, show_one

book = Book("conflicts")
PATH = f"{API}/conflicts"
ONE = f"{PATH}/{{record}}/{{sort}}/{{register}}"
JOB = "resolve_conflicts"


class ConflictParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of the inbox; `after` is `next` of the page before. `mine`: of records that you own,
    or with a side that you wrote.
    """

    kind: str | None = None
    sort: str | None = None
    unit: UUID | None = None
    record: UUID | None = None
    mine: bool = False
    limit: int = 50
    after: str | None = None
    total: bool = False


class Conflicts(msgspec.Struct, frozen=True):
    """Newest first. `counts` by sort when `total` is asked for; they stop at 1000 in all."""

    conflicts: list[Shown]
    next: str | None
    counts: dict[str, int] | None = None


class ManyFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which conflicts of the inbox."""

    kind: str | None = None
    sort: str | None = None
    unit: UUID | None = None
    record: UUID | None = None
    mine: bool = False


class Many(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Decide all of a filter by one rule. `atomic`: all in one change, or none."""

    rule: Rule
    filter: ManyFilter = ManyFilter()
    atomic: bool = False


class ManyDecided(msgspec.Struct, frozen=True):
    """What became of each; `job` when there are more than are decided at once, which go on there.

    Each change set can be undone.
    """

    decided: list[Decided]
    change_sets: list[UUID]
    job: UUID | None = None


READS: dict[str, Any] = {"placed": EVERYWHERE, "capability": "records.use"}
WRITES: dict[str, Any] = {
    "placed": EVERYWHERE, "capability": "conflicts.resolve", "writes": True,
}  # fmt: skip


@book.route("GET", PATH, **READS, params=ConflictParams, answers={200: Conflicts})
async def list_conflicts(ask: Ask) -> ASGIResponse:
    """The conflicts of records that you may read, newest first."""
    given = ask.params(ConflictParams)
    if not 0 < given.limit <= PAGE_MAX:
        raise _fail("/limit", f"Expected 1 to {PAGE_MAX}.")
    asked = _filter(given)
    binding = msgspec.msgpack.encode([str(ask.ctx.tenant), str(ask.ctx.actor), asked])
    after = _place(ask, given.after, binding)
    helds, place = await read_page(
        ask.node.db, ask.ctx, asked, limit=given.limit, after=after
    )  # fmt: skip
    shown = await show_many(ask.node.db, ask.ctx, helds)
    counts = await count(ask.node.db, ask.ctx, asked) if given.total else None
    end = ask.node.cursors.seal(list(place), ask.ctx.at.isoformat(), binding) if place else None
    return reply(Conflicts(shown, end, counts))


@book.route("GET", ONE, **READS, answers={200: Shown})
async def read_conflict(ask: Ask) -> ASGIResponse:
    """One conflict: all sides with who wrote them when, and what they started from."""
    held = await find(ask.node.db, ask.ctx, *_key(ask))
    shown = await show_one(ask.node.db, ask.ctx, held)
    return reply(shown, 200, versions.tag(shown.version))


@book.route("POST", f"{ONE}/resolve", **WRITES, body=Choice, answers={200: Written},
            headers=("If-Match", "Idempotency-Key"))  # fmt: skip
async def resolve_conflict(ask: Ask) -> ASGIResponse:
    """Decide one conflict, as an edit of your own: it is in the history and can be undone."""
    choice = ask.read(Choice)
    held = await find(ask.node.db, ask.ctx, *_key(ask))
    result = await resolve(
        ask.node.db, ask.ctx, held, choice, expect=versions.expected(ask),
        command_id=ask.command_id(), guard=ask.gate,
    )  # fmt: skip

    def place(_: int, pointer: str) -> str:
        return pointer.replace("/fields/", "/values/", 1)

    return reply(written(result, place), 200, {"X-Change-Set": str(result.change_set)})


@book.route("POST", f"{PATH}/resolve", **WRITES, body=Many, answers={200: ManyDecided})
async def resolve_conflicts(ask: Ask) -> ASGIResponse:
    """Decide many by one rule. Up to 100 are decided at once; of more a job decides the rest."""
    given = ask.read(Many)
    asked = _filter(given.filter)
    if given.atomic:
        counts = await count(ask.node.db, ask.ctx, asked)
        if sum(counts.values()) >= min(ATOMIC_MAX, COUNT_CAP):
            raise _fail("/atomic", f"At most {ATOMIC_MAX} are decided in one change; filter them.")
    batch = await resolve_many(
        ask.node.db, ask.ctx, asked, given.rule, atomic=given.atomic, guard=ask.gate,
        limit=ATOMIC_MAX if given.atomic else AT_ONCE,
    )  # fmt: skip
    job = await _queue(ask, asked, given.rule, batch.next) if batch.next else None
    return reply(ManyDecided(batch.decided, batch.change_sets, job))


async def _queue(ask: Ask, asked: Filter, rule: Rule, after: Place) -> UUID:
    """A job in the name and under the profile of who asked."""
    ctx = ask.ctx
    payload: dict[str, Json] = {
        "by": str(ctx.actor), "profile": ctx.profile.id, "rule": str(rule), "after": list(after),
        "units": [str(u) for u in sorted(ctx.units)], "filter": msgspec.to_builtins(asked),
    }  # fmt: skip
    return await ask.node.jobs.enqueue(ctx.tenant, JOB, payload, ctx.actor)


def _filter(given: ConflictParams | ManyFilter) -> Filter:
    if given.sort is not None and given.sort not in SORTS:
        raise _fail("/sort", f"Expected {', '.join(SORTS)}.")
    return Filter(given.kind, given.sort, given.unit, given.record, None, given.mine)


def _place(ask: Ask, cursor: str | None, binding: bytes) -> Place | None:
    if cursor is None:
        return None
    since, record, sort, register = (
        str(v) for v in ask.node.cursors.open(cursor, binding)[0]
    )  # fmt: skip
    return since, record, sort, register


def _key(ask: Ask) -> tuple[UUID, str, str]:
    return ask.ident("record"), ask.names["sort"], ask.names["register"]


def _fail(pointer: str, detail: str) -> Invalid:
    return Invalid(
        detail, code="request.parameter", faults=(FieldFault(pointer, "out_of_range", detail),)
    )
