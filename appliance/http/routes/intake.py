"""Imports over HTTP: bring a file, look at the plan, approve, watch, take back."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse

from appliance.audit import audit_calls
from appliance.base.errors import (
    Clash,
    FieldFault,
    Forbidden,
    Invalid,
    Malformed,
    Refused,
)
from appliance.db.wire import Call
from appliance.files.places import may_see
from appliance.files.rows import find_file, why_not
from appliance.files.states import RESTING, FileState
from appliance.http.answers import raw, reply
from appliance.http.ask import Ask
from appliance.http.bodies import check_storable
from appliance.http.progress import follow
from appliance.http.route import API, Book
from appliance.http.streams import EVENTS, open_stream
from appliance.intake import dead, mappings, plan, rows, runs
from appliance.intake.targets import known_connectors
from appliance.kernel.kind import Json
from connectors.sdk.contract import Inspection, Mapping, Used
from connectors.sdk.wire import Budget, Name

book = Book("intake")
PATH = f"{API}/intake/runs"
ONE = f"{PATH}/{{id}}"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


class NewImport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that was brought (its id), from whom, and how it is to be read and judged.
    `from_source`: the source of a connector worker; the file that it gave last makes no second run,
    unless it is meant (`again`).
    """

    connector: str
    file: UUID
    name: str
    source: str
    mapping: Mapping | str | None = None
    options: runs.Options = runs.Options()
    from_source: Name | None = None
    again: bool = False


class Figures(msgspec.Struct, frozen=True):
    """When a run came how far, by which mapping (equal ones have the same version), what it might
    cost and has cost. `begun_at`: when its file was here, or when it was begun anew.
    """

    begun_at: datetime
    started_at: datetime | None
    read_at: datetime | None
    planned_at: datetime | None
    approved_at: datetime | None
    applied_at: datetime | None
    mapping_version: str
    budget: Budget
    used: Used


class RunView(msgspec.Struct, frozen=True):
    """One import. `held_by`: limits that whoever approves must accept; `job`: its progress;
    `told`: what the whole of it says (rows by entity, totals, facts, values that wait for a mapping).
    """

    id: UUID
    connector: str
    source: str
    name: str
    file: str
    state: str
    detail: str
    counts: dict[str, int]
    held_by: list[str]
    job: UUID | None
    options: runs.Options
    created_by: UUID
    approved_by: UUID | None
    created_at: datetime
    figures: Figures
    told: runs.Told = runs.Told()
    same_as: UUID | None = None
    from_source: str = ""


class RunPage(msgspec.Struct, frozen=True):
    """Newest first; `next` is `before` of the following page."""

    runs: list[RunView]
    next: UUID | None


class Reading(msgspec.Struct, frozen=True):
    """What the file holds, and the mapping it is read by."""

    inspection: Inspection | None
    mapping: Mapping | None
    mapping_from: str | None = None


class RowPage(msgspec.Struct, frozen=True):
    """Rows in file order; `next` is `after` of the following page."""

    rows: list[rows.RowView]
    next: int | None


class PageParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of imports."""

    limit: int = 50
    before: UUID | None = None


class RowParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of one class (new, changed, unchanged, gone, suspicious, faulty) or of all."""

    sort: str | None = None
    after: int = -1
    limit: int = 100


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`accept_limits` when limits hold the run; `suspicious` applies those rows too."""

    accept_limits: bool = False
    suspicious: bool = False


@book.route("POST", PATH, capability="import.run", writes=True, body=NewImport,
            answers={202: RunView})  # fmt: skip
async def start_import(ask: Ask) -> ASGIResponse:
    """Read and plan a file that was brought with POST /files, as soon as it is released; nothing
    is written before somebody approves.
    """
    given, ctx, db = ask.read(NewImport), ask.ctx, ask.node.db
    for name in ("connector", "name", "source"):
        check_storable(getattr(given, name), f"/{name}")
    _check(given)
    file = await find_file(db, ctx.tenant, given.file)
    if file is None or not file.sha256 or not await may_see(db, ctx, file):
        raise Refused("There is no such file for you.", code="intake.file_unknown")
    source_key, name = given.from_source or "", given.name.strip()
    if source_key and not given.again:
        former = await runs.find_given(
            db, ctx.tenant, ctx.actor, source_key=source_key, name=name, sha256=file.sha256
        )
        if former is not None:
            return reply(_view(await runs.get_run(db, ctx.tenant, former)), 202)
    mapping = given.mapping
    if isinstance(mapping, str):
        mapping = (await mappings.get_named(db, ctx.tenant, given.connector, mapping)).mapping
    new = runs.NewRun(
        connector=given.connector, source=given.source.strip(), file_name=name,
        sha256=file.sha256, size=file.size, mapping=mapping, options=given.options, blob=file.id,
        source_key=source_key,
    )  # fmt: skip
    twin = await runs.find_twin(db, ctx.tenant, new)
    ident = runs.new_id()
    arrived = [dead.given_call(ctx.tenant, source_key, name)] if source_key else []
    await _run(
        ask, runs.insert_call(ctx, ident, new), *arrived, *_audit(ask, "intake.started", ident)
    )
    # A verdict that comes after this look finds the run that waits for it.
    file = await find_file(db, ctx.tenant, file.id) or file
    if file.state is FileState.RELEASED:
        await _enqueue(ask, ident, "intake.prepare")
    elif file.state in RESTING:
        await runs.move(db, ctx.tenant, ident, ["received"], "failed", why_not(file))
    made = await runs.get_run(db, ctx.tenant, ident)
    return reply(_view(made, twin), 202)


@book.route("GET", PATH, capability="import.run", params=PageParams, answers={200: RunPage})
async def list_imports(ask: Ask) -> ASGIResponse:
    """Imports, newest first."""
    given = ask.params(PageParams)
    _bound(given.limit, 200)
    found = await runs.list_runs(
        ask.node.db, ask.ctx.tenant, before=given.before, limit=given.limit
    )
    last = found[-1].id if len(found) == given.limit else None
    return reply(RunPage([_view(r) for r in found], last))


@book.route("GET", ONE, capability="import.run", answers={200: RunView})
async def read_import(ask: Ask) -> ASGIResponse:
    """One import: its state, its counts by class."""
    return reply(_view(await _get(ask)))


@book.route("GET", f"{ONE}/progress", capability="import.run", answers={200: str}, media=(EVENTS,))
async def follow_import(ask: Ask) -> ASGIResponse:
    """Frames `progress` as it goes, and `end` when it waits for somebody or is over."""
    ident = (await _get(ask)).id
    return open_stream(ask, follow(ask, ident))


@book.route("GET", f"{ONE}/mapping", capability="import.run", answers={200: Reading})
async def read_mapping(ask: Ask) -> ASGIResponse:
    """What the file holds, column by column, and how it is read."""
    run = await _get(ask)
    print_ = run.mapping.fingerprint if run.mapping else ""
    saved = await mappings.find_saved(ask.node.db, ask.ctx.tenant, run.connector, print_)
    known = saved.name if saved is not None and saved.mapping == run.mapping else None
    return reply(Reading(run.inspection, run.mapping, known))


@book.route("PUT", f"{ONE}/mapping", capability="import.run", body=Mapping, answers={202: RunView})
async def change_mapping(ask: Ask) -> ASGIResponse:
    """Read the file another way; the plan is made anew."""
    given, run = ask.read(Mapping), await _get(ask)
    await runs.move(
        ask.node.db, ask.ctx.tenant, run.id, ["planned", "failed", "received"], "received"
    )
    await _run(ask, runs.set_call(ask.ctx.tenant, run.id, "mapping", given))
    await _enqueue(ask, run.id, "intake.prepare")
    return reply(_view(await _get(ask)), 202)


@book.route("GET", f"{ONE}/plan", capability="import.run", params=RowParams, answers={200: RowPage})
async def read_plan(ask: Ask) -> ASGIResponse:
    """Rows with what they would change, by class."""
    given, run = ask.params(RowParams), await _get(ask)
    _bound(given.limit, rows.PAGE_MAX)
    if given.sort not in (None, *plan.SORTS) or not -1 <= given.after < 2**31:
        raise Malformed(f"sort is one of {', '.join(plan.SORTS)}.", code="request.parameter")
    found = await rows.page(
        ask.node.db, ask.ctx.tenant, run.id, sort=given.sort, after=given.after, limit=given.limit
    )
    return reply(RowPage(found, found[-1].no if len(found) == given.limit else None))


@book.route("GET", f"{ONE}/faults", capability="import.run", answers={200: bytes}, media=(XLSX,))
async def read_faults(ask: Ask) -> ASGIResponse:
    """A workbook of what is wrong, each fault with its place."""
    run = await _get(ask)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "faults.xlsx"
        await rows.write_report(ask.node.db, ask.ctx.tenant, run.id, path)
        body = path.read_bytes()
    headers = {
        "Content-Type": XLSX, "Content-Disposition": 'attachment; filename="faults.xlsx"',
    }  # fmt: skip
    return raw(body, headers=headers)


@book.route("POST", f"{ONE}/approve", capability="import.approve", writes=True, body=Approval,
            answers={202: RunView})  # fmt: skip
async def approve_import(ask: Ask) -> ASGIResponse:
    """Write the plan. Limits that hold the run have to be accepted by name."""
    given, run = ask.read(Approval), await _get(ask)
    if run.held_by and not given.accept_limits:
        faults = tuple(FieldFault("/accept_limits", "limit", text) for text in run.held_by)
        raise Clash("Limits hold this import; look at its plan.", code="intake.held", faults=faults)
    await approve_run(ask, run, suspicious=given.suspicious)
    return reply(_view(await _get(ask)), 202)


@book.route("POST", f"{ONE}/cancel", capability="import.run", writes=True, answers={202: RunView})
async def cancel_import(ask: Ask) -> ASGIResponse:
    """Stop it where it is; what is applied can be taken back."""
    run = await _get(ask)
    if run.state == "planned":
        await runs.move(ask.node.db, ask.ctx.tenant, run.id, ["planned"], "cancelled")
    elif run.state == "received" and (run.job is None or run.options.worker):
        # It waits for the verdict on its file, or for a worker elsewhere.
        await runs.move(ask.node.db, ask.ctx.tenant, run.id, ["received"], "cancelled")
    elif run.job is not None and run.state in ("received", "preparing", "applying"):
        await ask.node.jobs.cancel_job(ask.ctx.tenant, run.job)
        if run.state == "received":
            await runs.move(ask.node.db, ask.ctx.tenant, run.id, ["received"], "cancelled")
    else:
        raise Clash(f"This import is {run.state} already.", code="intake.state")
    return reply(_view(await _get(ask)), 202)


@book.route("POST", f"{ONE}/revert", capability="import.approve", writes=True,
            answers={202: RunView})  # fmt: skip
async def revert_import(ask: Ask) -> ASGIResponse:
    """Take back what it has written: previous values return, what was changed since stays."""
    run = await _get(ask)
    await runs.move(ask.node.db, ask.ctx.tenant, run.id, ["applied"], "reverting")
    await _run(ask, *_audit(ask, "intake.reverted", run.id))
    await _enqueue(ask, run.id, "intake.revert")
    return reply(_view(await _get(ask)), 202)


async def approve_run(ask: Ask, run: runs.IntakeRun, *, suspicious: bool) -> None:
    """Have a plan written, whatever holds it. Raises Forbidden, Clash."""
    if run.options.four_eyes and run.created_by == ask.ctx.actor:
        raise Forbidden("Somebody else has to approve this import.")
    await runs.move(ask.node.db, ask.ctx.tenant, run.id, ["planned"], "applying")
    await _run(
        ask, runs.set_call(ask.ctx.tenant, run.id, "approved_by", ask.ctx.actor),
        *_audit(ask, "intake.approved", run.id),
    )  # fmt: skip
    await _enqueue(ask, run.id, "intake.apply", suspicious=suspicious)


def _check(given: NewImport) -> None:
    faults = []
    known = known_connectors()
    if given.connector not in known:
        told = f"Expected one of {', '.join(known)}."
        faults.append(FieldFault("/connector", "connector_unknown", told))
    for name in ("name", "source"):
        if not 0 < len(getattr(given, name).strip()) <= 200:
            faults.append(FieldFault(f"/{name}", "out_of_range", "Expected 1 to 200 characters."))
    if faults:
        raise Invalid("The import cannot be started like this.", faults=tuple(faults))


def _bound(limit: int, most: int) -> None:
    if not 0 < limit <= most:
        detail = f"Expected 1 to {most}."
        fault = FieldFault("/limit", "out_of_range", detail)
        raise Invalid(detail, code="request.parameter", faults=(fault,))


async def _get(ask: Ask) -> runs.IntakeRun:
    """An import of one's own, or any for those who approve. Raises Refused."""
    run = await runs.get_run(ask.node.db, ask.ctx.tenant, ask.ident())
    if run.created_by != ask.ctx.actor and not ask.ctx.profile.may("import.approve"):
        raise Refused("There is no such import for you.", code="intake.run_unknown")
    return run


