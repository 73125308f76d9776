"""Files that came to rest, for those who waited for them: imports go on or end."""

from __future__ import annotations

from uuid import UUID

from appliance.base.errors import Clash
from appliance.exchange.pictures import note_refused
from appliance.files.rows import File, why_not
from appliance.files.states import FileState
from appliance.intake import runs
from appliance.work.jobs import enqueue_call
from appliance.work.node import WorkNode


async def go_on(node: WorkNode, tenant: UUID, file: File) -> None:
    """Start what waits for a file that is released, end what waits for one that never will be."""
    if file.state is not FileState.RELEASED:
        await note_refused(node.db, tenant, file)
    for run in await runs.waiting_for(node.db, tenant, file.id):
        if file.state is FileState.RELEASED:
            job, queued = enqueue_call(
                tenant, "intake.prepare", {"run": str(run.id)}, by=run.created_by
            )
            async with node.db.transaction(tenant) as tx:
                await tx.run(queued, runs.set_call(tenant, run.id, "job_id", job), commit=True)
            continue
        try:
            await runs.move(node.db, tenant, run.id, ["received"], "failed", why_not(file))
        except Clash:
            continue
