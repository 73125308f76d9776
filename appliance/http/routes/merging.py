"""Records that are one, and records that become others: merge and conversion.

Neither takes an Idempotency-Key: what is merged or converted is so once, a repeat says that.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.http import versions
from appliance.http.answers import reply
from appliance.http.ask import Ask
from appliance.http.outcomes import Entry, entry_of, refuse_uncommitted
from appliance.http.route import API, Book
from appliance.write import Taken, Wish, apply, look_at_merge, merge, plan_conversion

book = Book("merging")
ONE = f"{API}/records/{{kind}}/{{id}}"
WRITES: dict[str, Any] = {"writes": True, "gated": True, "capability": "records.use"}


class Merge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"losers": "from"}):
    """The records that go. `fields` says whose value is taken, by the id of the record; a field
    that is not named keeps the value of the one that stays, or takes the first there is.
    `preview`: say what would be done, and do nothing.
    """

    losers: list[UUID]
    fields: dict[str, UUID] = {}
    preview: bool = False


class Merged(msgspec.Struct, frozen=True):
    """What a merge does or did; `change_set` is what undo takes, null of a preview."""

    fields: list[Taken]
    moved: dict[str, int]
    change_set: UUID | None = None
    version: str | None = None


class Conversion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By the field that points to it: what is made. Nothing said means: make it."""

    into: dict[str, Wish] = {}


class Converted(msgspec.Struct, frozen=True):
    """What was made, by the field that points to it; `change_set` is what undo takes."""

    change_set: UUID
    made: dict[str, Entry]
    version: str | None


@book.route("POST", f"{ONE}/merge", **WRITES, body=Merge, answers={200: Merged},
            headers=("If-Match",))  # fmt: skip
async def merge_records(ask: Ask) -> ASGIResponse:
    """Merge other records into this one, or look at what that would do."""
    given, node = ask.read(Merge), ask.node
    key, ident = ask.names["kind"], ask.ident()
    looked = await look_at_merge(node.db, ask.ctx, key, ident, given.losers, given.fields)
    if given.preview:
        await ask.verify()
        return reply(Merged(looked.fields, looked.moved))
    result = await merge(node.db, ask.ctx, looked, expect=versions.expected(ask), guard=ask.gate)
    refuse_uncommitted(result)
    version = entry_of(result.outcomes[0]).version
    headers = {"X-Change-Set": str(result.change_set)}
    return reply(Merged(looked.fields, looked.moved, result.change_set, version), 200, headers)


@book.route("POST", f"{ONE}/convert", **WRITES, body=Conversion, answers={201: Converted},
            headers=("If-Match",))  # fmt: skip
async def convert_record(ask: Ask) -> ASGIResponse:
    """Make of a record what it leads to: of a lead its customer and its deal, in one change."""
    given = ask.read(Conversion)
    planned = await plan_conversion(
        ask.node.db, ask.ctx, ask.names["kind"], ask.ident(), given.into, versions.expected(ask)
    )
    commands = [command for _, command in planned]
    result = await apply(ask.node.db, ask.ctx, commands, guard=ask.gate)

    def place(number: int, pointer: str) -> str:
        name = planned[number][0]
        return f"/into/{name}{pointer}" if name else pointer

    refuse_uncommitted(result, place)
    made = {name: entry_of(o) for (name, _), o in zip(planned, result.outcomes, strict=True)}
    own = made.pop("")
    return reply(
        Converted(result.change_set, made, own.version), 201,
        {"X-Change-Set": str(result.change_set)},
    )  # fmt: skip
