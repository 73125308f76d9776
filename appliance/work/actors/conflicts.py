"""Queue `conflicts`: decide many conflicts by one rule, in the name of who asked."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import msgspec

from appliance.access.acting import act_as
from appliance.base.errors import Invalid
from appliance.base.ids import parse_uuid
from appliance.kernel.context import Door
from appliance.kernel.kind import Json
from appliance.sync.conflicts import Filter, Place
from appliance.sync.resolving import Rule, resolve_many
from appliance.work.node import WorkNode
from appliance.work.registry import Payload, job
from appliance.work.run import Run


@job("resolve_conflicts", queue="conflicts")
async def resolve_conflicts(node: WorkNode, tenant: UUID, payload: Payload, run: Run) -> None:
    """Payload `{by, profile, units, filter, rule, after}`.

    Each batch is a change of its own; what is decided stays decided when the job stops, and what
    cannot be decided by the rule stays in the inbox. Started again it meets only what is open.
    """
    by, profile = parse_uuid(payload.get("by")), parse_uuid(payload.get("profile"))
    if by is None or profile is None:
        raise Invalid("The job does not say who asked for it.")
    listed = payload.get("units")
    units = frozenset(
        u for v in (listed if isinstance(listed, list) else ()) if (u := parse_uuid(v))
    )
    ctx = await act_as(
        node.db, tenant, by, profile, units, origin=node.origin, door=Door.HTTP
    )  # fmt: skip
    asked = msgspec.convert(payload.get("filter") or {}, Filter)
    rule = Rule(str(payload.get("rule")))
    after = _place(payload.get("after"))
    done: Counter[str] = Counter()
    while True:
        batch = await resolve_many(node.db, ctx, asked, rule, after=after)
        done.update(d.status for d in batch.decided)
        left = done.total() - done["resolved"]
        await run.report(done.total(), None, f"{done['resolved']} resolved, {left} left open.")
        after = batch.next
        if after is None:
            return


def _place(value: Json) -> Place | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    since, record, sort, register = map(str, value)
    return since, record, sort, register
