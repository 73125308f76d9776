"""The outer side of the sandbox: lanes of warm servers, one file at a time in each.

A file goes in as an open descriptor and never as a path. What comes out is a bounded answer, or
`Unscannable`: when the process of the file died, hung, said too much or nothing that can be read.
After any of that the whole lane is thrown away, with everything that may have been left in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec

from quarantine.contract import Policy
from quarantine.engines.base import Unscannable
from quarantine.sandbox.messages import (
    ANSWER_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    Answer,
    Ready,
    Request,
    decode_answer,
    decode_ended,
    decode_ready,
    encode,
)
from quarantine.sandbox.walls import bubblewrap_works, command, environment

START_S = 60.0
END_S = 2.0
_PIECE = 64 * 1024
_DEATHS = {
    signal.SIGXCPU: "used more processor time than it may",
    signal.SIGKILL: "was killed",
    signal.SIGABRT: "gave up inside a library",
    signal.SIGSEGV: "broke inside a library",
    signal.SIGXFSZ: "wrote more than it may",
}


class Sandbox:
    """Child processes for untrusted bytes; `lanes` files at a time.

    `modules` are the engines by module name, each with an `ENGINE`. `bubblewrap` None means: where
    it works. `paths` are further folders to import from, `readable` further ones to read, and
    `variables` go into its environment. Use as `async with`, or `close` it.
    """

    def __init__(
        self,
        modules: Sequence[str],
        scratch: Path,
        *,
        lanes: int = 2,
        bubblewrap: bool | None = None,
        paths: Sequence[Path] = (),
        readable: Sequence[Path] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.modules, self.scratch, self.paths = tuple(modules), scratch, tuple(paths)
        self.visible, self.variables = (*paths, *readable), dict(variables or {})
        self.age = 0
        self._bubblewrap = bubblewrap
        # First in, first out: a lane is cleared while the next file goes through another.
        self._free: asyncio.Queue[_Lane] = asyncio.Queue()
        self._lanes = [_Lane(self) for _ in range(lanes)]
        for lane in self._lanes:
            self._free.put_nowait(lane)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def warm(self) -> tuple[Ready, bool]:
        """Start all lanes: what they have loaded, and whether bubblewrap is around them."""
        readies = await asyncio.gather(*(lane.start() for lane in self._lanes))
        return readies[0], await self.is_walled()

    async def renew(self) -> Ready:
        """Have every lane begin anew before its next file; what a new one has loaded.

        Raises Unscannable when it cannot be started.
        """
        self.age += 1
        async with self._lane() as lane:
            return await lane.start()

    async def is_walled(self) -> bool:
        """Whether namespaces are around the child, and not only limits and the call filter."""
        if self._bubblewrap is None:
            self._bubblewrap = await bubblewrap_works()
        return self._bubblewrap

    async def inspect(
        self, path: Path, name: str, policy: Policy, *, sha256: str = "",
        seconds: float | None = None,
    ) -> Answer:  # fmt: skip
        """What the engines inside say of the file at `path`. Raises Unscannable.

        `sha256` is for those who see to it by themselves that it is the hash of these bytes.
        `seconds` of wall clock are counted from the moment a lane is free; default is the policy's.
        """
        async with self._lane() as lane:
            await lane.start()
            try:
                async with asyncio.timeout(seconds or policy.seconds_max):
                    return await lane.inspect(path, Request(name, policy, sha256))
            except TimeoutError:
                await lane.stop()
                raise Unscannable("The checks did not end in time.") from None
            except BaseException:
                await lane.stop()
                raise

    @contextlib.asynccontextmanager
    async def _lane(self) -> AsyncIterator[_Lane]:
        lane = await self._free.get()
        try:
            yield lane
        finally:
            self._free.put_nowait(lane)

    async def close(self) -> None:
        """End all children."""
        for lane in self._lanes:
            await lane.stop()


class _Lane:
    """One server; started when it is needed, thrown away after anything odd."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._scratch: Path | None = None
        self._ready: Ready | None = None
        self._ending = False
        self._age = 0

    async def start(self) -> Ready:
        """Have a server that is ready. Raises Unscannable when it cannot be had."""
        if self._ending:
            await self._clear()
        sandbox = self._sandbox
        if self._ready is not None and self._age == sandbox.age:
            return self._ready
        await self.stop()
        self._age = sandbox.age
        walled = await sandbox.is_walled()
        try:
            self._scratch = Path(tempfile.mkdtemp(prefix="lane-", dir=sandbox.scratch))
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            self._control = ours
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    *command(sandbox.modules, self._scratch, sandbox.visible, bubblewrap=walled),
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    env=environment(sandbox.paths, sandbox.variables),
                    cwd=self._scratch,
                    start_new_session=True,
                )
            async with asyncio.timeout(START_S):
                self._ready = decode_ready(await _receive(ours))
        except (OSError, TimeoutError, msgspec.MsgspecError):
            await self.stop()
            raise Unscannable("The sandbox of the checks cannot be started.") from None
        except BaseException:
            await self.stop()
            raise
        return self._ready

    async def _clear(self) -> None:
        """Have the last file's process gone, or the whole server."""
        try:
            async with asyncio.timeout(END_S):
                await self._see_end()
        except (TimeoutError, Unscannable):
            await self.stop()
        except BaseException:
            await self.stop()
            raise

    async def inspect(self, path: Path, request: Request) -> Answer:
        """One file through this server."""
        control = self._control
        assert control is not None
        answer, into = os.pipe()
        try:
            os.set_blocking(answer, False)
            try:
                with path.open("rb") as file:
                    socket.send_fds(control, [encode(request)], [file.fileno(), into])
            finally:
                os.close(into)
            data = await _read_all(answer)
            with contextlib.suppress(msgspec.MsgspecError):
                # A whole answer counts; that its process is gone is awaited before the next file.
                whole = decode_answer(data)
                self._ending = True
                return whole
            await self._see_end()
        except OSError:
            raise Unscannable("The process of the checks is gone.") from None
        finally:
            os.close(answer)
        raise Unscannable("The answer of the checks cannot be read.")

    async def _see_end(self) -> None:
        """Wait until the process of the last file is gone. Raises Unscannable if it died badly."""
        assert self._control is not None
        self._ending = False
        try:
            ended = decode_ended(await _receive(self._control))
        except (OSError, msgspec.MsgspecError):
            raise Unscannable("The process of the checks is gone.") from None
        if ended.status != 0:
            raise Unscannable(_obituary(ended.status))

    async def stop(self) -> None:
        """Kill the server and all it started; nothing of it is left."""
        self._ready, self._ending = None, False
        if self._control is not None:
            self._control.close()
            self._control = None
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


def _obituary(status: int) -> str:
    if status >= 0:
        return f"The process of the checks ended with status {status}."
    how = _DEATHS.get(signal.Signals(-status), f"ended by signal {-status}")
    return f"The process of the checks {how}."


async def _receive(control: socket.socket) -> bytes:
    await _readable(control.fileno())
    return control.recv(MESSAGE_BYTES_MAX)


async def _read_all(descriptor: int) -> bytes:
    """To the end of the pipe. Raises Unscannable when that is too far."""
    data = bytearray()
    while True:
        await _readable(descriptor)
        piece = os.read(descriptor, _PIECE)
        if not piece:
            return bytes(data)
        data += piece
        if len(data) > ANSWER_BYTES_MAX:
            raise Unscannable("The process of the checks says more than an answer can be.")


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def say() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, say)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
