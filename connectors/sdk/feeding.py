"""Whoever wants a feed written starts a child for it and gives it offers as they come."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from connectors.sdk.contract import Fault, Refused
from connectors.sdk.feeds import Begin, Broken, Counts, Left, Offer, Offers, Order, Piece, Written

_ROOT = Path(__file__).resolve().parents[2]
_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Written).decode
# Isolated from the environment and the folder it is started in, so that only we are imported.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'child'; "
    "from connectors.sdk.feed_child import main; sys.exit(main())"
)


async def write_feed(
    begin: Begin, blocks: AsyncIterator[list[Offer]]
) -> AsyncIterator[Piece | Left | Counts]:
    """The frames of one feed, its counts last. Raises Refused, and what the blocks raise.

    Both pipes are slow in turn: the blocks are pulled as the child takes them, and the child waits
    for whoever takes its pieces.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", _START, str(_ROOT), stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={"LC_ALL": "C.UTF-8"}, cwd="/", start_new_session=True,
    )  # fmt: skip
    giving = asyncio.create_task(_give(child, begin, blocks))
    try:
        async for frame in _frames(child, giving):
            yield frame
    finally:
        giving.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await giving
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _give(
    child: asyncio.subprocess.Process, begin: Begin, blocks: AsyncIterator[list[Offer]]
) -> None:
    assert child.stdin is not None, "pipes were asked for"

    async def send(order: Order) -> None:
        assert child.stdin is not None, "pipes were asked for"
        data = _encode(order)
        child.stdin.write(_LENGTH.pack(len(data)) + data)
        await child.stdin.drain()

    try:
        await send(begin)
        async for block in blocks:
            await send(Offers(block))
    except ConnectionError:
        # A child that has refused no longer listens; what it said is still to be read.
        return
    except BaseException:
        # Half of the offers is no feed: the child must not take their end for the whole.
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        raise
    child.stdin.close()


async def _frames(
    child: asyncio.subprocess.Process, giving: asyncio.Task[None]
) -> AsyncIterator[Piece | Left | Counts]:
    assert child.stdout is not None, "pipes were asked for"
    while True:
        try:
            size = _LENGTH.unpack(await child.stdout.readexactly(4))[0]
            frame: Written = _decode(await child.stdout.readexactly(size))
        except asyncio.IncompleteReadError:
            if giving.done():
                giving.result()
            else:
                await giving
            how = f"exit code {await child.wait()}"
            raise Refused(Fault("writer-died", "a feed that can be written", how)) from None
        if isinstance(frame, Broken):
            raise Refused(frame.fault)
        yield frame
        if isinstance(frame, Counts):
            return
