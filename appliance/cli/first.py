"""What a first start shows: a demo tenant that sells, with a price list imported as finance does it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

from appliance.access.login import normal_email
from appliance.base.settings import Settings
from appliance.cli.acting import actor_of
from appliance.db.database import Database
from appliance.intake import files, runs, steps

SOURCE = "Vostok Trade"


async def import_demo_list(
    db: Database, settings: Settings, slug: str, email: str, origin: int
) -> int:
    """Read, plan and apply the list that comes with the program; how many rows were applied."""
    ctx = await actor_of(db, slug, normal_email(email), origin)
    with resources.as_file(_file()) as path:
        received = await files.receive(settings.data_dir, ctx.tenant, _chunks(path))
    new = runs.NewRun(
        connector="price_list", source=SOURCE, file_name="price_list.xlsx", sha256=received.file,
        size=received.size,
    )  # fmt: skip
    ident = runs.new_id()
    async with db.transaction(ctx.tenant) as tx:
        await tx.run(
            runs.insert_call(ctx, ident, new),
            runs.set_call(ctx.tenant, ident, "approved_by", ctx.actor),
        )
    await steps.prepare(db, ctx.tenant, ident, settings.data_dir, origin, _quiet)
    await runs.move(db, ctx.tenant, ident, ["planned"], "applying")
    await steps.carry_out(db, ctx.tenant, ident, origin, _quiet, suspicious=False)
    return (await runs.get_run(db, ctx.tenant, ident)).counts.get("applied", 0)


def _file() -> resources.abc.Traversable:
    return resources.files("appliance.templates").joinpath("files", "price_list.xlsx")


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    yield path.read_bytes()


async def _quiet(_done: int, _total: int) -> None:
    """Nobody watches."""
