"""Start units in order, restart what dies, stop in reverse, leave nothing behind.

Promises: one supervisor per data folder (a lock names the other's pid); a unit counts as started
when its probe says so; a unit that dies is restarted with back-off; SIGINT and SIGTERM stop all
in reverse order, each with its own signal and grace; when the supervisor itself is killed the
kernel kills its children, and the next start waits for the last of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.base import logs
from appliance.base.errors import Misconfigured, Unavailable
from appliance.runtime.account import Account, child_setup, give

LOG_BYTES_MAX = 20 * 1024 * 1024
BACKOFF_MAX_S = 15.0
STEADY_S = 20.0


@dataclass(slots=True)
class Unit:
    """One process to keep alive. `probe` waits until it is ready or raises Unavailable."""

    name: str
    argv: Sequence[str]
    account: Account
    probe: Callable[[], Awaitable[None]]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 20.0
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0


class Supervisor:
    """Units of one node."""

    def __init__(self, data: Path, account: Account) -> None:
        self.data = data
        self.account = account
        self._units: list[Unit] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._lock: int | None = None
        self._stopping = False

    def lock(self) -> None:
        """Take the data folder. Raises Misconfigured with the pid of who has it."""
        path = self.data / "nexus.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = os.read(descriptor, 20).decode().strip() or "unknown"
            os.close(descriptor)
            raise Misconfigured(
                f"A node is running over {self.data} already (process {other}). Stop it first, or "
                "use another folder with --data."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._lock = descriptor

    def unlock(self) -> None:
        """Give the data folder back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def start(self, unit: Unit) -> None:
        """Start one unit, wait until it is ready, watch it from then on. Raises Unavailable."""
        deadline = time.monotonic() + 60
        while True:
            await self._spawn(unit)
            if await self._became_ready(unit):
                break
            # Backends of a killed server hold its shared memory for a moment: try again.
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{unit.name} did not start; see log/{unit.name}.log in {self.data}.",
                    dependency=unit.name,
                )
            await asyncio.sleep(0.4)
        self._units.append(unit)
        self._watchers.append(asyncio.create_task(self._watch(unit), name=f"watch-{unit.name}"))

    async def _became_ready(self, unit: Unit) -> bool:
        process = unit.process
        assert process is not None, "spawned before"
        ready = asyncio.ensure_future(unit.probe())
        died = asyncio.ensure_future(process.wait())
        done, _ = await asyncio.wait({ready, died}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ready, died):
            if task not in done:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if ready in done and died not in done:
            ready.result()
            return True
        if ready in done:
            ready.exception()
        return False

    async def _spawn(self, unit: Unit) -> None:
        folder = self.data / "log"
        folder.mkdir(exist_ok=True)
        path = folder / f"{unit.name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as sink:
            give(self.account, path, 0o640)
            unit.process = await asyncio.create_subprocess_exec(
                *unit.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd="/",
                env=dict(unit.env),
                preexec_fn=child_setup(unit.account),
            )

    async def _watch(self, unit: Unit) -> None:
        delay = 0.2
        while not self._stopping:
            process, began = unit.process, time.monotonic()
            assert process is not None, "spawned before"
            code = await process.wait()
            if self._stopping:
                return
            unit.restarts += 1
            if time.monotonic() - began > STEADY_S:
                delay = 0.2
            logs.event(
                "unit.died", level="warning", service=unit.name, status=code, attempt=unit.restarts
            )
            self._kill_group(process.pid)
            await asyncio.sleep(delay)
            delay = min(delay * 2, BACKOFF_MAX_S)
            with contextlib.suppress(OSError):
                await self._spawn(unit)

    async def stop(self) -> None:
        """Stop all units in reverse order; a unit that outlives its grace is killed."""
        self._stopping = True
        for unit in reversed(self._units):
            await self._stop_unit(unit)
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._units.clear()
        self._watchers.clear()
        self._stopping = False

    async def _stop_unit(self, unit: Unit) -> None:
        process = unit.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(unit.stop_signal)
        try:
            await asyncio.wait_for(process.wait(), unit.grace_s)
        except TimeoutError:
            logs.event("unit.killed", level="warning", service=unit.name)
        self._kill_group(process.pid)
        await process.wait()

    @staticmethod
    def _kill_group(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
