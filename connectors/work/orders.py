"""Orders from the node into a base of 1C, one after the other, each confirmed in its own version.

A kill between writing and confirming brings the order again, and it is found as it was written.
What is wrong with one order holds up no other one; the node goes on to tell it until it is right.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

from connectors.onec.client import Base
from connectors.onec.due import Order, read_orders
from connectors.onec.memory import Memory
from connectors.onec.orders import Writer
from connectors.onec.place import OneCPlace, open_base, profile_of
from connectors.sdk.retry import Policy, Trouble, wait_before
from connectors.work.node import Node
from connectors.work.settings import Misconfigured, Source, Worker
from connectors.work.told import tell

_OF_ONE = ("refused-by-1c", "not-confirmed")
_IDLE = Policy(first_s=2.0, most_s=300.0)


async def write_always(worker: Worker, source: Source, *, is_once: bool = False) -> int:
    """Write what is due, again and again; with `is_once` once: how many have failed then. Told to
    stop, it ends behind the order that it is at, and gives the seat in 1C back.

    Raises Misconfigured; with `is_once` also Trouble.
    """
    place = source.place
    if not isinstance(place, OneCPlace) or place.orders is None:
        raise Misconfigured(f"source {source.key}: its place has no orders = {{ … }}")
    node, stop = Node(worker, ""), asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    tried = failed = 0
    try:
        while not stop.is_set():
            pause = place.orders.every_s
            try:
                failed, tried = await write_due(node, source, place, stop), 0
            except Trouble as trouble:
                if is_once:
                    raise
                tried += 1
                tell("orders.failed", source=source.key, code=trouble.code, detail=trouble.detail)
                pause = wait_before(_IDLE, tried, trouble.after_s)
            if is_once:
                return failed
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
    finally:
        await node.close()
    return 0


async def write_due(node: Node, source: Source, place: OneCPlace, stop: asyncio.Event) -> int:
    """Every order that is due, once; how many of them are wrong for good. Raises Trouble.

    1C is signed in to only when there is something to write.
    """
    after, failed = "", 0
    orders, after = read_orders(await node.due_orders(source.name, after))
    if not orders:
        return 0
    writer, memory, base = await asyncio.to_thread(_open, place)
    try:
        while orders:
            failed += await _write_page(node, source, writer, orders, stop)
            if not after or stop.is_set():
                break
            orders, after = read_orders(await node.due_orders(source.name, after))
    finally:
        memory.close()
        await asyncio.to_thread(base.close)
    return failed


async def _write_page(
    node: Node, source: Source, writer: Writer, orders: list[Order], stop: asyncio.Event
) -> int:
    done: dict[str, str] = {}
    failed = 0
    try:
        for order in orders:
            if stop.is_set():
                break
            try:
                what = await asyncio.to_thread(writer.write, order)
            except Trouble as trouble:
                # What 1C says of this document is about this one; all else is about all of them.
                is_own = trouble.is_permanent or trouble.code in _OF_ONE
                if not is_own or trouble.code.startswith("http-40"):
                    raise
                failed += 1
                tell("order.failed", source=source.key, order=order.id, code=trouble.code,
                     detail=trouble.detail)  # fmt: skip
                continue
            done[order.id] = order.version
            tell("order.told", source=source.key, order=order.id, what=what)
    finally:
        if done:
            await node.confirm_orders(done)
    return failed


def _open(place: OneCPlace) -> tuple[Writer, Memory, Base]:
    profile = profile_of(place)
    if profile.orders is None or place.orders is None:
        text = f"the profile {profile.key} does not say how orders are written"
        raise Trouble("profile-differs", text, is_permanent=True)
    memory = Memory(Path(f"{place.memory_file}.orders"))
    base = open_base(place)
    return Writer(base, memory, profile.orders, place.orders), memory, base
