"""What the HTTP room is given by the assembly: real parts, and ports to rooms it may not import."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import redis.asyncio as aioredis

from appliance.access.session import Sessions
from appliance.base.roles import Role
from appliance.base.settings import Settings
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.http.metrics import Metrics
from appliance.kernel.kind import Json
from appliance.read import Cursors
from appliance.sync.health import HealthBook
from appliance.sync.hub import Hub
from appliance.sync.keys import KeyFile
from appliance.sync.waits import Waits
from appliance.sync.wake import Waker
from appliance.webhooks.secrets import Box, key_path


class Jobs(Protocol):
    """The background work of a tenant, as the room work tells it."""

    async def list_jobs(
        self, tenant: UUID, *, state: str | None, limit: int, before: UUID | None
    ) -> Any:
        """Newest first: an object with `jobs` and `next`."""

    async def get_job(self, tenant: UUID, ident: UUID) -> Any:
        """One job. Raises Refused."""

    async def cancel_job(self, tenant: UUID, ident: UUID) -> Any:
        """Ask it to stop. Raises Refused, Clash."""

    async def enqueue(self, tenant: UUID, kind: str, payload: dict[str, Json], by: UUID) -> UUID:
        """Queue a job; its id."""

    async def pulses(self) -> list[Any]:
        """The workers that are alive; each with `outbox` counts by placement."""


@dataclass
class Node:
    """The parts of one API process. `closing` is set when the process is told to stop."""

    settings: Settings
    role: Role
    db: Database
    redis: aioredis.Redis
    sessions: Sessions
    cursors: Cursors
    jobs: Jobs
    version: str
    origin: int = 1
    metrics: Metrics = field(default_factory=Metrics)
    scanner_state: Callable[[], Awaitable[str]] | None = None
    content: ContentPlane | None = None
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    # What sites of this node talk to, and the key it signs with.
    hub: Hub = field(init=False)
    waits: Waits = field(init=False)
    key: KeyFile = field(init=False)
    waker: Waker = field(init=False)
    webhook_box: Box = field(init=False)

    def __post_init__(self) -> None:
        self.waker = Waker(self.redis)
        self.key = KeyFile(self.settings.data_dir)
        self.webhook_box = Box(key_path(self.settings.webhooks, self.settings.data_dir))
        self.hub = Hub(self.db, self.settings.sync, HealthBook(self.redis), self.key.current)
        self.waits = Waits(self.db, self.waker, self.closing)
