"""The virus scanner of Debian's clamav-daemon, when it is there: started, or what is missing.

A node runs without a scanner, and says what that means. clamd reads its signatures for tens of
seconds, so nothing waits for it; it answers when it is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import msgspec

from appliance.base.errors import Unavailable
from appliance.runtime.account import Account, make_folder, write_private
from appliance.runtime.sockets import socket_folder

SIGNATURES = Path("/var/lib/clamav")
START_TIMEOUT_S = 180.0
_ANSWER_S = 3.0


class ScannerState(msgspec.Struct, frozen=True):
    """`absent`, `no_signatures` or `present`, the sentence for people, the socket of `present`."""

    state: str
    sentence: str
    socket: str = ""


def scanner_state(
    clamd: Path | None, socket: Path | None = None, *, signatures: Path = SIGNATURES
) -> ScannerState:
    """What this node can do about files; `socket` is where a clamd of ours will answer."""
    if clamd is None:
        return ScannerState(
            "absent",
            "No virus scanner (clamd): files stay held until a scanner is there. "
            "Install it with: apt-get install clamav-daemon",
        )
    if not has_signatures(signatures):
        return ScannerState(
            "no_signatures",
            f"clamd is installed but has no signatures in {signatures}: files stay held until it "
            "has. Run: freshclam",
        )
    return ScannerState(
        "present", "A virus scanner (clamd) is installed.", str(socket) if socket else ""
    )


def has_signatures(folder: Path) -> bool:
    """Whether freshclam has put a database there (.cvd, .cld or .cud)."""
    return any(folder.glob("*.c[vlu]d"))


class Clamd:
    """One scanner of our own, over the system's signatures, on a unix socket."""

    def __init__(
        self, program: Path, data: Path, account: Account, *, signatures: Path = SIGNATURES
    ) -> None:
        self.program = program
        self.account = account
        self.signatures = signatures
        self.folder = data.absolute() / "clamd"
        self.socket = socket_folder(data, account) / "clamd.sock"

    def prepare(self) -> None:
        """Write the configuration; scanned files are unpacked in a folder of our own."""
        temporary = self.socket.with_name("clamd.tmp")
        for folder in (self.folder, temporary):
            make_folder(self.account, folder)
        text = (
            "Foreground yes\nLogTime yes\n"
            f"LocalSocket {self.socket}\nLocalSocketMode 600\nFixStaleSocket yes\n"
            f"DatabaseDirectory {self.signatures}\nTemporaryDirectory {temporary}\n"
        )
        write_private(self.account, self.folder / "clamd.conf", text)

    def argv(self) -> list[str]:
        """The scanner's command line."""
        return [str(self.program), f"--config-file={self.folder / 'clamd.conf'}"]

    async def is_ready(self) -> bool:
        """Whether the scanner answers a ping."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(str(self.socket))
                try:
                    writer.write(b"zPING\0")
                    return await reader.read(16) == b"PONG\0"
                finally:
                    writer.close()
        return False

    async def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait for the scanner. Raises Unavailable."""
        end = time.monotonic() + timeout_s
        while not await self.is_ready():
            if time.monotonic() > end:
                raise Unavailable(
                    "clamd did not start; its log says why: log/clamd.log in the data folder.",
                    dependency="clamd",
                )
            await asyncio.sleep(0.2)
