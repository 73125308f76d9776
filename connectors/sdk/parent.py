"""Whoever wants a reading starts a child for it and gets frames; a dead child is a named refusal.

Frames are pulled: a slow taker stops the child at its pipe, so memory is flat on both sides.
Leaving the generator early kills the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import msgspec

from connectors.sdk.contract import (
    Done,
    Failed,
    Fault,
    Found,
    Frame,
    Mapping,
    Progress,
    Refused,
    Rows,
)

FRAME_MAX = 64 << 20
_ROOT = Path(__file__).resolve().parents[2]
_LENGTH = struct.Struct(">I")
_decode = msgspec.msgpack.Decoder(Frame).decode


async def inspect(system: str, path: Path, learned: dict[str, str]) -> Found:
    """What a file holds and how it might be read. Raises Refused."""
    async for frame in _run("inspect", system, path, msgspec.json.encode(learned)):
        if isinstance(frame, Found):
            return frame
    raise _died("no answer")


async def read(system: str, path: Path, mapping: Mapping) -> AsyncIterator[Rows | Progress | Done]:
    """The frames of a reading, its end last. Raises Refused."""
    async with contextlib.aclosing(
        _run("read", system, path, msgspec.json.encode(mapping))
    ) as frames:
        async for frame in frames:
            if not isinstance(frame, Found | Failed):
                yield frame


async def _run(action: str, system: str, path: Path, given: bytes) -> AsyncGenerator[Frame, None]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", _START, str(_ROOT), action, system, str(path.absolute()),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL, env={"LC_ALL": "C.UTF-8"}, cwd="/",
        start_new_session=True,
    )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None, "pipes were asked for"
    try:
        child.stdin.write(given)
        with contextlib.suppress(ConnectionError):
            await child.stdin.drain()
        child.stdin.close()
        while True:
            try:
                size = _LENGTH.unpack(await child.stdout.readexactly(4))[0]
                if size > FRAME_MAX:
                    raise _died("a frame beyond all bounds")
                frame = _decode(await child.stdout.readexactly(size))
            except asyncio.IncompleteReadError as end:
                if end.partial or await child.wait():
                    raise _died(f"exit code {await child.wait()}") from None
                return
            if isinstance(frame, Failed):
                raise Refused(frame.fault)
            yield frame
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


# Isolated from the environment and the folder it is started in, so that only we are imported.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'child'; "
    "from connectors.sdk.child import main; sys.exit(main())"
)


def _died(how: str) -> Refused:
    return Refused(Fault("reader-died", "an input that can be read within its limits", how))
