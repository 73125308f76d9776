"""What a worker is given by the assembly: the node's parts and the ports it calls.

Promises: work knows no settings and no environment; whoever starts it hands all of it in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.base.roles import Role
from appliance.base.settings import Files, SyncSettings, Webhooks
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.kernel.context import Ctx, Door
from appliance.kernel.profile import Profile
from appliance.meta import load_schema
from appliance.webhooks.deliver import Post
from appliance.webhooks.secrets import Box, key_path

# Seals what one tenant's audit has unsealed; how many events it covered.
Seal = Callable[[Database, UUID], Awaitable[int]]


@dataclass(frozen=True, kw_only=True)
class WorkNode:
    """The parts of one worker. `origin` is the node's number in the log's dots."""

    db: Database
    redis_url: str
    name: str
    origin: int
    seal: Seal
    role: Role = Role.SOLO
    data_dir: Path = Path("nexus-data")
    content: ContentPlane | None = None
    sync: SyncSettings = field(default_factory=SyncSettings)
    files: Files = field(default_factory=Files)
    webhooks: Webhooks = field(default_factory=Webhooks)


def post_of(node: WorkNode) -> Post:
    """What the node's webhooks are delivered with."""
    return Post(
        db=node.db, box=Box(key_path(node.webhooks, node.data_dir)), origin=node.origin,
        settings=node.webhooks,
    )  # fmt: skip


async def system_context(node: WorkNode, tenant: UUID, actor: UUID) -> Ctx:
    """A context of the node itself for `actor`: whoever queued the job was checked then."""
    return Ctx(
        tenant=tenant,
        origin=node.origin,
        actor=actor,
        profile=Profile(id="", key=""),
        schema=await load_schema(node.db, tenant),
        door=Door.SYSTEM,
        request_id=uuid7(),
        at=now(),
    )
