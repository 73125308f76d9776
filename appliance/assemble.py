"""The one place where settings, endpoints, registries and the role become a program.

`asgi` is what the ASGI server serves (uvicorn appliance.assemble:asgi); `worker_node` is what
the worker runs on. Endpoints come as a file (NEXUS_ENDPOINTS_FILE, mode 600) written by the
process that started the services, because its strings hold passwords and arguments are public.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import secrets
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import redis.asyncio as aioredis
from litestar import Litestar

from appliance import __version__, audit
from appliance.access.session import Sessions
from appliance.base import logs
from appliance.base.errors import ApplianceError, Misconfigured
from appliance.base.memory import collect_seldom
from appliance.base.settings import Settings, load
from appliance.base.threads import take_short_turns
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.files.tickets import Watch
from appliance.http.app import create_app
from appliance.http.node import Node
from appliance.http.streams import STREAMS_MAX
from appliance.kernel.kind import Json
from appliance.read import Cursors
from appliance.runtime.account import die_with
from appliance.runtime.content import KEY_FILE
from appliance.runtime.services import Endpoints
from appliance.sync.wake import Bell
from appliance.work import jobs
from appliance.work.health import Pulse, workers_alive
from appliance.work.node import WorkNode

ENDPOINTS_VARIABLE = "NEXUS_ENDPOINTS_FILE"
_KEY_BYTES = 32


class Self(msgspec.Struct, frozen=True):
    """What this node is in the installation."""

    name: str
    origin: int
    prefix: str


class TenantJobs:
    """The room work, as the room http sees it."""

    def __init__(self, db: Database, client: aioredis.Redis) -> None:
        self._db = db
        self._redis = client

    async def list_jobs(
        self, tenant: UUID, *, state: str | None, limit: int, before: UUID | None
    ) -> jobs.JobPage:
        """See work.jobs.list_jobs."""
        return await jobs.list_jobs(self._db, tenant, state=state, limit=limit, before=before)

    async def get_job(self, tenant: UUID, ident: UUID) -> jobs.Job:
        """See work.jobs.get_job."""
        return await jobs.get_job(self._db, tenant, ident)

    async def cancel_job(self, tenant: UUID, ident: UUID) -> jobs.Job:
        """See work.jobs.cancel_job."""
        return await jobs.cancel_job(self._db, tenant, ident)

    async def enqueue(self, tenant: UUID, kind: str, payload: dict[str, Json], by: UUID) -> UUID:
        """See work.jobs.enqueue."""
        return await jobs.enqueue(self._db, tenant, kind, payload, by=by)

    async def pulses(self) -> list[Pulse]:
        """See work.health.workers_alive."""
        return await workers_alive(self._redis)


def read_endpoints(path: Path) -> Endpoints:
    """The endpoints file. Raises Misconfigured."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Endpoints)
    except (OSError, msgspec.MsgspecError):
        raise Misconfigured(
            f"{ENDPOINTS_VARIABLE}: the file with the services' addresses cannot be read; start the "
            "node with `nexus up`, which writes it."
        ) from None


def write_endpoints(path: Path, endpoints: Endpoints) -> None:
    """Write the endpoints file, readable by its owner alone; it appears whole or not at all."""
    _write_private(path, msgspec.json.encode(endpoints))


def load_key(path: Path) -> bytes:
    """A secret of this node in a file of mode 600, made on first use."""
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            _write_private(path, secrets.token_bytes(_KEY_BYTES), replace=False)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise Misconfigured(
            f"{path.name}: expected {_KEY_BYTES} bytes; remove it to make a new one."
        )
    return key


def open_database(settings: Settings, endpoints: Endpoints) -> Database:
    """The database of a process, as the application role; `start` it."""
    return Database(endpoints.control_dsn, endpoints.pool_dsn, pool_max=settings.database.pool_max)


async def find_self(db: Database) -> Self:
    """Read the row of this node from the control plane."""
    async with db.control.connection() as conn:
        cursor = await conn.execute("SELECT name, origin, prefix FROM node WHERE is_self")
        row: Any = await cursor.fetchone()
    return Self(*row) if row else Self("node", 1, "")


