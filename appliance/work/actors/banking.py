"""Queue `reassign`, of long work on records: match bank lines with invoices, in the name of whoever asked."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from appliance.access.acting import act_as
from appliance.banking import propose_matches
from appliance.base.errors import Invalid
from appliance.base.ids import parse_uuid
from appliance.kernel.context import Door
from appliance.work.node import WorkNode
from appliance.work.registry import Payload, job
from appliance.work.run import Run


@job("banking.match", queue="reassign")
async def match(node: WorkNode, tenant: UUID, payload: Payload, run: Run) -> None:
    """Payload `{by, profile, units, since?}`. A repeat proposes what is there already."""
    person, profile = parse_uuid(payload.get("by")), parse_uuid(payload.get("profile"))
    units, since = payload.get("units"), payload.get("since")
    if person is None or profile is None or not isinstance(units, list):
        raise Invalid("The job does not say in whose name it matches.")
    known = frozenset(u for text in units if (u := parse_uuid(text)) is not None)
    ctx = await act_as(
        node.db, tenant, person, profile, known, origin=node.origin, door=Door.HTTP
    )  # fmt: skip
    day = date.fromisoformat(since) if isinstance(since, str) else None
    done = await propose_matches(node.db, ctx, since=day)
    await run.report(done.lines, done.lines)
