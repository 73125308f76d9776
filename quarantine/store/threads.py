"""Work in a thread that is waited for even when the request that asked for it is cancelled.

A thread cannot be stopped. Whoever is cancelled while one runs must not go on as if it had not:
it may still be opening, writing or closing a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(do: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
    """`do` in a thread. When cancelled meanwhile: wait for it, `undo` its result, be cancelled."""
    running = asyncio.ensure_future(asyncio.to_thread(do))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return running.result()
    if running.exception() is None and undo is not None:
        undo(running.result())
    raise cancelled