def content_plane(settings: Settings) -> ContentPlane | None:
    """The client of the content plane; None on a node that was never started with one."""
    files = settings.files
    key = Path(files.key_path) if files.key_path else settings.data_dir / KEY_FILE
    if not key.is_file():
        return None
    here = f"http://127.0.0.1:{settings.files_port}"
    return ContentPlane(
        files.plane_url or here, files.url or files.plane_url or here, key.read_bytes()
    )


def http_node(settings: Settings, endpoints: Endpoints) -> Node:
    """The parts of an API process; `create_app` starts them."""
    db = open_database(settings, endpoints)
    # Each live stream blocks on a connection of its own; the rest is for probes.
    client = aioredis.Redis.from_url(
        endpoints.redis_url,
        max_connections=STREAMS_MAX + 20,
        socket_timeout=10,
        socket_connect_timeout=2,
    )

    content = content_plane(settings)

    async def scanner() -> str:
        if content is None:
            return endpoints.scanner.state
        try:
            return (await content.status()).scanner
        except ApplianceError:
            return "unknown"

    return Node(
        settings=settings, role=settings.role, db=db, redis=client,
        sessions=_sessions(db, settings, Self("node", 1, "")),
        cursors=Cursors(load_key(settings.data_dir / "cursor.key")),
        jobs=TenantJobs(db, client), version=__version__, scanner_state=scanner, content=content,
    )  # fmt: skip


def http_app(node: Node) -> Litestar:
    """The application, which opens its database with the server and closes it last."""
    ending, bell = asyncio.Event(), Bell(node.redis)
    watching: list[asyncio.Task[None]] = []

    async def start() -> None:
        await node.db.start()
        node.db.announce = bell.ring
        me = await find_self(node.db)
        if node.content is not None:
            # The worker looks after downloads too; neither may be the only one that lives.
            watch = Watch(node.db, node.content, node.redis)
            watching.append(asyncio.create_task(watch.follow(ending)))
        node.origin, node.sessions = me.origin, _sessions(node.db, node.settings, me)
        logs.event("http.server_started", role=node.role.value, version=node.version)

    async def stop() -> None:
        ending.set()
        await asyncio.gather(*watching, return_exceptions=True)
        if node.content is not None:
            await node.content.close()
        await bell.close()
        await node.waker.close()
        await node.redis.aclose()
        await node.db.stop()
        logs.event("http.server_stopped")

    return create_app(node, start=start, stop=stop)


async def worker_node(settings: Settings, endpoints: Endpoints) -> WorkNode:
    """The parts of a worker, its database started; the caller stops it."""
    db = open_database(settings, endpoints)
    await db.start()
    me = await find_self(db)
    collect_seldom()
    take_short_turns()
    return WorkNode(
        db=db, redis_url=endpoints.redis_url, name=me.name, origin=me.origin, seal=audit.seal,
        role=settings.role, data_dir=settings.data_dir, content=content_plane(settings),
        sync=settings.sync, files=settings.files, webhooks=settings.webhooks,
    )  # fmt: skip


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI entry; the program is assembled when the server starts its life."""
    await _served()(scope, receive, send)


@cache
def _served() -> Litestar:
    settings = load()
    logs.configure(level=settings.log_level)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        die_with(parent.pid)
    path = os.environ.get(ENDPOINTS_VARIABLE)
    if not path:
        raise Misconfigured(f"{ENDPOINTS_VARIABLE} is not set; start the node with `nexus up`.")
    app = http_app(http_node(settings, read_endpoints(Path(path))))
    collect_seldom()
    take_short_turns()
    return app


def _sessions(db: Database, settings: Settings, me: Self) -> Sessions:
    return Sessions(
        db, origin=me.origin, node_prefix=me.prefix, idle_minutes=settings.login.idle_minutes
    )


def _write_private(path: Path, body: bytes, *, replace: bool = True) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    try:
        if replace:
            draft.replace(path)
        else:
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
