"""clamd by INSTREAM over its unix socket, and when its word counts.

A scanner's `OK` is not a verdict: clamd says it for what it never looked at. Here it counts only
when the answer is `stream: OK` to the byte, the connection then ended cleanly, exactly the bytes of
the blob were sent, and the same engine with the same signatures was asked before and after. With
the configuration of the node (`docs/scanner.md`) a file beyond a limit raises an alert instead.

Anything else is either a finding, `ScannerDown` (ask again later) or `Unscannable` (asking again
helps nobody). Nothing here reads a file's name, and clamd is never told a path.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

import msgspec

from quarantine.contract import EngineRun, Finding, Verdict
from quarantine.engines.base import Unscannable
from quarantine.signatures import PROBE

NAME = "clamd"
CHUNK_BYTES = 256 * 1024
_REPLY_BYTES_MAX = 4096
_LAST_WORDS_S = 2.0

_OK = b"stream: OK\0"
_FOUND = re.compile(rb"stream: ([^\0\n]{1,500}) FOUND\0\Z")
_TOO_LARGE = b"INSTREAM size limit exceeded. ERROR\0"
_VERSION = re.compile(rb"(ClamAV [^/\0\n]{1,60})(?:/(\d{1,10})/([^\0\n]{1,40}))?\0\Z")
_SET = re.compile(r"Nexus\.Set\.(baseline|local|official)\.([0-9a-f]{16})\.UNOFFICIAL\Z")

# What clamd says of a file that it could not see through, or that a person should look at.
_HELD = (
    ("Heuristics.Limits.Exceeded", "virus.limits", "is beyond a limit of the scanner"),
    ("Heuristics.Encrypted", "virus.encrypted", "is encrypted, so the scanner saw nothing of it"),
    ("Heuristics.OLE2.ContainsMacros", "virus.macros", "holds macros"),
    ("Heuristics.Broken.", "virus.broken", "is damaged in a way that hides content"),
)


class ScannerDown(Exception):
    """The scanner gave no word that counts; the text says what happened. Ask again later."""


class SignaturesChanged(ScannerDown):
    """New signatures came while a file was scanned: ask again at once."""


class Patience(msgspec.Struct, frozen=True):
    """Seconds until a step counts as failed.

    clamd itself ends a scan after 60 seconds, and does not read while it loads new signatures.
    """

    connect_s: float = 3.0
    write_s: float = 60.0
    reply_s: float = 150.0


class Identity(msgspec.Struct, frozen=True):
    """Which engine with which signatures.

    `level` is `official` (ClamAV's own data), `local` (ours and the operator's) or `baseline`
    (ours alone: a test file, no virus). `signatures` changes whenever what is loaded does.
    """

    version: str
    signatures: str
    level: str
    dated: datetime | None = None


class Scanned(msgspec.Struct, frozen=True):
    """A scan that ran to its end: what was found, and by what."""

    findings: tuple[Finding, ...]
    run: EngineRun


class ClamScanner:
    """One clamd behind a unix socket; any number of scans at a time, each with its connections.

    With `baseline_is_enough=False` a scanner that has nothing but our test signatures counts as
    down. More scans at a time than the machine has cores only wait for each other inside clamd.
    """

    def __init__(
        self, path: Path | str, *, baseline_is_enough: bool = True, patience: Patience | None = None
    ) -> None:
        self.path = str(path)
        self.baseline_is_enough = baseline_is_enough
        self.patience = patience or Patience()

    async def scan(
        self, body: Path | AsyncIterable[bytes], size: int, *, place: str = ""
    ) -> Scanned:
        """Let clamd look at all of a blob of `size` bytes.

        Raises ScannerDown, SignaturesChanged, and Unscannable when the bytes are not `size` or are
        more than the scanner takes.
        """
        began = time.monotonic()
        before = await self.identify()
        self._check_level(before)
        reply = await self._stream(body, size)
        found = _FOUND.match(reply)
        if found is None:
            _check_ok(reply)
            after = await self.identify()
            if after != before:
                raise SignaturesChanged(
                    "The scanner got other signatures while it scanned; it is to scan again."
                )
        run = EngineRun(NAME, before.version, before.signatures, time.monotonic() - began)
        return Scanned((_finding(found[1], place),) if found else (), run)

    async def identify(self) -> Identity:
        """Engine and signatures that are loaded now. Raises ScannerDown.

        The set is asked of the scanner itself: a folder may hold what clamd refused to load.
        """
        told, probed = await asyncio.gather(
            self._ask(b"zVERSION\0"), self._stream(_once(PROBE), len(PROBE)), return_exceptions=True
        )
        for failed in (told, probed):
            if isinstance(failed, BaseException):
                raise failed
        assert isinstance(told, bytes) and isinstance(probed, bytes), "no failure"
        version = _VERSION.match(told)
        if version is None:
            raise ScannerDown(f"The scanner does not say its version, but {_quote(told)}.")
        return _identity(version, probed)

    def _check_level(self, found: Identity) -> None:
        if found.level == "baseline" and not self.baseline_is_enough:
            raise ScannerDown(
                "The scanner has baseline signatures only, which know no virus, and this node is "
                "told not to make do with them (files.baseline_is_enough). Give it ClamAV's: "
                "freshclam."
            )

    @contextlib.asynccontextmanager
    async def _dial(self) -> AsyncIterator[socket.socket]:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.setblocking(False)
            with _explained("does not take a connection", self.patience.connect_s):
                async with asyncio.timeout(self.patience.connect_s):
                    await loop.sock_connect(line, self.path)
            yield line

    async def _ask(self, command: bytes) -> bytes:
        async with self._dial() as line:
            await self._send(line, command)
            return await self._reply(line, self.patience.reply_s)

    async def _stream(self, body: Path | AsyncIterable[bytes], size: int) -> bytes:
        """The answer to one INSTREAM of exactly `size` bytes, read until the connection ended."""
        async with self._dial() as line:
            try:
                await self._send(line, b"zINSTREAM\0")
                if isinstance(body, Path):
                    sent = await self._send_file(line, body, size)
                else:
                    sent = await self._send_pieces(line, body, size)
                if sent != size:
                    more = "more" if sent > size else f"{sent}"
                    raise Unscannable(f"The blob is recorded with {size} bytes, but has {more}.")
                await self._send(line, bytes(4))
            except ScannerDown as failed:
                await self._explain_refusal(line, failed)
            return await self._reply(line, self.patience.reply_s)

    async def _send_pieces(
        self, line: socket.socket, pieces: AsyncIterable[bytes], size: int
    ) -> int:
        """How many bytes there were; more than `size` are not sent."""
        sent = 0
        async for piece in _pieces(pieces):
            sent += len(piece)
            if sent > size:
                break
            await self._send(line, len(piece).to_bytes(4, "big") + piece)
        return sent

    async def _send_file(self, line: socket.socket, path: Path, size: int) -> int:
        """The same of a file, whose bytes the kernel hands over without our touching them."""
        sent = 0
        with path.open("rb", buffering=0) as file:
            while sent < size:
                end = min(sent + CHUNK_BYTES, size)
                await self._send(line, (end - sent).to_bytes(4, "big"))
                with _explained("stopped reading", self.patience.write_s):
                    async with asyncio.timeout(self.patience.write_s):
                        while sent < end and (more := await _hand_over(line, file, sent, end)):
                            sent += more
                if sent < end:
                    return sent
            return max(sent, os.fstat(file.fileno()).st_size)

    async def _explain_refusal(self, line: socket.socket, failed: ScannerDown) -> None:
        """A stream that is too long is hung up on, and clamd has then said so."""
        words = b""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(_LAST_WORDS_S):
                words = await asyncio.get_running_loop().sock_recv(line, _REPLY_BYTES_MAX)
        raise _too_large() if words == _TOO_LARGE else failed

    async def _send(self, line: socket.socket, data: bytes) -> None:
        with _explained("stopped reading", self.patience.write_s):
            async with asyncio.timeout(self.patience.write_s):
                await asyncio.get_running_loop().sock_sendall(line, data)

    async def _reply(self, line: socket.socket, seconds: float) -> bytes:
        """All bytes until the scanner ends the connection; an end by error does not count."""
        loop = asyncio.get_running_loop()
        reply = b""
        with _explained("gave no answer", seconds):
            async with asyncio.timeout(seconds):
                while part := await loop.sock_recv(line, _REPLY_BYTES_MAX):
                    reply += part
                    if len(reply) > _REPLY_BYTES_MAX:
                        raise ScannerDown("The scanner's answer is longer than any it can give.")
        return reply


@contextlib.contextmanager
def _explained(what: str, seconds: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise ScannerDown(f"The scanner {what} within {seconds:g} seconds.") from None
    except OSError as failed:
        raise ScannerDown(f"The scanner {what}: {failed.strerror or failed}.") from None


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _hand_over(line: socket.socket, file: FileIO, start: int, stop: int) -> int:
    """Some bytes of the file, as many as the other side takes now; none at its end."""
    while True:
        try:
            return os.sendfile(line.fileno(), file.fileno(), start, stop - start)
        except BlockingIOError:
            await _writable(line)


async def _writable(line: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(line, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_writer(line)


async def _pieces(body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Pieces that clamd takes; never an empty one, which would end the stream."""
    async for part in body:
        if len(part) <= CHUNK_BYTES:
            if part:
                yield bytes(part)
            continue
        view = memoryview(part)
        for start in range(0, len(view), CHUNK_BYTES):
            yield bytes(view[start : start + CHUNK_BYTES])


