"""The catch-up scheduler: what runs by the clock, once per node however many workers there are.

Promises: the leader is whoever holds an advisory lock of the control database on an open
connection, so a dead leader is replaced as soon as its connection ends; when a schedule ran
last is kept in `schedule_run`, so one missed during a stop runs once at the start and never
twice; a slow schedule does not delay another and does not overlap itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psycopg
from psycopg_pool import PoolTimeout

from appliance.base import logs
from appliance.base.errors import ApplianceError
from appliance.base.pause import pause
from appliance.base.roles import EVERYWHERE, Role, is_mounted
from appliance.db.database import Connection
from appliance.work.node import WorkNode

LEADER_KEY = 0x4E78_5363_6865_64
TICK_S = 0.25
RETRY_S = 1.0
# What runs oftener than this is not worth a row: it is due at once after any stop.
KEPT_FROM_S = 60.0

_TRY = "SELECT pg_try_advisory_lock(%s)"
_FREE = "SELECT pg_advisory_unlock(%s)"
_AGES = "SELECT name, extract(epoch FROM now() - last_at)::float8 FROM schedule_run"
_NOTE = (
    "INSERT INTO schedule_run (name, last_at, took_ms, outcome) VALUES (%s, now(), %s, %s) "
    "ON CONFLICT (name) DO UPDATE SET last_at = excluded.last_at, took_ms = excluded.took_ms, "
    "outcome = excluded.outcome"
)

Chore = Callable[[WorkNode], Awaitable[int]]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A chore and its period; `run` answers how many things it did."""

    name: str
    every_s: float
    run: Chore
    placed: frozenset[Role] = EVERYWHERE


class Scheduler:
    """One per worker process; only the leader's chores run."""

    def __init__(self, node: WorkNode, schedules: tuple[Schedule, ...]) -> None:
        self.is_leader = False
        self._node = node
        self._schedules = tuple(s for s in schedules if is_mounted(node.role, s.placed))
        self._next: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def follow(self, stop: asyncio.Event) -> None:
        """Lead when nobody else does, until `stop`."""
        while not stop.is_set():
            try:
                await self._try_to_lead(stop)
            except (psycopg.Error, PoolTimeout, ApplianceError, OSError) as error:
                logs.event(
                    "schedule.database_down", level="warning", error_type=type(error).__name__
                )
            await pause(stop, RETRY_S)

    async def _try_to_lead(self, stop: asyncio.Event) -> None:
        async with self._node.db.control.connection() as conn:
            row = await (await conn.execute(_TRY, (LEADER_KEY,))).fetchone()
            if not row or not row[0]:  # type: ignore[index]
                return
            self.is_leader = True
            logs.event("schedule.leading", worker=self._node.name)
            try:
                await self._lead(conn, stop)
            finally:
                self.is_leader = False
                await self._stop_chores()
                if not conn.closed:
                    with contextlib.suppress(psycopg.Error):
                        await conn.execute(_FREE, (LEADER_KEY,))

    async def _lead(self, conn: Connection, stop: asyncio.Event) -> None:
        known = await (await conn.execute(_AGES)).fetchall()
        ages: dict[str, float] = {r[0]: r[1] for r in known}  # type: ignore[index]
        at = time.monotonic()
        for s in self._schedules:
            self._next[s.name] = at + max(0.0, s.every_s - ages[s.name]) if s.name in ages else at
        checked = at
        while not stop.is_set():
            at = time.monotonic()
            if at - checked >= RETRY_S:
                # The lock lives and dies with this connection: is it still there?
                await conn.execute("SELECT 1")
                checked = at
            for s in self._schedules:
                if at >= self._next[s.name] and not self._is_running(s.name):
                    self._next[s.name] = at + s.every_s
                    self._running[s.name] = asyncio.create_task(self._run(s), name=s.name)
            await pause(stop, TICK_S)

    def _is_running(self, name: str) -> bool:
        task = self._running.get(name)
        return task is not None and not task.done()

    async def _run(self, schedule: Schedule) -> None:
        begun, outcome, count = time.monotonic(), "done", 0
        try:
            count = await schedule.run(self._node)
        except ApplianceError as error:
            outcome = error.code
        except Exception as error:  # noqa: BLE001 - one chore's fault must not end the others
            outcome = type(error).__name__
        took = int((time.monotonic() - begun) * 1000)
        if outcome != "done":
            logs.event(
                "schedule.failed", level="warning", job_kind=schedule.name, code=outcome,
                duration_ms=took,
            )  # fmt: skip
        elif count:
            logs.event("schedule.ran", job_kind=schedule.name, count=count, duration_ms=took)
        if schedule.every_s >= KEPT_FROM_S:
            with contextlib.suppress(psycopg.Error, PoolTimeout):
                async with self._node.db.control.connection() as conn:
                    await conn.execute(_NOTE, (schedule.name, took, outcome))

    async def _stop_chores(self) -> None:
        tasks = [t for t in self._running.values() if not t.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()
