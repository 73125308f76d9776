"""A change as a whole: several records of several kinds at once, and its inverse."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse
from msgspec import UNSET, UnsetType

from appliance.base import limits
from appliance.base.errors import FieldFault, Invalid
from appliance.http.answers import reply
from appliance.http.ask import Ask
from appliance.http.outcomes import Written, in_list, written
from appliance.http.route import API, Book
from appliance.kernel.kind import Json
from appliance.write import Command, Op, apply, undo

book = Book("changes")
PATH = f"{API}/changes"


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One record of a change. `id` may be chosen for a new one (UUIDv7), so that others of the
    same change refer to it; with `version` an edit is from what its author saw.
    """

    kind: str
    op: str = "create"
    fields: dict[str, Json] = {}
    id: UUID | None = None
    version: str | None = None
    unit: UUID | UnsetType | None = UNSET
    owner: UUID | UnsetType | None = UNSET


WRITES: dict[str, Any] = {"capability": "records.use", "writes": True}


@book.route("POST", PATH, **WRITES, gated=True, body=list[Step], body_most=limits.BODY_BYTES_MAX,
            answers={201: Written}, headers=("Idempotency-Key",))  # fmt: skip
async def make_change(ask: Ask) -> ASGIResponse:
    """Write records of several kinds in one change: all of it or nothing."""
    commands = [_command(n, step) for n, step in enumerate(ask.read(list[Step]))]
    result = await apply(
        ask.node.db, ask.ctx, commands, command_id=ask.command_id(), guard=ask.gate
    )
    return reply(written(result, in_list), 201, {"X-Change-Set": str(result.change_set)})


@book.route("POST", f"{PATH}/{{change_set}}/undo", **WRITES,
            answers={200: Written}, headers=("Idempotency-Key",))  # fmt: skip
async def undo_change(ask: Ask) -> ASGIResponse:
    """Take a change set back, as a change of your own; all of it or nothing."""
    result = await undo(
        ask.node.db, ask.ctx, ask.ident("change_set"), command_id=ask.command_id(), guard=ask.gate
    )
    return reply(written(result, in_list))


def _command(place: int, step: Step) -> Command:
    if step.op not in Op.__members__.values():
        detail = f"Expected {', '.join(Op)}."
        raise Invalid(detail, faults=(FieldFault(f"/{place}/op", "out_of_range", detail),))
    return Command(
        op=Op(step.op), kind=step.kind, id=step.id, fields=step.fields, unit=step.unit, owner=step.owner,
        expect=step.version,
    )  # fmt: skip