async def _run(ask: Ask, *calls: Call) -> None:
    async with ask.node.db.transaction(ask.ctx.tenant) as tx:
        await tx.run(*calls, commit=True)


async def _enqueue(ask: Ask, ident: UUID, kind: str, **more: bool) -> None:
    payload: dict[str, Json] = {"run": str(ident), **more}
    job = await ask.node.jobs.enqueue(ask.ctx.tenant, kind, payload, ask.ctx.actor)
    await _run(ask, runs.set_call(ask.ctx.tenant, ident, "job_id", job))


def _audit(ask: Ask, action: str, ident: UUID) -> list[Call]:
    ctx = ask.ctx
    return audit_calls(
        ctx.tenant, action, actor=ctx.actor, subject=ident, request_id=ctx.request_id
    )


def _figures(run: runs.IntakeRun) -> Figures:
    return Figures(
        run.begun_at, run.started_at, run.read_at, run.planned_at, run.approved_at,
        run.applied_at, run.mapping_version, run.options.budget, run.used,
    )  # fmt: skip


def _view(run: runs.IntakeRun, twin: UUID | None = None) -> RunView:
    return RunView(
        run.id, run.connector, run.source, run.file_name, run.sha256, run.state, run.detail,
        run.counts, run.held_by, run.job, run.options, run.created_by, run.approved_by,
        run.created_at, _figures(run), run.told, twin, run.source_key,
    )  # fmt: skip
