"""The agent of a site: one conversation with the hub for each tenant, for as long as there is a hub.

Promises: of all workers of a node one is the agent, by an advisory lock of the control database,
and a dead one is replaced as soon as its connection ends; it begins when the node joins a hub,
also while it runs, and rests while the node is paused; a commit here is on its way within
milliseconds, whatever the hub is saying meanwhile; every failure is waited out with jitter and
holds up no other tenant; it keeps no state, so a kill anywhere is a repetition.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import psycopg
import redis.asyncio as aioredis
from psycopg_pool import PoolTimeout

from appliance.base import logs
from appliance.base.errors import ApplianceError, Limited, Unauthenticated, Unavailable
from appliance.base.pause import pause
from appliance.base.settings import SyncSettings
from appliance.content import ContentPlane
from appliance.db.database import Database
from appliance.sync import messages as say
from appliance.sync.blobs import is_asked, run_lane
from appliance.sync.checking import DIFFERED
from appliance.sync.health import HealthBook, take_now
from appliance.sync.keys import KeyFile
from appliance.sync.nodes import find_self, hub_of
from appliance.sync.pace import BackOff
from appliance.sync.purge import Tools, proved, purge
from appliance.sync.site import Parts, Talk
from appliance.sync.wake import Ear, Waker

AGENT_KEY = 0x4E78_5379_6E63_4167
LOOK_S = 2.0
FUTILE_S, FUTILE_MAX_S = 1.0, 20.0
PAUSE_FILE = "sync.paused"
_TRY = "SELECT pg_try_advisory_lock(%s)"
_FREE = "SELECT pg_advisory_unlock(%s)"


def is_paused(data: Path, settings: SyncSettings) -> bool:
    """Whether this node was told to keep still: by its settings or by `nexus sync pause`."""
    return settings.pause or (data / PAUSE_FILE).exists()


def set_paused(data: Path, *, paused: bool) -> None:
    """Keep still from the next look on, or no more; outlives a restart."""
    path = data / PAUSE_FILE
    if paused:
        path.touch(mode=0o644)
    else:
        path.unlink(missing_ok=True)


@dataclass(kw_only=True)
class Agent:
    """One per worker process; `follow` works when it holds the lock."""

    db: Database
    redis: aioredis.Redis
    waker: Waker
    data: Path
    settings: SyncSettings = field(default_factory=SyncSettings)
    plane: ContentPlane | None = None
    forget_files: Callable[[UUID], None] | None = None
    transport: httpx.AsyncBaseTransport | None = None
    is_leading: bool = False
    loops: dict[UUID, TenantLoop] = field(default_factory=dict)
    _running: dict[UUID, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = KeyFile(self.data)
        self.health = HealthBook(self.redis)

    async def follow(self, stop: asyncio.Event) -> None:
        """Until `stop`: lead when there is a hub and nobody else does."""
        while not stop.is_set():
            try:
                if await self._wanted():
                    await self._try_to_lead(stop)
            except (psycopg.Error, PoolTimeout, ApplianceError, OSError) as error:
                logs.event("sync.database_down", level="warning", error_type=type(error).__name__)
            await pause(stop, LOOK_S)

    async def parts(self) -> Parts | None:
        """The node itself and its hub, as they are now; None without a hub."""
        hub, me = await hub_of(self.db), await find_self(self.db)
        if hub is None or me is None or not hub.url or hub.public_key is None:
            return None
        return Parts(
            db=self.db, me=me, hub=hub, key=self.keys.current(), transport=self.transport,
            max_bytes=self.settings.max_bytes, states_after=self.settings.states_after,
        )  # fmt: skip

    async def _wanted(self) -> list[UUID]:
        """The tenants to speak of; none while the node is paused or has no hub."""
        if is_paused(self.data, self.settings) or await self.parts() is None:
            return []
        return [route.tenant for route in self.db.routes.all() if route.state == "active"]

    async def _try_to_lead(self, stop: asyncio.Event) -> None:
        async with self.db.control.connection() as conn:
            row: Any = await (await conn.execute(_TRY, (AGENT_KEY,))).fetchone()
            if not row or not row[0]:
                return
            self.is_leading = True
            logs.event("sync.agent_leading")
            try:
                while not stop.is_set() and (wanted := await self._wanted()):
                    await self._keep_running(wanted, stop)
                    await pause(stop, LOOK_S)
                    # The lock lives and dies with this connection: is it still there?
                    await conn.execute("SELECT 1")
            finally:
                self.is_leading = False
                await self._keep_running([], stop)
                if not conn.closed:
                    with contextlib.suppress(psycopg.Error):
                        await conn.execute(_FREE, (AGENT_KEY,))

    async def _keep_running(self, wanted: list[UUID], stop: asyncio.Event) -> None:
        ended = [t for t, task in self._running.items() if t not in wanted or task.done()]
        tasks = [self._running.pop(tenant) for tenant in ended]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for tenant in wanted:
            if tenant not in self._running:
                loop = self.loops[tenant] = TenantLoop(self, tenant)
                self._running[tenant] = asyncio.create_task(loop.follow(stop), name="sync")


class TenantLoop:
    """The conversations about one tenant, one after the other."""

    def __init__(self, agent: Agent, tenant: UUID) -> None:
        self._agent, self._tenant = agent, tenant
        self.back = BackOff()
        self._hub = 0

    async def follow(self, stop: asyncio.Event) -> None:
        """Until `stop`; a failure ends a conversation and delays the next one."""
        with self._agent.waker.listen(self._tenant) as ear:
            while not stop.is_set():
                least_s = 0.0
                try:
                    await self._talk(ear, stop)
                    continue
                except ApplianceError as error:
                    code = error.code
                    if isinstance(error, (Unavailable, Limited)):
                        least_s = error.retry_after_s
                    if isinstance(error, Unauthenticated) and not self.back.failures:
                        # A session ends with its hours, or with the hub's word; a new one says.
                        self.back.failures = 1
                        continue
                except Exception as error:  # noqa: BLE001 - whatever it is, the next try may do
                    code = type(error).__name__
                wait_s = self.back.next_s(least_s)
                await self._note_failure(code, wait_s)
                await self._rest(wait_s, ear, stop)

    async def _talk(self, ear: Ear, stop: asyncio.Event) -> None:
        parts = await self._agent.parts()
        if parts is None:
            await pause(stop, LOOK_S)
            return
        self._hub = parts.hub.origin
        talk = Talk(parts, self._tenant)
        try:
            await self._begin(talk)
            futile, moved, clock = 0, -1, asyncio.get_running_loop().time
            while not stop.is_set():
                began = clock()
                await talk.catch_up()
                self.back.succeed()
                await self._note(talk)
                if not talk.must_purge:
                    await self._compare(talk)
                if not await self._move_files(talk):
                    await self._wait(talk, ear, stop)
                # A hub that has news all the time which are none must not be asked all the time.
                is_futile = talk.moved == moved and clock() - began < FUTILE_S
                futile, moved = futile + 1 if is_futile else 0, talk.moved
                await pause(stop, min(FUTILE_S * futile, FUTILE_MAX_S))
        finally:
            await talk.close()

    async def _compare(self, talk: Talk) -> None:
        """Streams that are to be compared; what differed is shown with the peer's state."""
        if await talk.checking.check_asked():
            await self._agent.health.note(self._tenant, self._hub, notices=DIFFERED)

    async def _begin(self, talk: Talk) -> None:
        welcome = await talk.greet()
        if talk.must_purge:
            await talk.catch_up()
            await self._purge(talk)
        off = [n.value for n in welcome.notices if n.code == say.CLOCK_OFF]
        logs.event(
            "sync.greeted", tenant=self._tenant, count=len(welcome.streams),
            schema_rev=welcome.tenant.schema_rev,
        )  # fmt: skip
        await self._agent.health.note(
            self._tenant, self._hub, protocol=welcome.protocol, clock_off_s=off[0] if off else 0,
            notices=" ".join(sorted({n.code for n in welcome.notices})), failures=0,
        )  # fmt: skip

    async def _move_files(self, talk: Talk) -> bool:
        """Files for as long as one question takes; whether there are more. A content plane that is
        away holds up no record.
        """
        agent = self._agent
        if agent.plane is None or talk.must_purge:
            return False
        try:
            moved = await run_lane(
                agent.db, talk.client.blob_link(), agent.plane, self._tenant,
                budget_bytes=talk.client.pace.size, keep_bytes=agent.settings.file_bytes_max,
            )  # fmt: skip
        except Unavailable as error:
            if error.dependency == "hub":
                raise
            logs.event("sync.files_wait", level="warning", tenant=self._tenant, code=error.code)
            return False
        return moved.more

    async def _purge(self, talk: Talk) -> None:
        """What the hub took back goes, once it has what was made here; the hub hears the proof."""
        agent = self._agent
        key, hub = agent.keys.current(), talk.hub
        tools = Tools(
            hub=hub.origin, sign=key.sign, plane=agent.plane, events=agent.redis,
            forget_files=agent.forget_files,
        )  # fmt: skip
        proof = await purge(agent.db, self._tenant, tools)
        if proof is not None:
            await talk.greet(msgspec.msgpack.encode(proof))
            await proved(agent.db, self._tenant, proof)

    async def _wait(self, talk: Talk, ear: Ear, stop: asyncio.Event) -> None:
        """Wait at the hub, and send meanwhile what is written here."""
        hold_s = self._agent.settings.hold_seconds * random.uniform(0.95, 1.0)  # noqa: S311
        waiting = asyncio.create_task(talk.wait(hold_s))
        try:
            while not stop.is_set() and not waiting.done():
                ringing = asyncio.create_task(ear.wait(self._agent.settings.poll_seconds))
                await asyncio.wait({waiting, ringing}, return_when=asyncio.FIRST_COMPLETED)
                ringing.cancel()
                ear.take()
                if waiting.done():
                    break
                at_once = ringing.done() and await take_now(self._agent.redis, self._tenant)
                if at_once or await talk.has_pending():
                    await talk.catch_up(anyway=at_once)
                    await self._note(talk)
                if self._agent.plane is not None and await is_asked(self._agent.db, self._tenant):
                    # Somebody waits for a file: it is fetched before the hub is listened to again.
                    return
            if waiting.done():
                waiting.result()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _rest(self, wait_s: float, ear: Ear, stop: asyncio.Event) -> None:
        """Stay away so long, or until somebody says that it should be now."""
        end = asyncio.get_running_loop().time() + wait_s
        while not stop.is_set() and (left := end - asyncio.get_running_loop().time()) > 0:
            if await ear.wait(min(left, LOOK_S)) and await take_now(
                self._agent.redis, self._tenant
            ):
                return

    async def _note(self, talk: Talk) -> None:
        sent, received = talk.client.count.take()
        await self._agent.health.note(
            self._tenant, self._hub, sent=sent, received=received, lag=talk.lag, failures=0
        )

    async def _note_failure(self, code: str, wait_s: float) -> None:
        logs.event(
            "sync.talk_failed", level="warning", tenant=self._tenant, code=code,
            attempt=self.back.failures, waited_ms=round(wait_s * 1000),
        )  # fmt: skip
        await self._agent.health.fail(self._tenant, self._hub, code, self.back.failures)
