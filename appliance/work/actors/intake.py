"""Queues of the intake: prepare a run, apply it, take it back. Effects are keyed, so repeats are safe."""

from __future__ import annotations

from uuid import UUID

from appliance.base.errors import ApplianceError, Invalid
from appliance.base.ids import parse_uuid
from appliance.exchange.pictures import bring_pictures, forget_pictures
from appliance.intake import runs, steps
from appliance.intake.targets import GOODS, vocabulary_of
from appliance.work.node import WorkNode, system_context
from appliance.work.registry import Payload, job
from appliance.work.run import JobCancelled, LeaseLost, Run
from connectors.sdk.contract import Refused as Unread


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
    except LeaseLost:
        raise
    except ApplianceError as error:
        if error.status < 500:
            await runs.move(node.db, tenant, ident, ["applying"], "applied", error.detail)
            return
        raise
    await _bring_pictures(node, tenant, ident, run)


async def _bring_pictures(node: WorkNode, tenant: UUID, ident: UUID, run: Run) -> None:
    """What a package brings beside its rows; whoever stops that has the rows applied."""
    found = await runs.get_run(node.db, tenant, ident)
    if node.content is None or vocabulary_of(found.connector) != GOODS:
        return
    try:
        path = await steps.bring_copy(node.data_dir, tenant, found, node.content)
        await bring_pictures(
            node.db, tenant, ident, path, plane=node.content, limits=node.files,
            origin=node.origin, report=run.report,
        )  # fmt: skip
    except JobCancelled:
        detail = "Stopped while its pictures came; they come when the file is imported again."
        await runs.move(node.db, tenant, ident, ["applied"], "applied", detail)
        raise
    except LeaseLost:
        raise
    except (Unread, ApplianceError) as error:
        if isinstance(error, ApplianceError) and error.status >= 500:
            raise
        said = error.detail if isinstance(error, ApplianceError) else error.fault.code
        await runs.move(node.db, tenant, ident, ["applied"], "applied", f"Its pictures: {said}")


@job("intake.revert", queue="intake")
async def revert(node: WorkNode, tenant: UUID, payload: Payload, run: Run) -> None:
    """Payload `{run}`."""
    ident = _run(payload)
    await steps.take_back(node.db, tenant, ident, node.origin, run.report)
    made = await runs.get_run(node.db, tenant, ident)
    await forget_pictures(node.db, await system_context(node, tenant, made.created_by), ident)


def _run(payload: Payload) -> UUID:
    found = parse_uuid(payload.get("run"))
    if found is None:
        raise Invalid("The job's run is no id.")
    return found
