"""The three pieces of work of a run: prepare it, apply it, take it back.

Each may be started again after a crash at any instruction: preparing starts anew, applying and
reverting go on by keys that were used before. What goes wrong is said in the run, not in a log.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from appliance.access.acting import act_as
from appliance.base import limits
from appliance.base.errors import ApplianceError, Invalid, Unavailable
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake import lease, runs
from appliance.intake.again import copy_plan, note_head
from appliance.intake.apply import apply_plan, revert_run
from appliance.intake.files import has, locate, receive
from appliance.intake.mappings import check_fits, find_saved, remember
from appliance.intake.plan import count_rows, limits_hit
from appliance.intake.posted import Answered, Looked, open_reading
from appliance.intake.runs import IntakeRun, Told
from appliance.intake.stage import Report, stage
from appliance.intake.targets import PRICE_LIST, open_target, vocabulary_of
from appliance.kernel.context import Ctx, Door
from connectors.sdk.contract import Fault, Found, Mapping, Refused

# An import of more rows than this changes what the planner should believe.
COUNTED_ROWS = 1_000
_COUNT_AGAIN = (Statement("ANALYZE record"), Statement("ANALYZE entry"))
_LEARNED = Statement(
    "SELECT mapping FROM intake_run WHERE tenant_id = $1 AND connector = $2 AND mapping IS NOT NULL "
    "AND approved_by IS NOT NULL ORDER BY id DESC LIMIT 50"
)


async def prepare(
    db: Database, tenant: UUID, ident: UUID, folder: Path, origin: int, report: Report,
    *, plane: ContentPlane | None = None,
) -> None:  # fmt: skip
    """Inspect, stage and plan. A run that cannot be read ends as failed and says why.

    Raises Unavailable when the content plane does not give the bytes just now.
    """
    run = await runs.get_run(db, tenant, ident)
    if run.state not in ("received", "preparing"):
        return
    if run.options.worker and not await lease.is_read(db, tenant, run):
        await lease.offer(db, tenant, run)
        return
    await runs.move(db, tenant, ident, ["received", "preparing"], "preparing")
    bound = asyncio.timeout(run.options.seconds_max)
    try:
        ctx = await _act(db, run, tenant, origin)
        path = await bring_copy(folder, tenant, run, plane)
        await note_head(db, tenant, ident)
        async with bound:
            plan = await _plan(db, ctx, run, path, report)
    except TimeoutError:
        if not bound.expired():
            raise
        most = f"a file that is read within {run.options.seconds_max} s"
        await _fail(db, tenant, ident, refusal_text(Fault("time-budget", most, "more")))
        return
    except Refused as refused:
        await _fail(db, tenant, ident, refusal_text(refused.fault))
        return
    except Unavailable:
        raise
    except ApplianceError as error:
        await _fail(db, tenant, ident, error.detail)
        return
    if plan is None:
        await _fail(db, tenant, ident, "No table with a name or code and a price was found.")
        return
    async with db.transaction(tenant) as tx:
        await tx.run(*(runs.set_call(tenant, ident, n, v) for n, v in plan.items()))
    await runs.move(db, tenant, ident, ["preparing"], "planned")
    if run.options.worker:
        await lease.forget(db, tenant, ident)


async def _plan(
    db: Database, ctx: Ctx, run: IntakeRun, path: Path, report: Report
) -> dict[str, Any] | None:
    """Read the file and judge its rows; what the run says of itself then. None when nothing in it
    is a table. Raises Refused.
    """
    tenant, is_list = ctx.tenant, vocabulary_of(run.connector) == PRICE_LIST
    if is_list and await copy_plan(db, tenant, run):
        counts = await count_rows(db, tenant, run.id)
        rows = sum(n for sort, n in counts.items() if sort != "gone")
        return {"counts": {**counts, "rows": rows}, "held_by": limits_hit(counts, run.options)}
    async with open_reading(db, tenant, run, path) as reading:
        run = await _map(db, tenant, run, reading, is_list=is_list)
        if run.mapping is None or (is_list and not run.mapping.tables):
            return None
        target = await open_target(db, ctx, run)
        frames = reading.read(run.mapping)
        done = await stage(
            db, tenant, run.id, frames, judge=target.judge, report=report,
            rows_max=run.options.rows_max,
        )  # fmt: skip
    async with db.transaction(tenant) as tx:
        await tx.run(runs.read_call(tenant, run.id, done), commit=True)
    summary = done.summary
    end = await target.finish(summary)
    told = Told(
        summary.entities, summary.totals, summary.facts, (*summary.warnings, *end.warnings),
        end.unmapped,
    )  # fmt: skip
    held = [*end.held, *(_in_words(f) for f in summary.holds)]
    return {"counts": {**end.counts, "rows": done.rows}, "held_by": held, "told": told}


def refusal_text(fault: Fault) -> str:
    """A refusal of the whole input in the words of its run."""
    where = f" at {fault.place.sheet} row {fault.place.row}" if fault.place.row else ""
    return f"{fault.code}{where}: expected {fault.expected}, found {fault.found or 'nothing'}."


def _in_words(hold: Fault) -> str:
    found = f", found {hold.found}" if hold.found else ""
    return f"{hold.code}: expected {hold.expected}{found}"


async def bring_copy(
    folder: Path, tenant: UUID, run: IntakeRun, plane: ContentPlane | None
) -> Path:
    """The node's copy of the run's file, fetched from the content plane when it is not there."""
    if run.blob is not None and plane is not None and not has(folder, tenant, run.sha256):
        got = await receive(folder, tenant, plane.read(tenant, run.blob))
        if got.file != run.sha256:
            raise Invalid("The content plane gave other bytes than it took; bring the file again.")
    return locate(folder, tenant, run.sha256)


async def carry_out(
    db: Database, tenant: UUID, ident: UUID, origin: int, report: Report, *, suspicious: bool
) -> None:
    """Apply an approved plan."""
    run = await runs.get_run(db, tenant, ident)
    if run.state != "applying":
        return
    ctx = await _act(db, run, tenant, origin)
    await remember(db, ctx, run)
    target = await open_target(db, ctx, run)
    done = await apply_plan(db, ctx, run, target, suspicious=suspicious, report=report)
    if done["applied"] > COUNTED_ROWS:
        async with db.transaction(tenant, timeout_ms=limits.EXPORT_TIMEOUT_MS) as tx:
            await tx.run(*((statement, ()) for statement in _COUNT_AGAIN))
    async with db.transaction(tenant) as tx:
        await tx.run(runs.set_call(tenant, ident, "counts", {**run.counts, **done}))
    await runs.move(db, tenant, ident, ["applying"], "applied")


async def take_back(db: Database, tenant: UUID, ident: UUID, origin: int, report: Report) -> None:
    """Undo what a run has written; what cannot be undone is listed in its detail."""
    run = await runs.get_run(db, tenant, ident)
    if run.state != "reverting":
        return
    ctx = await _act(db, run, tenant, origin)
    held = await revert_run(db, ctx, run, report)
    detail = f"{len(held)} left as they are: {'; '.join(held[:5])}" if held else ""
    await runs.move(db, tenant, ident, ["reverting"], "reverted", detail)


async def _map(
    db: Database, tenant: UUID, run: IntakeRun, reading: Looked, *, is_list: bool
) -> IntakeRun:
    """Look at the file; the run's own mapping counts, else one confirmed before, else a proposal.

    A format with a structure of its own has no layout: its settings are kept by the source, those
    that were confirmed before the ones that the file proposes.
    """
    found = await reading.inspect(await learned_words(db, tenant, run.connector))
    inspection, proposal = found.inspection, found.proposal
    if not is_list and not proposal.fingerprint:
        proposal = msgspec.structs.replace(proposal, fingerprint=f"source:{run.source}")
    saved = await find_saved(db, tenant, run.connector, proposal.fingerprint)
    mapping = run.mapping or (saved.mapping if saved else proposal)
    if not is_list:
        constants = {**proposal.constants, **mapping.constants}
        mapping = msgspec.structs.replace(
            mapping, constants=constants, fingerprint=proposal.fingerprint
        )
    elif run.mapping is not None:
        check_fits(run.mapping, inspection)
    async with db.transaction(tenant) as tx:
        await tx.run(
            runs.set_call(tenant, run.id, "inspection", inspection),
            runs.set_call(tenant, run.id, "mapping", mapping),
        )
    return await runs.get_run(db, tenant, run.id)


async def choose_mapping(db: Database, tenant: UUID, run: IntakeRun, found: Found) -> IntakeRun:
    """The run with the mapping that a worker elsewhere is to read by, after what it has found."""
    is_list = vocabulary_of(run.connector) == PRICE_LIST
    return await _map(db, tenant, run, Answered(found), is_list=is_list)


async def learned_words(db: Database, tenant: UUID, connector: str) -> dict[str, str]:
    """Header texts that somebody confirmed before, the newest word last."""
    (rows,) = await db.read(tenant, (_LEARNED, (tenant, connector)))
    found: dict[str, str] = {}
    for raw in reversed(rows.column()):
        mapping = msgspec.json.decode(raw or b"{}", type=Mapping)
        for table in mapping.tables:
            found |= {_normal(c.header): c.target for c in table.columns if c.header}
    return found


def _normal(header: str) -> str:
    return " ".join(header.lower().replace("ё", "е").replace("_", " ").split())


async def _act(db: Database, run: IntakeRun, tenant: UUID, origin: int) -> Ctx:
    return await act_as(
        db, tenant, run.created_by, run.profile, frozenset(run.units), origin=origin,
        door=Door.INTAKE,
    )  # fmt: skip


async def _fail(db: Database, tenant: UUID, ident: UUID, text: str) -> None:
    await runs.move(db, tenant, ident, ["preparing"], "failed", text)
