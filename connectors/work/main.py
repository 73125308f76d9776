"""`python -m connectors work`: look at sources, take runs from the node, read them.

The worker knows a node by its address and a key; it has no route to a database and needs none, so
it may stand beside the 1C server in the accounting room.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

from connectors.sdk.manifest import list_systems
from connectors.sdk.retry import Policy, Trouble, wait_before
from connectors.work.node import Node
from connectors.work.pushing import serve
from connectors.work.reading import read_run
from connectors.work.reporting import report, report_always, take_leave
from connectors.work.settings import Worker, claimed, reader_digest
from connectors.work.standing import SETTLE_S
from connectors.work.told import tell
from connectors.work.watching import Watched, look_twice, watch

POLL_S = 2.0
_IDLE = Policy(first_s=POLL_S, most_s=60.0)


async def work(worker: Worker, *, is_once: bool = False) -> None:
    """Until told to stop; with `is_once` until every source was looked at twice and nothing waits."""
    with claimed(worker.data) as instance:
        for left in (worker.data / "in").iterdir():
            # Of a worker that was killed: what it was at is fetched again.
            left.unlink()
        node = Node(worker, reader_digest())
        tell("worker.started", worker=worker.name, sources=len(worker.sources),
             channels=len(worker.channels))  # fmt: skip
        try:
            if is_once:
                await _once(node, worker, instance)
            else:
                await _always(node, worker, instance)
        finally:
            await node.close()
            tell("worker.stopped", worker=worker.name)


async def _once(node: Node, worker: Worker, instance: str) -> None:
    watched = [Watched(s, worker.data, asyncio.Event()) for s in worker.sources]
    if watched:
        await report(node, instance, watched)
        looks = (look_twice(node, w, settle_s=min(w.source.every_s, SETTLE_S)) for w in watched)
        await asyncio.gather(*looks)
        await report(node, instance, watched, is_leaving=True)
    while await _take_one(node, worker.data):
        pass
    for channel in worker.channels:
        await serve(node, channel, worker.data, worker.name, looks=1)


async def _always(node: Node, worker: Worker, instance: str) -> None:
    loop, stop, news = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    watched = [Watched(s, worker.data, news) for s in worker.sources]
    tasks = [asyncio.create_task(_take_always(node, worker)) for _ in range(worker.runs_at_once)]
    if watched:
        tasks.append(asyncio.create_task(report_always(node, instance, watched, news)))
    tasks += [asyncio.create_task(watch(node, w)) for w in watched]
    tasks += [
        asyncio.create_task(serve(node, c, worker.data, worker.name)) for c in worker.channels
    ]
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
        if watched:
            await take_leave(node, instance, watched)


async def _take_always(node: Node, worker: Worker) -> None:
    failed = 0
    while True:
        try:
            if await _take_one(node, worker.data):
                failed = 0
                continue
            failed = 0
            await asyncio.sleep(POLL_S)
        except Trouble as trouble:
            # Also for good: a key may be given anew, a node come back; nobody is pressed meanwhile.
            failed += 1
            pause = max(POLL_S, wait_before(_IDLE, failed, trouble.after_s))
            tell("node.failed", code=trouble.code, detail=trouble.detail, pause_s=round(pause))
            await asyncio.sleep(pause)


async def _take_one(node: Node, data: Path) -> bool:
    taken = await node.take(list_systems())
    if taken is None:
        return False
    tell("run.taken", run=str(taken.run), connector=taken.connector, epoch=taken.epoch,
         next=taken.next)  # fmt: skip
    with contextlib.suppress(FileNotFoundError):
        await read_run(node, taken, data / "in")
    return True