def _identity(version: re.Match[bytes], probed: bytes) -> Identity:
    found = _FOUND.match(probed)
    ours = _SET.match(found[1].decode("ascii", "replace")) if found else None
    if ours is None and probed != _OK:
        raise ScannerDown(f"Asked for its signatures, the scanner answers {_quote(probed)}.")
    number = version[2].decode() if version[2] else ""
    # A scanner that is not ours has no set of ours; ClamAV's number says that it has ClamAV's.
    level = ours[1] if ours else ("official" if number else "baseline")
    parts = (level, number, ours[2] if ours else "")
    return Identity(
        version[1].decode(), "-".join(filter(None, parts)), level, _moment(version[3] or b"")
    )


def _moment(text: bytes) -> datetime | None:
    with contextlib.suppress(ValueError):
        return datetime.strptime(text.decode(), "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    return None


def _check_ok(reply: bytes) -> None:
    if reply == _OK:
        return
    if reply == _TOO_LARGE:
        raise _too_large()
    if not reply:
        raise ScannerDown("The scanner ended the connection without an answer.")
    raise ScannerDown(f"The scanner did not finish: {_quote(reply)}.")


def _too_large() -> Unscannable:
    return Unscannable("The file is larger than the scanner takes (StreamMaxLength).")


def _finding(name: bytes, place: str) -> Finding:
    text = name.decode("ascii", "backslashreplace")
    for start, code, sentence in _HELD:
        if text.startswith(start):
            return Finding(NAME, code, Verdict.SUSPICIOUS, f"It {sentence} ({text}).", place)
    return Finding(NAME, "virus.found", Verdict.REJECTED, f"The scanner found {text}.", place)


def _quote(reply: bytes) -> str:
    return repr(reply[:120].decode("ascii", "backslashreplace"))
