"""Work in somebody's name after their request has ended: their profile as it is now, their units.

A job that was queued under a person's rights runs under what is left of them: a profile that was
narrowed meanwhile narrows the job, and one that is gone ends it.
"""

from __future__ import annotations

from uuid import UUID

from appliance.access.load import below, read_tree
from appliance.access.rights import profiles_call, read_profiles
from appliance.base.clock import now
from appliance.base.errors import Refused
from appliance.base.ids import uuid7
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.kernel.context import Ctx, Door
from appliance.meta import load_schema

_UNITS = Statement(
    "SELECT id::text, data FROM record WHERE tenant_id = $1 AND kind = 'sys.unit' "
    "AND deleted_at IS NULL ORDER BY id"
)
_ACTIVE = Statement(
    "SELECT 1 FROM credential WHERE tenant_id = $1 AND person_id = $2 AND state = 'active'"
)


async def act_as(
    db: Database, tenant: UUID, person: UUID, profile: UUID, units: frozenset[UUID], *, origin: int,
    door: Door,
) -> Ctx:  # fmt: skip
    """A context of a person for a job. Raises Refused when person or profile is gone."""
    profiles, tree, active = await db.read(
        tenant, profiles_call(tenant, [profile]), (_UNITS, (tenant,)), (_ACTIVE, (tenant, person))
    )
    known = read_profiles(profiles, 0).get(profile)
    if known is None or not len(active):
        raise Refused("Whoever asked for this may not do it any more.", code="job.rights_gone")
    nodes = read_tree(tree)
    own = frozenset(units & nodes.keys())
    unit = next(iter(sorted(own)), None)
    return Ctx(
        tenant=tenant, origin=origin, actor=person, profile=known,
        schema=await load_schema(db, tenant), units=own, subtree=below(nodes, own), unit=unit,
        unit_tree=nodes, tz=nodes[unit].tz if unit else "UTC", door=door, request_id=uuid7(),
        at=now(),
    )  # fmt: skip
