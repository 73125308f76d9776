"""A thread of its own for each source: who hangs, hangs alone.

A shared pool would be full of hanging endpoints after a few of them. Threads here are daemons, so
that one which waits for a dead server does not keep the program from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from connectors.sdk.retry import Trouble

T = TypeVar("T")


class Lane:
    """Blocking calls of one source, one at a time."""

    def __init__(self) -> None:
        self._busy: threading.Thread | None = None

    async def run(
        self, work: Callable[..., T], *args: object, late: Callable[[T], object] | None = None,
        **named: object,
    ) -> T:  # fmt: skip
        """Do it in a thread. `late` is given what comes when nobody waits for it any more.

        Raises Trouble while a former call has not come back, and whatever the work raises.
        """
        if self._busy is not None and self._busy.is_alive():
            raise Trouble("still-hanging", "the last question to this place has no answer yet")
        return await _start(self, functools.partial(work, *args, **named), late)

    async def close(self, work: Callable[[], object]) -> None:
        """End what hangs, beside it."""
        await _start(None, work, None)

    def note(self, thread: threading.Thread) -> None:
        """What this lane is at."""
        self._busy = thread


async def _start(lane: Lane | None, work: Callable[[], T], late: Callable[[T], object] | None) -> T:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error is not None else future.set_result(value)
        elif error is None and late is not None:
            _start_quietly(functools.partial(late, value))

    def go() -> None:
        value: Any = None
        failed: BaseException | None = None
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            failed = error
        # A loop that has ended awaits nothing.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, value, failed)

    thread = threading.Thread(target=go, daemon=True)
    if lane is not None:
        lane.note(thread)
    thread.start()
    found: T = await future
    return found


def _start_quietly(work: Callable[[], object]) -> None:
    def go() -> None:
        with contextlib.suppress(Exception):
            work()

    threading.Thread(target=go, daemon=True).start()
