"""The three pieces of work of a run: prepare it, apply it, take it back.

Each may be started again after a crash at any instruction: preparing starts anew, applying and
reverting go on by keys that were used before. What goes wrong is said in the run, not in a log.
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import msgspec

from appliance.access.acting import act_as
from appliance.base import limits
from appliance.base.errors import ApplianceError, Invalid, Unavailable
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake import runs
from appliance.intake.again import copy_plan, note_head
from appliance.intake.apply import apply_plan, revert_run
from appliance.intake.files import has, locate, receive
from appliance.intake.mappings import check_fits, find_saved, remember
from appliance.intake.plan import count_rows, finish_plan, limits_hit, make_judge
from appliance.intake.runs import IntakeRun
from appliance.intake.stage import Report, stage
from appliance.kernel.context import Ctx, Door
from connectors.sdk import parent
from connectors.sdk.contract import Done, Inspection, Mapping, Refused

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
    await runs.move(db, tenant, ident, ["received", "preparing"], "preparing")
    try:
        ctx = await _act(db, run, tenant, origin)
        path = await _bring(folder, tenant, run, plane)
        await note_head(db, tenant, ident)
        if await copy_plan(db, tenant, run):
            counts = await count_rows(db, tenant, ident)
            counts["rows"] = sum(n for sort, n in counts.items() if sort != "gone")
        else:
            read = await _read(db, ctx, run, path, report)
            if read is None:
                text = "No table with a name or code and a price was found."
                await _fail(db, tenant, ident, text)
                return
            counts = {**await finish_plan(db, ctx, run), "rows": read.rows}
    except Refused as refused:
        fault = refused.fault
        where = f" at {fault.place.sheet} row {fault.place.row}" if fault.place.row else ""
        text = f"{fault.code}{where}: expected {fault.expected}, found {fault.found or 'nothing'}."
        await _fail(db, tenant, ident, text)
        return
    except Unavailable:
        raise
    except ApplianceError as error:
        await _fail(db, tenant, ident, error.detail)
        return
    async with db.transaction(tenant) as tx:
        await tx.run(
            runs.set_call(tenant, ident, "counts", counts),
            runs.set_call(tenant, ident, "held_by", limits_hit(counts, run.options)),
        )
    await runs.move(db, tenant, ident, ["preparing"], "planned")


async def _bring(folder: Path, tenant: UUID, run: IntakeRun, plane: ContentPlane | None) -> Path:
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
    done = await apply_plan(db, ctx, run, suspicious=suspicious, report=report)
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


async def _read(db: Database, ctx: Ctx, run: IntakeRun, path: Path, report: Report) -> Done | None:
    """Read the file and judge its rows; None when nothing in it is a table. Raises Refused."""
    async with parent.open_input(run.connector, path) as reading:
        run = await _map(db, ctx.tenant, run, reading)
        if run.mapping is None or not run.mapping.tables:
            return None
        judge = await make_judge(db, ctx, run, run.created_at)
        frames = reading.read(run.mapping)
        return await stage(db, ctx.tenant, run.id, frames, judge=judge, report=report)


async def _map(db: Database, tenant: UUID, run: IntakeRun, reading: parent.Reading) -> IntakeRun:
    """Look at the file; the run's own mapping counts, else one confirmed before, else a proposal."""
    found = await reading.inspect(await _learned(db, tenant, run.connector))
    inspection: Inspection = found.inspection
    saved = await find_saved(db, tenant, run.connector, found.proposal.fingerprint)
    mapping: Mapping = run.mapping or (saved.mapping if saved else found.proposal)
    if run.mapping is not None:
        check_fits(run.mapping, inspection)
    async with db.transaction(tenant) as tx:
        await tx.run(
            runs.set_call(tenant, run.id, "inspection", inspection),
            runs.set_call(tenant, run.id, "mapping", mapping),
        )
    return await runs.get_run(db, tenant, run.id)


async def _learned(db: Database, tenant: UUID, connector: str) -> dict[str, str]:
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
