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
        self._is_busy = False

    async def run(
        self, work: Callable[..., T], *args: object, late: Callable[[T], object] | None = None,
        **named: object,
    ) -> T:  # fmt: skip
        """Do it in a thread. `late` is given what comes when nobody waits for it any more.

        Raises Trouble while a former call has not come back, and whatever the work raises.
        """
        if self._is_busy:
            raise Trouble("still-hanging", "the last question to this place has no answer yet")
        self._is_busy = True
        return await _start(functools.partial(work, *args, **named), late, self._free)

    async def close(self, work: Callable[[], object]) -> None:
        """End what hangs, beside it."""
        await _start(work, None, lambda: None)

    def _free(self) -> None:
        self._is_busy = False


async def _start(
    work: Callable[[], T], late: Callable[[T], object] | None, ended: Callable[[], None]
) -> T:
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
        ended()
        # A loop that has ended awaits nothing.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, value, failed)

    threading.Thread(target=go, daemon=True).start()
    found: T = await future
    return found


def _start_quietly(work: Callable[[], object]) -> None:
    def go() -> None:
        with contextlib.suppress(Exception):
            work()

    threading.Thread(target=go, daemon=True).start()
