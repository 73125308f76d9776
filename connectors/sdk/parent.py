"""Whoever wants a reading starts a child for it and gets frames; a dead child is a named refusal.

Frames are pulled: a slow taker stops the child at its pipe, so memory is flat on both sides.
Leaving the input kills the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import struct
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import msgspec

from connectors.sdk.contract import (
    Done,
    Failed,
    Fault,
    Fetch,
    Found,
    Frame,
    Inspect,
    Mapping,
    Piece,
    Progress,
    Read,
    Refused,
    Request,
    Rows,
)

FRAME_MAX = 64 << 20
_ROOT = Path(__file__).resolve().parents[2]
_LENGTH = struct.Struct(">I")
_decode = msgspec.msgpack.Decoder(Frame | Piece).decode


class Reading:
    """A child with one open input. Raises Refused wherever the child does, or when it dies."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child
        self._is_giving = False

    async def inspect(self, learned: dict[str, str]) -> Found:
        """What the input holds and how it might be read; see contract.Inspect."""
        await self._ask(Inspect(learned))
        frame = await self._next()
        if isinstance(frame, Found):
            return frame
        raise _died("no answer")

    async def read(self, mapping: Mapping) -> AsyncIterator[Rows | Progress | Done]:
        """The frames of a reading, its end last."""
        await self._ask(Read(mapping))
        while True:
            frame = await self._next()
            if isinstance(frame, Rows | Progress | Done):
                yield frame
            if isinstance(frame, Done):
                return

    async def fetch(self, name: str) -> AsyncIterator[bytes]:
        """The bytes of a file that the input brings, by the name in a row; see contract.Fetch.

        Raises Refused where there is none of that name, or it is broken; others may be asked for.
        """
        await self._ask(Fetch(name))
        self._is_giving = True
        while data := await self._piece():
            yield data

    async def _piece(self) -> bytes:
        try:
            frame = await self._next()
        except Refused:
            self._is_giving = False
            raise
        if not isinstance(frame, Piece):
            raise _died("another answer")
        self._is_giving = bool(frame.data)
        return frame.data

    async def _ask(self, request: Request) -> None:
        # Of a file that nobody wanted to the end the rest is still on its way.
        with contextlib.suppress(Refused):
            while self._is_giving:
                await self._piece()
        assert self._child.stdin is not None, "pipes were asked for"
        data = msgspec.msgpack.encode(request)
        # A child that has refused its input no longer listens; what it said is still to be read.
        with contextlib.suppress(ConnectionError):
            self._child.stdin.write(_LENGTH.pack(len(data)) + data)
            await self._child.stdin.drain()

    async def _next(self) -> Frame | Piece:
        assert self._child.stdout is not None, "pipes were asked for"
        try:
            size = _LENGTH.unpack(await self._child.stdout.readexactly(4))[0]
            if size > FRAME_MAX:
                raise _died("a frame beyond all bounds")
            frame: Frame | Piece = _decode(await self._child.stdout.readexactly(size))
        except asyncio.IncompleteReadError:
            code = await self._child.wait()
            if code == -signal.SIGXCPU:
                fault = Fault(
                    "cpu-budget", "an input that is read within its processor time", "more"
                )
                raise Refused(fault) from None
            raise _died(f"exit code {code}") from None
        if isinstance(frame, Failed):
            raise Refused(frame.fault)
        return frame


@contextlib.asynccontextmanager
async def open_input(
    system: str, path: Path, *, memory: int = 0, cpu_s: int = 0
) -> AsyncGenerator[Reading, None]:
    """A child for one input, gone when this is left. `memory`: bytes it may have, `cpu_s`: seconds
    of processor time; 0 for what it takes by itself.
    """
    more = {"CONNECTOR_MEMORY": str(memory)} if memory else {}
    more |= {"CONNECTOR_CPU_S": str(cpu_s)} if cpu_s else {}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", _START, str(_ROOT), system, str(path.absolute()),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL, env={"LC_ALL": "C.UTF-8", **more}, cwd="/",
        start_new_session=True,
    )  # fmt: skip
    try:
        yield Reading(child)
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
