"""`nexus import FILE`: the whole of an import from the terminal, in the name of one of the people.

Exit codes: 0 planned or applied, 1 refused, 3 held by limits, 4 rows with faults were left out.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from appliance.access.acting import act_as
from appliance.access.login import normal_email
from appliance.access.memberships import choices_call, read_choices
from appliance.base.clock import now
from appliance.base.errors import Invalid, Refused
from appliance.cli.node import Opened, opened, read_settings
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake import files, mappings, plan, runs, steps
from appliance.intake.stage import Report
from appliance.kernel.context import Ctx, Door
from connectors.sdk.contract import Mapping

_PERSON = Statement(
    "SELECT person_id::text FROM credential WHERE tenant_id = $1 AND email = $2 AND state = 'active'"
)
HELD, FAULTY = 3, 4


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
) -> int:
    """Read a file, show what it would change, and apply it when told to.

    Parameters
    ----------
    file: the price list.
    tenant: the tenant's short name.
    by: the address of the person in whose name and under whose rights it is done.
    connector: price_list.
    source: who it is from; the name of the file if not said.
    mapping: the name of a mapping that was kept, or a file with one (JSON); else one is proposed.
    dry_run: plan only, and forget the plan.
    approve: apply the plan.
    accept_limits: apply it although limits hold it.
    """
    if connector != "price_list":
        raise Invalid("There is one connector so far: price_list.")
    source = source or file.stem

    async def go() -> int:
        async with opened(read_settings(data)) as node:
            ctx = await actor_of(node.db, tenant, normal_email(by), node.origin)
            given = await _mapping(node.db, ctx, connector, mapping)
            made = await _start(node, ctx, file, (connector, source), given)
            return await _carry_on(
                node, ctx, made, dry_run=dry_run, approve=approve, accept_limits=accept_limits
            )

    return asyncio.run(go())


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


async def actor_of(
    db: Database,
    slug: str,
    email: str,
    origin: int,
    *,
    capability: str = "import.run",
    door: Door = Door.INTAKE,
) -> Ctx:
    """A person's context under the first of their profiles that may do it. Raises Refused."""
    tenant = db.routes.by_slug(slug).tenant
    (rows,) = await db.read(tenant, (_PERSON, (tenant, email)))
    row = rows.first()
    if row is None:
        raise Refused(f"Nobody signs in to {slug} as {email}.", code="person.unknown")
    person = UUID((row[0] or b"").decode())
    (found,) = await db.read(tenant, choices_call(tenant, person))
    for choice in read_choices(found, now()):
        ctx = await act_as(
            db, tenant, person, choice.profile, frozenset(choice.units), origin=origin,
            door=door,
        )  # fmt: skip
        if ctx.profile.may(capability):
            return ctx
    raise Refused(f"{email} has no profile with the right {capability}.", code="profile.unknown")


async def _start(
    node: Opened, ctx: Ctx, file: Path, named: tuple[str, str], mapping: Mapping | None
) -> UUID:
    async def chunks() -> AsyncIterator[bytes]:
        with file.open("rb") as opened_file:
            while chunk := opened_file.read(1 << 20):
                yield chunk

    received = await files.receive(node.settings.data_dir, ctx.tenant, chunks())
    new = runs.NewRun(
        connector=named[0], source=named[1], file_name=file.name, sha256=received.file,
        size=received.size, mapping=mapping,
    )  # fmt: skip
    ident = runs.new_id()
    async with node.db.transaction(ctx.tenant) as tx:
        await tx.run(runs.insert_call(ctx, ident, new))
    return ident


async def _carry_on(
    node: Opened, ctx: Ctx, ident: UUID, *, dry_run: bool, approve: bool, accept_limits: bool
) -> int:
    console = Console()
    with _bar(console) as report:
        await steps.prepare(node.db, ctx.tenant, ident, node.settings.data_dir, node.origin, report)
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
    console.print(columns)
    counts = Table(*plan.SORTS, title="Plan: rows")
    counts.add_row(*(str(run.counts.get(s, 0)) for s in plan.SORTS))
    console.print(counts)
