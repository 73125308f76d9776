"""Records of every kind: one address, one shape, the kind is data."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse
from msgspec import UNSET, UnsetType

from appliance.base import limits
from appliance.base.errors import FieldFault, Invalid, Malformed
from appliance.db.wire import Call, Rows
from appliance.http import versions
from appliance.http.answers import raw, reply
from appliance.http.ask import Ask
from appliance.http.bodies import convert
from appliance.http.outcomes import (
    Entry,
    Written,
    alone,
    entry_of,
    in_list,
    refuse_uncommitted,
    written,
)
from appliance.http.route import API, Book
from appliance.kernel.kind import Json
from appliance.read import Duplicate, One, fetch, fetch_one, find_duplicates
from appliance.write import Command, HistoryPage, Op, Result, Unchanged, apply, check, history

book = Book("records")
PATH = f"{API}/records/{{kind}}"
ONE = f"{PATH}/{{id}}"


class NewRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record to make. `id` may be chosen by the client (UUIDv7); without `unit` it is yours."""

    fields: dict[str, Json]
    unit: UUID | UnsetType | None = UNSET
    owner: UUID | UnsetType | None = UNSET
    id: UUID | None = None


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields to set; null clears, what is not named stays."""

    fields: dict[str, Json] = {}
    unit: UUID | UnsetType | None = UNSET
    owner: UUID | UnsetType | None = UNSET


class Draft(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What would be sent: `id` of an existing record with `version` makes it an edit."""

    fields: dict[str, Json] = {}
    unit: UUID | UnsetType | None = UNSET
    owner: UUID | UnsetType | None = UNSET
    id: UUID | None = None
    op: str = "create"
    version: str | None = None


class Checked(msgspec.Struct, frozen=True):
    """What would become of each draft."""

    outcomes: list[Entry]


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Values that somebody is about to save; `id` of the record itself, when it exists."""

    fields: dict[str, Json]
    id: UUID | None = None


class Duplicates(msgspec.Struct, frozen=True):
    """What may be the same: which values it shares, whose it is, and the record if yours to read."""

    found: list[Duplicate]


class Record(msgspec.Struct, frozen=True):
    """A record as the reader may see it."""

    id: UUID
    kind: str
    number: str | None
    version: str
    unit: UUID | None
    owner: UUID | None
    created_at: datetime
    created_by: UUID | None
    updated_at: datetime
    updated_by: UUID | None
    fields: dict[str, Json]
    display: dict[str, str | None] = {}


class CreateParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`atomic=false` writes the good ones of a list and reports the rest."""

    atomic: bool = True


class HistoryParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of history; `before` is `next` of the page before."""

    limit: int = 50
    before: str | None = None


WRITES: dict[str, Any] = {"writes": True, "gated": True, "capability": "records.use"}
BULK: dict[str, Any] = {"body_most": limits.BODY_BYTES_MAX}


@book.route("POST", PATH, **WRITES, **BULK, body=NewRecord | list[NewRecord], params=CreateParams,
            answers={201: Record | Written, 200: Written}, headers=("Idempotency-Key", "Prefer"))  # fmt: skip
async def create_records(ask: Ask) -> ASGIResponse:
    """Make one record, or a list of them in one change."""
    given = ask.json()
    listed = isinstance(given, list)
    if not listed:
        return await _single(ask, _create(ask.names["kind"], convert(given, NewRecord)), 201)
    atomic = ask.params(CreateParams).atomic
    commands = [_create(ask.names["kind"], new) for new in convert(given, list[NewRecord])]
    result = await apply(
        ask.node.db, ask.ctx, commands, command_id=ask.command_id(), atomic=atomic, guard=ask.gate
    )
    return reply(written(result, in_list), 201 if atomic else 200)


@book.route("POST", f"{PATH}:check", capability="records.use", body=Draft | list[Draft], **BULK,
            answers={200: Checked})  # fmt: skip
async def check_records(ask: Ask) -> ASGIResponse:
    """Say what would become of records without saving them."""
    ask.kind()
    given = ask.json()
    listed = isinstance(given, list)
    drafts = convert(given, list[Draft]) if listed else [convert(given, Draft)]
    commands = [_check(ask.names["kind"], n, draft) for n, draft in enumerate(drafts)]
    outcomes = await check(ask.node.db, ask.ctx, commands)
    entries = [entry_of(o, n, in_list if listed else alone) for n, o in enumerate(outcomes)]
    return reply(Checked(entries))


@book.route("POST", f"{PATH}:duplicates", capability="records.use", body=Candidate,
            answers={200: Duplicates})  # fmt: skip
async def look_for_duplicates(ask: Ask) -> ASGIResponse:
    """Whether a thing is here already, in whichever branch; of a record out of your reach only
    its unit and owner are said.
    """
    kind, given = ask.kind().key, ask.read(Candidate)
    found = await find_duplicates(ask.node.db, ask.ctx, kind, given.fields, besides=given.id)
    return reply(Duplicates(found))


@book.route("GET", ONE, capability="records.use", gated=True, answers={200: Record})
async def read_record(ask: Ask) -> ASGIResponse:
    """One record; its version is in the header ETag too."""
    found = await fetch_one(ask.node.db, ask.ctx, ask.names["kind"], ask.ident(), guard=ask.gate)
    return raw(found, headers=versions.etag(found))


@book.route("PATCH", ONE, **WRITES, **BULK, body=Edit, answers={200: Record},
            headers=("If-Match", "Idempotency-Key", "Prefer"))  # fmt: skip
async def edit_record(ask: Ask) -> ASGIResponse:
    """Set fields of a record, from the version its author saw."""
    edit = ask.read(Edit)
    command = Command(
        op=Op.UPDATE, kind=ask.names["kind"], id=ask.ident(), fields=edit.fields,
        unit=edit.unit, owner=edit.owner, expect=versions.expected(ask),
    )  # fmt: skip
    return await _single(ask, command, 200)


@book.route(
    "DELETE", ONE, **WRITES, answers={200: Written}, headers=("If-Match", "Idempotency-Key")
)
async def delete_record(ask: Ask) -> ASGIResponse:
    """Delete a record; it can be restored."""
    command = Command(
        op=Op.DELETE, kind=ask.names["kind"], id=ask.ident(), expect=versions.expected(ask)
    )
    return reply(written(await _one(ask, command)))


@book.route("POST", f"{ONE}/restore", **WRITES, answers={200: Record}, headers=("Idempotency-Key",))
async def restore_record(ask: Ask) -> ASGIResponse:
    """Bring a deleted record back."""
    command = Command(op=Op.RESTORE, kind=ask.names["kind"], id=ask.ident())
    return await _single(ask, command, 200)


@book.route("GET", f"{ONE}/history", capability="records.use", params=HistoryParams,
            answers={200: HistoryPage})  # fmt: skip
async def read_history(ask: Ask) -> ASGIResponse:
    """Who changed what, newest first."""
    given = ask.params(HistoryParams)
    before = given.before
    if before is not None and not (before.isascii() and before.isdigit() and len(before) < 10):
        raise Malformed("`before` is the `next` of a page of this history.", code="request.cursor")
    if not 0 < given.limit <= limits.PAGE_ROWS_MAX:
        raise out_of_range("/limit", limits.PAGE_ROWS_MAX)
    page = await history(
        ask.node.db, ask.ctx, ask.kind().key, ask.ident(), limit=given.limit, before=before
    )
    return reply(page)


def out_of_range(pointer: str, most: int) -> Invalid:
    """A number of rows beyond what a page holds."""
    detail = f"Expected 1 to {most}."
    return Invalid(
        detail, code="request.parameter", faults=(FieldFault(pointer, "out_of_range", detail),)
    )


async def _one(ask: Ask, command: Command) -> Result:
    result = await apply(
        ask.node.db, ask.ctx, [command], command_id=ask.command_id(), guard=ask.gate
    )
    refuse_uncommitted(result)
    return result


class _Echo:
    """The one record that was written, read in the transaction that wrote it."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._one: One | None = None
        self.record: bytes | None = None

    def calls(self, result: Result) -> Sequence[Call]:
        """Read it, unless nobody asked for it or its writer may not see the kind."""
        ask, ident = self._ask, result.outcomes[0].id
        if _is_minimal(ask) or ident is None or not _reads(ask):
            return ()
        self._one = One(ask.ctx, ask.names["kind"], ident)
        return (self._one.call,)

    def take(self, answers: Sequence[Rows]) -> None:
        """The record as it is now."""
        self.record = self._one.read(answers[0]) if self._one else None


async def _single(ask: Ask, command: Command, status: int) -> ASGIResponse:
    """Write one and answer the record as it is now; `Prefer: return=minimal`: its outcome."""
    echo = _Echo(ask)
    result = await apply(
        ask.node.db, ask.ctx, [command], command_id=ask.command_id(), guard=ask.gate, echo=echo
    )
    refuse_uncommitted(result)
    outcome, record = result.outcomes[0], echo.record
    headers = {"X-Change-Set": str(result.change_set)}
    entry = entry_of(outcome)
    if record is None and entry.id is not None and not _is_minimal(ask) and _reads(ask):
        # Nothing was written just now: it stood so already, or the command is repeated.
        found = await fetch(ask.node.db, ask.ctx, ask.names["kind"], [entry.id])
        record = found.get(entry.id)
    if record is None:
        return reply(entry, status, {**headers, **versions.tag(entry.version)})
    if isinstance(outcome, Unchanged):
        headers = {}
    return raw(record, status, {**headers, **versions.etag(record)})


def _is_minimal(ask: Ask) -> bool:
    return ask.header("prefer") == "return=minimal"


def _reads(ask: Ask) -> bool:
    return ask.ctx.profile.sees(ask.ctx.schema.kind(ask.names["kind"]))


def _create(kind: str, new: NewRecord) -> Command:
    return Command(
        op=Op.CREATE, kind=kind, id=new.id, fields=new.fields, unit=new.unit, owner=new.owner
    )


def _check(kind: str, place: int, draft: Draft) -> Command:
    if draft.op not in ("create", "update"):
        detail = "Expected create or update."
        raise Invalid(detail, faults=(FieldFault(f"/{place}/op", "out_of_range", detail),))
    fields: dict[str, Any] = draft.fields
    return Command(
        op=Op(draft.op), kind=kind, id=draft.id, fields=fields, unit=draft.unit,
        owner=draft.owner, expect=draft.version,
    )  # fmt: skip
