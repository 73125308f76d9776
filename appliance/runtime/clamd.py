"""The virus scanner of Debian's clamav-daemon, when it is there: kept running with fresh signatures.

A node runs without a scanner, and says what that means. clamd reads ClamAV's signatures for tens of
seconds, so nothing waits for it; it answers when it is ready. Where there are none it runs with our
baseline, and the node says so. Its configuration is what was measured; `docs/scanner.md` says why.

clamd is fed by strangers: it runs as an account of its own that owns its socket and its unpacking
folder and nothing else, not its configuration, not its signatures. There is no network port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from appliance.base import logs
from appliance.base.errors import ApplianceError, Misconfigured, Unavailable
from appliance.runtime.account import Account, child_setup, helper_account
from appliance.runtime.signatures import PROBE, SignatureSet, SignatureSets, official_files
from appliance.runtime.sockets import claim_folder, memory_folder, open_to_group, socket_folder
from appliance.runtime.supervisor import Supervisor, Unit

SIGNATURES = Path("/var/lib/clamav")
ACCOUNT = "nexus-scan"
START_TIMEOUT_S = 300.0
LOOK_S = 3.0
RETRY_BAD_S = 600.0
_ANSWER_S = 10.0
_CHECK_S = 120.0
_MEMORY_BYTES_MIN = 2 << 30
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "TZ": "UTC"}
_LOADED = re.compile(rb"stream: Nexus\.Set\.[a-z]+\.([0-9a-f]{16})\.UNOFFICIAL FOUND\0\Z")

LIMITS = """\
IdleTimeout 2
DisableCache yes
ConcurrentDatabaseReload no
SelfCheck 0
ExitOnOOM yes
Bytecode no
StreamMaxLength 110M
MaxFileSize 110M
MaxScanSize 300M
MaxScanTime 60000
MaxRecursion 10
MaxFiles 5000
PCREMaxFileSize 110M
MaxEmbeddedPE 110M
MaxHTMLNormalize 110M
MaxScriptNormalize 110M
AlertExceedsMax yes
AlertEncrypted yes
AlertOLE2Macros yes
AlertBrokenExecutables yes
AlertBrokenMedia yes
"""


class ScannerState(msgspec.Struct, frozen=True):
    """`absent`, `baseline` or `present`, the sentence for people, the socket of the last two."""

    state: str
    sentence: str
    socket: str = ""


def scanner_state(
    clamd: Path | None, socket: Path | None = None, *, signatures: Sequence[Path] = (SIGNATURES,)
) -> ScannerState:
    """What this node can do about files; `socket` is where a clamd of ours will answer."""
    if clamd is None:
        return ScannerState(
            "absent",
            "No virus scanner (clamd): files stay held until a scanner is there. "
            "Install it with: apt-get install clamav-daemon clamav",
        )
    place = str(socket) if socket else ""
    if not official_files(signatures):
        return ScannerState(
            "baseline",
            "The virus scanner (clamd) has baseline signatures only: it finds test files and what "
            f"it cannot see through, but knows no virus. None of ClamAV's are in {signatures[-1]}. "
            "Run: freshclam",
            place,
        )
    return ScannerState("present", "A virus scanner (clamd) with ClamAV's signatures.", place)


def given_scanner(socket: str) -> ScannerState:
    """A clamd that somebody else runs; its canaries tell what it is worth."""
    return ScannerState("present", f"The virus scanner (clamd) at {socket}.", socket)


class Clamd:
    """One scanner of our own, over a set of signatures, on a unix socket.

    `signatures` are folders of ClamAV's own data; the first that has some counts. `client` is
    the account that may speak to it.
    """

    def __init__(
        self,
        program: Path,
        data: Path,
        account: Account,
        *,
        signatures: Sequence[Path] = (SIGNATURES,),
        client: Account | None = None,
    ) -> None:
        self.program = program
        self.account = helper_account(account, ACCOUNT)
        self.folder = data.absolute() / "clamd"
        self.socket = socket_folder(data, self.account, "scan") / "clamd.sock"
        self.sets = SignatureSets(self.folder, signatures, LIMITS, self._check)
        self._group = (client or account).gid
        # Memory where there is plenty: clamd writes every byte of a file that it scans.
        memory = memory_folder(data, "scan", _MEMORY_BYTES_MIN)
        self._temporary = memory or self.socket.parent / "tmp"
        self._unit = Unit(
            "clamd", self.argv(), self.account, self.wait_ready, _ENVIRONMENT,
            clear=self._clear, wait=False,
        )  # fmt: skip
        self._bad: dict[str, float] = {}

    def prepare(self) -> None:
        """Write the configuration; the folders are ours, but for socket and unpacking."""
        _drop_foreign(self.sets.sets)
        for folder in (self.folder, self.sets.sets, self.sets.operators):
            _hold_folder(folder)
        claim_folder(self._temporary, self.account)
        open_to_group(self.socket.parent, self._group)
        threads = (os.cpu_count() or 1) + 2
        text = (
            "Foreground yes\nLogTime yes\n"
            f"LocalSocket {self.socket}\nLocalSocketMode 660\nFixStaleSocket yes\n"
            f"DatabaseDirectory {self.sets.active}\nTemporaryDirectory {self._temporary}\n"
            # As many scans as there are cores, and room for a question meanwhile.
            f"MaxThreads {threads}\nMaxQueue {max(16, 2 * threads)}\n{LIMITS}"
        )
        path = self.folder / "clamd.conf"
        draft = path.with_name(".clamd.conf")
        draft.write_text(text, "utf-8")
        draft.chmod(0o644)
        draft.replace(path)

    def argv(self) -> list[str]:
        """The scanner's command line."""
        return [str(self.program), f"--config-file={self.folder / 'clamd.conf'}"]

    async def is_ready(self) -> bool:
        """Whether the scanner answers a ping."""
        return await self._ask(b"zPING\0") == b"PONG\0"

    async def loaded(self) -> str:
        """The id of the set that the scanner has loaded; empty when it does not say."""
        size = len(PROBE).to_bytes(4, "big")
        said = _LOADED.match(await self._ask(b"zINSTREAM\0" + size + PROBE + bytes(4)))
        return said[1].decode() if said else ""

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

    async def run(self, supervisor: Supervisor, *, look_s: float = LOOK_S) -> None:
        """Start the scanner and give it new signatures whenever there are some, until cancelled."""
        last = ""
        done = ""
        while True:
            try:
                seen = self.sets.fingerprint()
                # A file that still grows is left until it is the same at two looks.
                due = seen != done or self._wants_retry() or self.sets.last_good() is None
                if due and (not last or seen == last):
                    await self._refresh(supervisor)
                    done = seen
                last = seen
            except (OSError, ApplianceError) as failed:
                logs.event(
                    "scanner.refresh_failed", level="error", service="clamd",
                    error_type=type(failed).__name__, reason=str(failed),
                )  # fmt: skip
            await asyncio.sleep(look_s)

    def _wants_retry(self) -> bool:
        return any(time.monotonic() > until for until in self._bad.values())

    async def _refresh(self, supervisor: Supervisor) -> None:
        """Load what is there now; when clamd does not take it, what it had before, or ours."""
        wanted = await self.sets.build()
        good = self.sets.last_good()
        if time.monotonic() > self._bad.get(wanted.id, 0.0):
            self._bad.pop(wanted.id, None)
            if await self._load(wanted, supervisor):
                return
            self._bad[wanted.id] = time.monotonic() + RETRY_BAD_S
            logs.event(
                "scanner.signatures_refused", level="error", service="clamd", version=wanted.id
            )
        fallback = good or await self.sets.build(official=False)
        await self._load(fallback, supervisor, despite_deaths=True)

    async def _load(
        self, wanted: SignatureSet, supervisor: Supervisor, *, despite_deaths: bool = False
    ) -> bool:
        """Whether the scanner now has this set. A death counts as its answer, or as the former's."""
        self.sets.activate(wanted)
        restarts = self._unit.restarts
        if self._unit.process is None:
            await supervisor.start(self._unit)
        elif await self.loaded() != wanted.id:
            await self._ask(b"zRELOAD\0")
        end = time.monotonic() + START_TIMEOUT_S
        while await self.loaded() != wanted.id:
            died = self._unit.restarts > restarts and not despite_deaths
            if died or time.monotonic() > end:
                return False
            await asyncio.sleep(0.2)
        self.sets.keep(wanted)
        logs.event(
            "scanner.signatures_loaded", level="warning" if wanted.refused else "info",
            service="clamd", version=wanted.id, kind=wanted.level,
            reason=" ".join(wanted.refused),
        )  # fmt: skip
        return True

    async def _ask(self, command: bytes) -> bytes:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(str(self.socket))
                try:
                    writer.write(command)
                    return await reader.read(400)
                finally:
                    writer.close()
        return b""

    async def _clear(self) -> None:
        """What a killed scanner had unpacked is content of people's files."""
        await asyncio.to_thread(_empty, self._temporary)

    def remove_temporary(self) -> None:
        """After the scanner has ended: leave nothing in memory."""
        shutil.rmtree(self._temporary, ignore_errors=True)

    async def _check(self, path: Path) -> str:
        """Try one file alone, as clamd would read it, as clamd's account."""
        program = self.program.parent.with_name("bin") / "clamscan"
        found = shutil.which("clamscan") or shutil.which(str(program))
        if found is None:
            return "it cannot be checked. Run: apt-get install clamav"
        child = await asyncio.create_subprocess_exec(
            found, f"--database={path}", f"--tempdir={self._temporary}", "--stdout",
            str(self.sets.sets / ".draft" / "baseline.ndb"),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, cwd="/", env=_ENVIRONMENT,
            preexec_fn=child_setup(self.account),
        )  # fmt: skip
        try:
            async with asyncio.timeout(_CHECK_S):
                said, _ = await child.communicate()
        except TimeoutError:
            return f"clamscan did not read it within {_CHECK_S:g} seconds."
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        return _complaint(said.decode("utf-8", "replace"), path, child.returncode or 0)


def _complaint(said: str, path: Path, code: int) -> str:
    """What clamscan minds in a file: it says it, and may end well all the same."""
    if found := re.search(r"LibClamAV (?:Error|Warning): (.*)", said):
        return f"clamd cannot read all of it: {found[1].replace(str(path), path.name)}"
    if code == 1:
        return "it takes a file for bad that is known to be good."
    if code or re.search(r"^Known viruses: 0$", said, re.MULTILINE):
        return "clamd finds no signature in it."
    return ""


def _hold_folder(path: Path) -> None:
    """A folder that only the user who starts the node may write; others may pass and read."""
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            if os.geteuid():
                raise Misconfigured(f"{path} belongs to somebody else; remove it and start again.")
            os.fchown(descriptor, 0, 0)
        os.fchmod(descriptor, 0o755)
    finally:
        os.close(descriptor)


def _drop_foreign(path: Path) -> None:
    """Sets that somebody else could have written are made anew."""
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_uid != os.geteuid():
            shutil.rmtree(path)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if stat.S_ISDIR(entry.lstat().st_mode):
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
