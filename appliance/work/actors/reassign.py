"""Queue `reassign`: hand the records of a person who leaves to another, in batches."""

from __future__ import annotations

from uuid import UUID

from appliance.base.errors import Invalid
from appliance.base.ids import parse_uuid
from appliance.work.node import WorkNode, system_context
from appliance.work.registry import Payload, job
from appliance.work.run import Run
from appliance.write import owned, reassign


@job("reassign", queue="reassign")
async def hand_over(node: WorkNode, tenant: UUID, payload: Payload, run: Run) -> None:
    """Payload `{from_owner, to_owner, by, kinds?}`; `by` is who asked and was allowed to.

    Kind by kind, so that progress is seen and a stop is heard; what is moved stays moved.
    """
    from_owner, to_owner, by = (_person(payload, k) for k in ("from_owner", "to_owner", "by"))
    wanted = payload.get("kinds")
    ctx = await system_context(node, tenant, by)
    counts = await owned(node.db, ctx, from_owner)
    kinds = [k for k in sorted(counts) if not isinstance(wanted, list) or k in wanted]
    total, moved = sum(counts[k] for k in kinds), 0
    await run.report(0, total)
    for kind in kinds:
        done = await reassign(node.db, ctx, from_owner=from_owner, to_owner=to_owner, kinds=[kind])
        moved += sum(done.values())
        await run.report(moved, total)


def _person(payload: Payload, key: str) -> UUID:
    found = parse_uuid(payload.get(key))
    if found is None:
        raise Invalid(f"The job's {key} is not an id of a person.")
    return found
