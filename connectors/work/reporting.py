"""The node hears how the sources stand, and what people want of them is heard.

One question for all sources, every few seconds and soon after something happened. A node that is
away costs nothing: sources wait until it says again that they are this worker's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

from connectors.sdk.retry import Policy, Trouble, wait_before
from connectors.sdk.wire import TELL_S, SourcesTold
from connectors.work.node import Node
from connectors.work.told import tell
from connectors.work.watching import Watched

# News of a source that is looked at every second is gathered for so long.
GATHER_S = 1.0
_LEAVE_S = 5.0
_AWAY = Policy(first_s=2.0, most_s=30.0)


async def report(
    node: Node, instance: str, watched: Sequence[Watched], *, is_leaving: bool = False
) -> float:
    """Tell and hear once; seconds until it is to be said again. Raises Trouble."""
    told = {w.source.key: w.tell() for w in watched}
    # By the clock, so that it goes on growing in the next process.
    no = time.time_ns() // 1_000_000
    said = SourcesTold(node.name, instance, tuple(told.values()), no, is_leaving)
    wishes = await node.tell_sources(said)
    by_key = {wish.key: wish for wish in wishes.sources}
    for one in watched:
        if (wish := by_key.get(one.source.key)) is not None:
            one.hear(wish, wishes.lease_s, told[one.source.key])
    return wishes.tell_s


async def take_leave(node: Node, instance: str, watched: Sequence[Watched]) -> None:
    """Let go of the sources, if the node can be told so now."""
    with contextlib.suppress(Trouble, TimeoutError):
        async with asyncio.timeout(_LEAVE_S):
            await report(node, instance, watched, is_leaving=True)


async def report_always(
    node: Node, instance: str, watched: Sequence[Watched], news: asyncio.Event
) -> None:
    """Until it is cancelled."""
    failed = 0
    while True:
        news.clear()
        try:
            pause = min(TELL_S, await report(node, instance, watched))
            failed = 0
        except Trouble as trouble:
            failed += 1
            pause = max(_AWAY.first_s, wait_before(_AWAY, failed, trouble.after_s))
            tell("report.failed", code=trouble.code, detail=trouble.detail, pause_s=round(pause))
            await asyncio.sleep(pause)
            continue
        await asyncio.sleep(GATHER_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, pause - GATHER_S)):
                await news.wait()
