"""One run: fetch its file, parse it in the throw-away child, post what comes, frame by frame.

Frames are cut alike by the same program, so after a kill the next one leaves out those that the
node has. While the child works the node hears from us, or it would give the run to somebody else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from connectors.sdk import parent
from connectors.sdk.contract import (
    Done,
    Failed,
    Fault,
    Mapping,
    Progress,
    Refused,
    Rows,
)
from connectors.sdk.retry import Policy, Trouble
from connectors.sdk.wire import Taken
from connectors.work.node import LOST, Node
from connectors.work.told import tell

FRAME_BYTES_MAX = 4 << 20
_BEAT = Policy(tries=1, deadline_s=20.0)


class _State:
    """How far the reading of a run is."""

    def __init__(self) -> None:
        self.rows = self.total = 0


async def read_run(node: Node, taken: Taken, folder: Path) -> None:
    """Read a run to its end, whatever that is. Raises Trouble when the node is not reached."""
    state, path = _State(), None
    beat = asyncio.create_task(_beat(node, taken, state))
    try:
        async with asyncio.timeout(taken.budget.seconds):
            path = await node.fetch(taken, folder)
            await _read(node, taken, path, state)
        tell("run.read", run=str(taken.run), connector=taken.connector, rows=state.rows)
    except TimeoutError:
        most = f"a file that is read within {taken.budget.seconds} s"
        fault = Fault("time-budget", most, "more")
        await _refuse(node, taken, fault)
    except Refused as refused:
        await _refuse(node, taken, refused.fault)
    except Trouble as trouble:
        if trouble.code == LOST:
            tell("run.left", run=str(taken.run), why=trouble.detail)
            return
        if not trouble.is_permanent:
            raise
        # The node does not take what was read: nobody else would fare better.
        await _refuse(node, taken, Fault(trouble.code, "rows that the node takes", trouble.detail))
    finally:
        beat.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beat
        if path is not None:
            path.unlink(missing_ok=True)


async def _read(node: Node, taken: Taken, path: Path, state: _State) -> None:
    budget = taken.budget
    async with parent.open_input(
        taken.connector, path, memory=budget.memory_mb << 20, cpu_s=budget.cpu_s
    ) as reading:
        found = await reading.inspect(taken.learned)
        mapping, awaited = taken.mapping, taken.next
        if mapping is None:
            kept = await node.post(taken, 0, found)
            mapping, awaited = kept.mapping or Mapping(), kept.next
        no = 0
        async for frame in reading.read(mapping):
            if isinstance(frame, Progress):
                state.total = max(state.total, frame.total)
                continue
            for part in cut(frame):
                if no >= awaited:
                    await node.post(taken, no, part)
                no += 1
            state.rows += len(frame.rows) if isinstance(frame, Rows) else 0


async def _beat(node: Node, taken: Taken, state: _State) -> None:
    """Let the node know that we are alive, well before the lease ends."""
    while True:
        await asyncio.sleep(taken.lease_s / 5)
        try:
            await node.post(taken, 0, Progress(state.rows, max(state.total, state.rows)), _BEAT)
        except Trouble as trouble:
            # A lost lease is met by the next frame as well, and ends the run there.
            tell("beat.failed", run=str(taken.run), code=trouble.code)


async def _refuse(node: Node, taken: Taken, fault: Fault) -> None:
    tell("run.refused", run=str(taken.run), connector=taken.connector, code=fault.code)
    try:
        await node.post(taken, 0, Failed(fault))
    except Trouble as trouble:
        if not trouble.is_permanent:
            raise
        tell("run.left", run=str(taken.run), why=trouble.detail)


def cut(frame: Rows | Done) -> Iterator[Rows | Done]:
    """A frame in parts that the node takes in one body; the same frame is always cut alike."""
    size = len(msgspec.msgpack.encode(frame))
    if isinstance(frame, Done) or size <= FRAME_BYTES_MAX:
        yield frame
        return
    if len(frame.rows) == 1:
        row = frame.rows[0]
        expected = f"a row of at most {FRAME_BYTES_MAX} bytes"
        raise Refused(Fault("row-too-large", expected, f"{size} bytes", row.place))
    middle = len(frame.rows) // 2
    yield from cut(Rows(frame.rows[:middle]))
    yield from cut(Rows(frame.rows[middle:]))
