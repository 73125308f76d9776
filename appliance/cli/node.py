"""What the commands share: the settings, the services of this folder, and their connections."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import redis.asyncio as aioredis

from appliance import assemble
from appliance.base import logs
from appliance.base.clock import now
from appliance.base.errors import ApplianceError, Misconfigured
from appliance.base.ids import uuid7
from appliance.base.settings import Settings, load
from appliance.db import migrate
from appliance.db.database import Database
from appliance.kernel.context import Ctx, Door
from appliance.kernel.profile import Profile
from appliance.meta import load_schema
from appliance.runtime.services import Endpoints, Given, Services
from appliance.sync.wake import ringing
from appliance.tenancy import Servers, create_placement, register_node, settle

ENDPOINTS = "endpoints.json"


class Opened(msgspec.Struct, frozen=True):
    """A node that is up: its settings, addresses and open database."""

    settings: Settings
    endpoints: Endpoints
    db: Database
    servers: Servers
    origin: int
    # Whether other processes of this node are at work over the same folder.
    is_running: bool = False


def read_settings(data: str | None = None, **overrides: object) -> Settings:
    """Settings for a command, and the log to stderr at their level."""
    settings = load(overrides={"data": data, **overrides})
    logs.configure(level=os.environ.get("NEXUS_LOG_LEVEL", "warning"))
    return settings


def read_node_settings(data: str | None, port: int | None) -> Settings:
    """Settings for a command that speaks to a running node: it knows where it was told to listen."""
    settings = read_settings(data, port=port)
    path = settings.data_dir / ENDPOINTS
    if port is not None or "NEXUS_PORT" in os.environ or not path.exists():
        return settings
    with contextlib.suppress(ApplianceError):
        found = assemble.read_endpoints(path)
        return msgspec.structs.replace(settings, port=found.port or settings.port)
    return settings


def services_of(settings: Settings) -> Services:
    """The services of a data folder, not started."""
    found = settings.database
    given = Given(
        found.url, found.owner_url, found.control_url, found.control_owner_url, settings.redis.url
    )
    # A content plane on a machine of its own has its scanner there.
    files = settings.files
    scans = files.scanner and not files.plane_url
    return Services(settings.data_dir, given, freshclam=files.freshclam, scans=scans)


def servers_of(settings: Settings, endpoints: Endpoints, services: Services | None) -> Servers:
    """The owner's connections, for what changes databases and routes."""
    ensure = services.ensure_database() if services and services.postgres else None
    return Servers(
        control_dsn=endpoints.control_owner_dsn,
        placement_dsn=endpoints.pool_owner_dsn,
        ensure_database=ensure,
    )


async def prepare(settings: Settings, endpoints: Endpoints, servers: Servers) -> None:
    """Migrate, register this node and its pool, heal what a killed move left. Idempotent."""
    migrate.upgrade(endpoints.control_owner_dsn, migrate.CONTROL)
    await register_node(servers, name=settings.role.value, role=settings.role)
    await create_placement(servers, "pool", target="nexus_pool")
    await settle(servers)


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Opened]:
    """A node for one command: the running one, or its services for as long as it takes."""
    path = settings.data_dir / ENDPOINTS
    services: Services | None = None
    try:
        services = services_of(settings)
        endpoints = await services.start()
    except Misconfigured as running:
        services = None
        if not path.exists() or "already" not in running.detail:
            raise
        endpoints = assemble.read_endpoints(path)
    try:
        servers = servers_of(settings, endpoints, services)
        if services is not None:
            await prepare(settings, endpoints, servers)
        db = assemble.open_database(settings, endpoints)
        await db.start()
        try:
            me = await assemble.find_self(db)
            # What a command commits is on the open lists of a running node as soon as any other.
            async with (
                aioredis.Redis.from_url(endpoints.redis_url, socket_timeout=1) as client,
                ringing(db, client),
            ):
                is_running = services is None
                yield Opened(settings, endpoints, db, servers, me.origin, is_running)
        finally:
            await db.stop()
    finally:
        if services is not None:
            await services.stop()


def tenant_of(node: Opened, slug: str) -> object:
    """A tenant's route by slug. Raises Refused."""
    return node.db.routes.by_slug(slug)


async def system_context(node: Opened, slug: str) -> Ctx:
    """Whoever may use this machine's command line, in a tenant. Raises Refused."""
    tenant = node.db.routes.by_slug(slug).tenant
    return Ctx(
        tenant=tenant, origin=node.origin, actor=uuid7(), profile=Profile(id="", key="system"),
        schema=await load_schema(node.db, tenant), door=Door.SYSTEM, request_id=uuid7(), at=now(),
    )  # fmt: skip


def read_password(path: Path | None) -> str | None:
    """A password from a file; None when no file is named. Raises Misconfigured."""
    if path is None:
        return None
    try:
        return path.read_text("utf-8").rstrip("\n")
    except OSError as bad:
        raise Misconfigured(f"{path}: cannot be read: {bad.strerror}") from None


__all__ = ["ApplianceError", "Opened", "opened", "prepare", "read_settings", "services_of"]
