"""What 1C brought: given to the content plane, then imported like any other file."""

from __future__ import annotations

from uuid import UUID

from appliance.base.errors import Invalid, Unavailable
from appliance.base.ids import parse_uuid
from appliance.exchange.packages import take_over
from appliance.files.rows import find_file
from appliance.files.states import RESTING
from appliance.work.arrivals import go_on
from appliance.work.node import WorkNode
from appliance.work.registry import Payload, job
from appliance.work.run import Run


@job("exchange.take", queue="intake")
async def take(node: WorkNode, tenant: UUID, payload: Payload, run: Run) -> None:
    """Payload `{package}`. Again is fine: a package that was taken is left alone."""
    del run
    ident = parse_uuid(payload.get("package"))
    if ident is None:
        raise Invalid("The job's package is no id.")
    if node.content is None:
        raise Unavailable("This node has no content plane.", dependency="content")
    taken = await take_over(
        node.db, tenant, ident, plane=node.content, limits=node.files, data_dir=node.data_dir,
        origin=node.origin,
    )  # fmt: skip
    if taken is None:
        return
    # A verdict that came before the run was there found nobody who waited.
    file = await find_file(node.db, tenant, taken[1].id)
    if file is not None and file.state in RESTING:
        await go_on(node, tenant, file)
