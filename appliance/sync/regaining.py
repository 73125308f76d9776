"""A hub that was put back from a backup takes back what it lost, from whichever node has it.

Entries of its own and of others come from a site then, as they were made: the chain of hashes has
to go on from what the hub has, and nothing it has is replaced. Each node is asked once in an epoch,
and from the moment it has no more, or when it was let in after the epoch began, it speaks for
itself alone again.
"""

from __future__ import annotations

from uuid import UUID

from appliance.base import logs
from appliance.db.database import Database
from appliance.sync.nodes import PeerNode, find_self, run_control

_WANTED = (
    "SELECT 1 FROM hub_epoch e, node_scope s JOIN node n ON n.id = s.node_id WHERE e.number > 1 "
    "AND s.node_id = %s AND s.tenant_id = %s AND s.state = 'active' AND n.state = 'active' "
    "AND n.joined_at < e.began_at AND s.offered IS DISTINCT FROM e.id"
)


async def is_lacking(db: Database, site: PeerNode, tenant: UUID) -> bool:
    """At the hub: whether this site may give it what others made."""
    return bool(await run_control(db, _WANTED, site.id, tenant))


async def note_offered(db: Database, site: PeerNode, tenant: UUID) -> None:
    """At the hub: the site has given all it has."""
    await run_control(
        db,
        "UPDATE node_scope SET offered = (SELECT id FROM hub_epoch) WHERE node_id = %s "
        "AND tenant_id = %s",
        site.id, tenant,
    )  # fmt: skip
    logs.event("sync.regained", tenant=tenant, node=site.id)


async def own_origin(db: Database) -> int:
    """The origin that the hub writes under now: nobody else has entries of it that it lacks."""
    me = await find_self(db)
    return me.origin if me else 1
