"""`nexus import FILE`: the whole of an import from the terminal, in the name of one of the people.

Exit codes: 0 planned or applied, 1 refused, 3 held by limits, 4 rows with faults were left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import UUID

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from appliance.base.errors import Invalid, Refused
from appliance.cli.acting import At, Call, run
from appliance.cli.files import bring, follow, upload_bar
from appliance.db.database import Database
from appliance.files.places import Place
from appliance.files.rows import why_not
from appliance.files.states import FileState
from appliance.intake import mappings, plan, runs, steps
from appliance.intake.stage import Report
from appliance.intake.targets import known_connectors
from appliance.kernel.context import Ctx, Door
from connectors.sdk.contract import Mapping

HELD, FAULTY = 3, 4
RELEASE_WAIT_S = 600.0


def import_(
    file: Path,
    *,
    tenant: str,
    by: str,
    connector: str = "price_list",
    source: str | None = None,
    mapping: str | None = None,
    dry_run: bool = False,
    approve: bool = False,
    accept_limits: bool = False,
    data: str | None = None,
    port: int | None = None,
) -> int:
    """Read a file, show what it would change, and apply it when told to.

    Parameters
    ----------
    file: the price list, catalogue or statement.
    tenant: the tenant's short name.
    by: the address of the person in whose name and under whose rights it is done.
    connector: what reads the file: price_list, or a folder of connectors/systems.
    source: who it is from; the name of the file if not said.
    mapping: the name of a mapping that was kept, or a file with one (JSON); else one is proposed.
    dry_run: plan only, and forget the plan.
    approve: apply the plan.
    accept_limits: apply it although limits hold it.
    data: the data folder (NEXUS_DATA).
    port: where the node listens (NEXUS_PORT); files go through its content plane.
    """
    if connector not in (known := known_connectors()):
        raise Invalid(f"There is no connector {connector}; there are: {', '.join(known)}.")

    async def work(at: At) -> int:
        given = await _mapping(at.node.db, at.ctx, connector, mapping)
        made = await _start(at, file, (connector, source or file.stem), given)
        return await _carry_on(
            at, made, dry_run=dry_run, approve=approve, accept_limits=accept_limits
        )

    call = Call(tenant, by, "import.run", data, port, needs_plane=True, door=Door.INTAKE)
    return run(call, work)


async def _mapping(db: Database, ctx: Ctx, connector: str, named: str | None) -> Mapping | None:
    """A mapping from a file, or one that was kept, by its name. Raises Refused, Invalid."""
    if named is None:
        return None
    path = Path(named)
    if path.suffix != ".json" or not path.is_file():
        return (await mappings.get_named(db, ctx.tenant, connector, named)).mapping
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mapping)
    except msgspec.DecodeError as error:
        raise Invalid(f"{named} holds no mapping: {error}.") from None


async def _start(at: At, file: Path, named: tuple[str, str], mapping: Mapping | None) -> UUID:
    """Bring the file as anybody does, through the content plane, and begin once it is released."""
    with upload_bar() as progress:
        brought = await bring(at, file, Place(), progress)
    brought = await follow(at, brought, RELEASE_WAIT_S)
    if brought.state is not FileState.RELEASED:
        raise Invalid(why_not(brought))
    new = runs.NewRun(
        connector=named[0], source=named[1], file_name=file.name, sha256=brought.sha256,
        size=brought.size, mapping=mapping, blob=brought.id,
    )  # fmt: skip
    ident = runs.new_id()
    async with at.node.db.transaction(at.ctx.tenant) as tx:
        await tx.run(runs.insert_call(at.ctx, ident, new))
    return ident


async def _carry_on(
    at: At, ident: UUID, *, dry_run: bool, approve: bool, accept_limits: bool
) -> int:
    console, node, ctx = Console(), at.node, at.ctx
    with _bar(console) as report:
        await steps.prepare(
            node.db, ctx.tenant, ident, node.settings.data_dir, node.origin, report, plane=at.plane
        )
    run = await runs.get_run(node.db, ctx.tenant, ident)
    if run.state == "failed":
        raise Invalid(run.detail)
    _show(console, run)
    if dry_run:
        await runs.move(node.db, ctx.tenant, ident, ["planned"], "cancelled")
        return 0
    if run.held_by and not accept_limits:
        console.print(
            "Held by limits: " + "; ".join(run.held_by) + ". Repeat with --accept-limits."
        )
        return HELD
    if not approve:
        console.print(f"Nothing is written yet; repeat with --approve, or approve run {ident}.")
        return 0
    if not ctx.profile.may("import.approve"):
        raise Refused("This person may not approve imports.", code="profile.unknown")
    await runs.move(node.db, ctx.tenant, ident, ["planned"], "applying")
    async with node.db.transaction(ctx.tenant) as tx:
        await tx.run(runs.set_call(ctx.tenant, ident, "approved_by", ctx.actor))
    with _bar(console) as report:
        await steps.carry_out(node.db, ctx.tenant, ident, node.origin, report, suspicious=False)
    run = await runs.get_run(node.db, ctx.tenant, ident)
    console.print(
        f"Applied {run.counts.get('applied', 0)} rows; refused {run.counts.get('refused', 0)}."
    )
    return FAULTY if run.counts.get("faulty") or run.counts.get("refused") else 0


class _bar:  # noqa: N801 - used like a function
    """A progress bar as the steps report to it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            console=console, disable=not sys.stdout.isatty(),
        )  # fmt: skip

    def __enter__(self) -> Report:
        self._progress.start()
        task = self._progress.add_task("Reading", total=None)

        async def report(done: int, total: int) -> None:
            self._progress.update(task, completed=done, total=total or None)

        return report

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _show(console: Console, run: runs.IntakeRun) -> None:
    """The mapping and the plan, as people look before they read."""
    columns = Table(
        "Sheet", "Column", "Header", "Read as", title=f"{run.file_name} from {run.source}"
    )
    for table in run.mapping.tables if run.mapping else ():
        for column in table.columns:
            options = " ".join(f"{k}={v}" for k, v in column.options.items())
            columns.add_row(
                table.sheet, column.letters, column.header[:40], f"{column.target} {options}"
            )
    if columns.row_count:
        console.print(columns)
    counts = Table(*plan.SORTS, title="Plan: rows")
    counts.add_row(*(str(run.counts.get(s, 0)) for s in plan.SORTS))
    console.print(counts)
    told = run.told
    said = {**told.facts, **{k: str(n) for k, n in told.entities.items()}, **told.totals}
    if said:
        console.print("; ".join(f"{name}: {value}" for name, value in said.items()))
    for warning in told.warnings:
        console.print(f"{warning.code}: expected {warning.expected}, found {warning.found}")
    for wanted in told.unmapped:
        setting = f"{wanted.what}:{wanted.value}"
        console.print(f"{wanted.rows} rows wait for the setting {setting!r} of the mapping.")
