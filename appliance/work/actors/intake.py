"""Queues of the intake: prepare a run, apply it, take it back. Effects are keyed, so repeats are safe."""

from __future__ import annotations

from uuid import UUID

from appliance.base.errors import ApplianceError, Invalid
from appliance.base.ids import parse_uuid
from appliance.intake import runs, steps
from appliance.work.node import WorkNode
from appliance.work.registry import Payload, job
from appliance.work.run import JobCancelled, Run


@job("intake.prepare", queue="intake")
async def prepare(node: WorkNode, tenant: UUID, payload: Payload, run: Run) -> None:
    """Payload `{run}`."""
    ident = _run(payload)
    try:
        await steps.prepare(
            node.db, tenant, ident, node.data_dir, node.origin, run.report, plane=node.content
        )
    except JobCancelled:
        await runs.move(node.db, tenant, ident, ["received", "preparing"], "cancelled")
        raise


@job("intake.apply", queue="intake")
async def apply(node: WorkNode, tenant: UUID, payload: Payload, run: Run) -> None:
    """Payload `{run, suspicious}`."""
    ident, suspicious = _run(payload), payload.get("suspicious") is True
    try:
        await steps.carry_out(
            node.db, tenant, ident, node.origin, run.report, suspicious=suspicious
        )
    except JobCancelled:
        detail = "Stopped while it was applied; take it back, or import the file again."
        await runs.move(node.db, tenant, ident, ["applying"], "applied", detail)
        raise
    except ApplianceError as error:
        if error.status < 500:
            await runs.move(node.db, tenant, ident, ["applying"], "applied", error.detail)
            return
        raise


@job("intake.revert", queue="intake")
async def revert(node: WorkNode, tenant: UUID, payload: Payload, run: Run) -> None:
    """Payload `{run}`."""
    await steps.take_back(node.db, tenant, _run(payload), node.origin, run.report)


def _run(payload: Payload) -> UUID:
    found = parse_uuid(payload.get("run"))
    if found is None:
        raise Invalid("The job's run is no id.")
    return found
