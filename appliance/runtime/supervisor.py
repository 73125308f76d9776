"""Start units in order, restart what dies, stop in reverse, leave nothing behind.

Promises: one supervisor per data folder (a lock names the other's pid); a unit counts as started
when its probe says so; a unit that dies is restarted with back-off; stopping goes in reverse
order, each unit with its own signal and grace, and nothing is restarted meanwhile; when the
supervisor itself is killed the kernel signals its children, and the next start waits for the
last of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.base import logs
from appliance.base.errors import ApplianceError, Misconfigured, Unavailable
from appliance.runtime.account import Account, child_setup, give
from appliance.runtime.logfiles import rotate

LOG_BYTES_MAX = 20 * 1024 * 1024
LOG_CHECK_S = 5.0
START_S = 30.0
RETRY_S = 0.4
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.2, 15.0
STEADY_S = 20.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Unit:
    """One process to keep alive.

    `probe` returns when it is ready or raises; `clear` comes before every start and after a
    forced end, and waits for what an earlier life left; with `wait=False` nobody waits for the
    unit. `log_path` is `<data>/log/<name>.log` unless given; `pass_fds` are inherited sockets.
    """

    name: str
    argv: Sequence[str]
    account: Account
    probe: Callable[[], Awaitable[None]]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 20.0
    death_signal: signal.Signals = signal.SIGKILL
    clear: Callable[[], Awaitable[None]] | None = None
    wait: bool = True
    log_path: Path | None = None
    pass_fds: Sequence[int] = ()
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0


class Supervisor:
    """Units of one node. `report` takes an event's name and keys, as logs.event does."""

    def __init__(
        self, data: Path, account: Account, *, report: Callable[..., None] = logs.event
    ) -> None:
        self.data = data.absolute()
        self.account = account
        self._report = report
        self._units: list[Unit] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._lock: int | None = None
        self._stopping = asyncio.Event()

    def lock(self) -> None:
        """Take the data folder. Raises Misconfigured with the pid of who has it."""
        path = self.data / "nexus.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
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
        """Start one unit, wait until it is ready, watch it from then on. Raises Unavailable.

        A unit that does not become ready is stopped before this raises.
        """
        self._units.append(unit)
        try:
            await self._bring_up(unit)
        except BaseException:
            self._units.remove(unit)
            await self._stop_unit(unit)
            raise
        if not self._watchers:
            self._watchers.append(asyncio.create_task(self._keep_logs(), name="keep-logs"))
        self._watchers.append(asyncio.create_task(self._watch(unit), name=f"watch-{unit.name}"))

    async def _bring_up(self, unit: Unit) -> None:
        deadline = time.monotonic() + START_S
        while True:
            await self._spawn(unit)
            if not unit.wait or await self._became_ready(unit):
                return
            # Where `clear` may not look, a killed server's children still hold its memory.
            if time.monotonic() > deadline or self._stopping.is_set():
                raise Unavailable(
                    f"{unit.name} did not start; see log/{unit.name}.log in {self.data}.",
                    dependency=unit.name,
                )
            await asyncio.sleep(RETRY_S)

    async def _became_ready(self, unit: Unit) -> bool:
        """Wait for the probe; False when the unit died first or everything stops."""
        return await _race(self._stopping.wait(), _living(unit).wait(), _call(unit.probe)) == 2

    async def _spawn(self, unit: Unit) -> None:
        if unit.clear is not None:
            await unit.clear()
        path = self._log_of(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_name(f"{path.name}.1"))
        with path.open("ab") as sink:
            give(self.account, path, 0o640)
            unit.process = await asyncio.create_subprocess_exec(
                *unit.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd="/",
                env=dict(unit.env),
                pass_fds=tuple(unit.pass_fds),
                preexec_fn=child_setup(unit.account, unit.death_signal),
            )

    def _log_of(self, unit: Unit) -> Path:
        return unit.log_path or self.data / "log" / f"{unit.name}.log"

    async def _keep_logs(self) -> None:
        """Cut the logs of running units that have grown too long."""
        while await _race(self._stopping.wait(), asyncio.sleep(LOG_CHECK_S)) != 0:
            for unit in tuple(self._units):
                try:
                    found = await asyncio.to_thread(
                        rotate, self.account, self._log_of(unit), LOG_BYTES_MAX
                    )
                except OSError as failed:
                    self._report(
                        "unit.log_stuck", level="warning", service=unit.name,
                        error_type=type(failed).__name__,
                    )  # fmt: skip
                    continue
                if found:
                    self._report("unit.log_rotated", service=unit.name, outcome=found)

    async def _watch(self, unit: Unit) -> None:
        delay = BACKOFF_MIN_S
        while True:
            began = time.monotonic()
            if await _race(self._stopping.wait(), _living(unit).wait()) == 0:
                return
            unit.restarts += 1
            if time.monotonic() - began > STEADY_S:
                delay = BACKOFF_MIN_S
            self._report(
                "unit.died", level="warning", service=unit.name,
                status=_living(unit).returncode, attempt=unit.restarts,
            )  # fmt: skip
            _kill_group(unit)
            if await _race(self._stopping.wait(), asyncio.sleep(delay)) == 0:
                return
            delay = min(delay * 2, BACKOFF_MAX_S)
            if await _race(self._stopping.wait(), self._revive(unit)) == 0:
                return

    async def _revive(self, unit: Unit) -> None:
        """One try to start a dead unit again; when it fails the watch goes on to the next."""
        began = time.monotonic()
        try:
            await self._spawn(unit)
            ready = await self._became_ready(unit)
        except (OSError, ApplianceError) as failed:
            self._report(
                "unit.restart_failed", level="error", service=unit.name,
                error_type=type(failed).__name__, attempt=unit.restarts,
            )  # fmt: skip
            return
        if ready:
            took = round((time.monotonic() - began) * 1000)
            self._report("unit.restarted", service=unit.name, duration_ms=took)

    async def restart(self, unit: Unit) -> None:
        """End a unit that is being watched; its watch starts it again. Returns when it is ready."""
        before = _living(unit)
        await self._stop_unit(unit)
        while not self._stopping.is_set():
            if unit.process is not before and await self._became_ready(unit):
                return
            await asyncio.sleep(RETRY_S)

    async def stop(self) -> None:
        """Stop all units in reverse order; a unit that outlives its grace is killed."""
        self._stopping.set()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for unit in reversed(self._units):
            await self._stop_unit(unit)
        self._units.clear()
        self._watchers.clear()
        self._stopping.clear()

    async def _stop_unit(self, unit: Unit) -> None:
        process = unit.process
        if process is None:
            return
        if process.returncode is not None:
            _kill_group(unit)  # It died by itself; what it started may live on.
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(unit.stop_signal)
        try:
            await asyncio.wait_for(process.wait(), unit.grace_s)
        except TimeoutError:
            self._report("unit.killed", level="warning", service=unit.name)
            _kill_group(unit)
            await process.wait()
            if unit.clear is not None:
                await unit.clear()
        _kill_group(unit)


async def wait_for_stop() -> signal.Signals:
    """Wait for SIGINT, SIGTERM or SIGHUP and say which.

    The handlers are gone afterwards, so that a second signal ends the process at once; the
    kernel then signals its children.
    """
    loop = asyncio.get_running_loop()
    came: asyncio.Future[signal.Signals] = loop.create_future()

    def note(sign: signal.Signals) -> None:
        if not came.done():
            came.set_result(sign)

    for sign in STOP_SIGNALS:
        loop.add_signal_handler(sign, note, sign)
    try:
        return await came
    finally:
        for sign in STOP_SIGNALS:
            loop.remove_signal_handler(sign)


def _living(unit: Unit) -> asyncio.subprocess.Process:
    assert unit.process is not None, "spawned before"
    return unit.process


def _kill_group(unit: Unit) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(_living(unit).pid, signal.SIGKILL)


async def _call(probe: Callable[[], Awaitable[None]]) -> None:
    await probe()


async def _race(*work: Coroutine[Any, Any, object]) -> int:
    """The index of the first that ended, the earlier one of two; the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = next(i for i, task in enumerate(tasks) if task.done())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    tasks[first].result()
    return first
