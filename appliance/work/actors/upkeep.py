"""Queue `upkeep`: bring old records up to a changed schema (slots, links, claims, search)."""

from __future__ import annotations

from uuid import UUID

from appliance.kernel.kind import Json
from appliance.work.node import WorkNode, system_context
from appliance.work.registry import Payload, job
from appliance.work.run import Run
from appliance.write import reproject_kind

_NOBODY = UUID(int=0)


@job("reproject", queue="upkeep")
async def reproject(node: WorkNode, tenant: UUID, payload: Payload, run: Run) -> None:
    """Payload `{kind}`: rewrite the projection of every record of the kind, in batches.

    Doing it twice changes nothing; every batch stops when the job was cancelled or lost.
    """
    kind: Json = payload.get("kind")
    ctx = await system_context(node, tenant, _NOBODY)
    await reproject_kind(node.db, ctx, str(kind), run.report)
