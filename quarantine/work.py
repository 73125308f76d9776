"""The working process: takes blobs from the ledger, has them examined, writes verdicts down.

Promises: a blob is scanned by one worker at a time and by the next one when this one dies; without
a scanner that passes its canary nothing is judged, and everything is by itself once it is back; new
signatures have everything judged anew, what is new and much read first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from quarantine import health, ledger
from quarantine.canary import EVERY_S, check_scanner
from quarantine.contract import Judged, Report, Verdict
from quarantine.engines.base import Unscannable
from quarantine.engines.clam import ClamScanner, ScannerDown
from quarantine.health import ScannerState
from quarantine.ledger import LEASE_S, RETRIES, Blob
from quarantine.pipeline import DOWN, MODULES, Pipeline
from quarantine.rules.delivered import Delivered
from quarantine.rules.pack import PackError
from quarantine.sandbox.parent import Sandbox
from quarantine.sandbox.plaintext import lay_out
from quarantine.settings import Settings
from quarantine.store.faults import Damaged, KeyFault, Missing, StoreFault
from quarantine.vault import Vault

LOOK_S = 0.02
IDENTIFY_S = 5.0
DOWN_LOOK_S = 1.0
# A scan may take clamd a minute, but these questions are small: who leaves them open is not there.
HUNG_S = 6.0
HANGS = (
    f"The scanner did not answer within {HUNG_S:g} seconds: it hangs, or loads new signatures. Files "
    "stay held until it answers."
)
FAULT_PAUSE_S = 1.0


class Worker:
    """Scans `parallel` blobs at a time until told to stop."""

    def __init__(
        self,
        settings: Settings,
        vault: Vault,
        scanner: ClamScanner,
        pipeline: Pipeline,
        packs: Delivered,
    ) -> None:
        self._settings = settings
        self._vault = vault
        self._scanner = scanner
        self._pipeline = pipeline
        self._packs = packs
        self._loaded: str | None = None
        self._holder = f"{os.getpid()}.{time.time()}"
        self._state = health.UNKNOWN
        self._scratch = settings.scratch_folder
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until `stopping` is set; what is being scanned is given back."""
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._scratch.iterdir():
            if left.is_file():
                left.unlink()
        with contextlib.suppress(StoreFault):
            await self._vault.ledger.run(ledger.free_leases)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_watch())
            for number in range(self._settings.parallel):
                group.create_task(self._scan_on(f"{self._holder}.{number}"))

    async def _keep_watch(self) -> None:
        """Canary each minute, and at once when what the scanner answers or scans with changes."""
        while not self.stopping.is_set():
            with contextlib.suppress(StoreFault):
                await self._look()
            await self._pause(IDENTIFY_S if self._state.scanner != "down" else DOWN_LOOK_S)

    async def _look(self) -> None:
        is_due = time.time() - self._state.checked >= EVERY_S
        try:
            state = await self._ask_scanner(is_due=is_due)
        except TimeoutError:
            state = ScannerState("down", HANGS, "", time.time())
        except (ScannerDown, PackError, Unscannable) as down:
            state = ScannerState("down", str(down), "", time.time())
        if state is None:
            return
        if is_due or state.sentence != self._state.sentence or state.signatures:
            await self._take_over(state)

    async def _load_packs(self) -> str:
        """Which packs count now; with others than before the checks inside begin anew.

        Raises PackError, Unscannable.
        """
        packs = await self._packs.ids()
        if packs != self._loaded:
            if missing := await self._pipeline.renew():
                names = ", ".join(m.rpartition(".")[2] for m in missing)
                raise PackError(
                    f"These checks cannot be loaded: {names}. Look at the rule packs and at what "
                    "is installed; files stay held until they can."
                )
            self._loaded = packs
        return packs

    async def _ask_scanner(self, *, is_due: bool) -> ScannerState | None:
        """How all that judges stands; None when it stands as before.

        Raises TimeoutError, ScannerDown, PackError, Unscannable.
        """
        async with asyncio.timeout(HUNG_S):
            loaded = (await self._scanner.identify()).signatures
        packs = await self._load_packs()
        if ledger.scans_with(loaded, packs) == self._state.signatures and not is_due:
            return None
        async with asyncio.timeout(HUNG_S):
            found = await check_scanner(self._scanner)
        using = ledger.scans_with(found.signatures, packs) if found.is_up else ""
        dated = found.signatures_dated
        return ScannerState(str(found.state), found.sentence, using, time.time(), dated)

    async def _take_over(self, state: ScannerState) -> None:
        # Known before the older verdicts are asked for: what is judged from now on sees to itself.
        former, self._state = self._state, state
        try:
            await self._note(state, is_new=state.signatures not in ("", former.signatures))
        except StoreFault:
            self._state = former
            raise

    async def _note(self, state: ScannerState, *, is_new: bool) -> None:
        def note(db: sqlite3.Connection) -> None:
            health.write_state(db, state)
            if is_new:
                ledger.rescan_older(db, state.signatures)

        await self._vault.ledger.run(note)

    async def _scan_on(self, holder: str) -> None:
        while not self.stopping.is_set():
            try:
                if not await self._scan_next(holder):
                    await self._pause(LOOK_S)
            except StoreFault:
                # The ledger cannot be written, on a full disk: leases run out, nothing is lost.
                await self._pause(FAULT_PAUSE_S)

    async def _scan_next(self, holder: str) -> bool:
        now = time.time()
        is_up = self._state.scanner != "down"
        if not is_up or not await self._vault.ledger.peek(ledger.WAITING, now, now):
            return False
        blob = await self._vault.ledger.run(lambda db: ledger.take_job(db, holder))
        if blob is not None:
            await self._scan(blob, holder)
        return True

    async def _scan(self, blob: Blob, holder: str) -> None:
        keeper = asyncio.create_task(self._keep(blob.id, holder))
        try:
            async with self._plaintext(blob) as path:
                report = await self._pipeline.judge(
                    path, blob.name, blob.policy, sha256=blob.sha256, size=blob.size
                )
        except OSError as full:
            why = f"There is no room to look into it: {full.strerror or type(full).__name__}."
            await self._put_back(blob, holder, why, failed=False)
        except StoreFault as fault:
            # A full disk or a bucket that is away says nothing of the file.
            failed = isinstance(fault, Damaged | Missing | KeyFault)
            await self._put_back(blob, holder, str(fault), failed=failed)
        else:
            if report.verdict is Verdict.ERROR:
                # The worst stand first; a scanner that is down is no fault of the file.
                wrong = [f for f in report.findings if f.verdict is Verdict.ERROR]
                failed = any(f.code != DOWN for f in wrong)
                await self._put_back(blob, holder, wrong[0].detail, failed=failed)
            else:
                await self._judge(blob, holder, report)
        finally:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError, StoreFault):
                await keeper

    async def _put_back(self, blob: Blob, holder: str, why: str, *, failed: bool) -> None:
        if failed and blob.attempts + 1 >= RETRIES:
            await self._judge(blob, holder, ledger.unscannable(blob, why))
            return
        await self._vault.ledger.run(
            lambda db: ledger.put_back(db, blob.id, holder, why, failed=failed)
        )

    async def _judge(self, blob: Blob, holder: str, report: Report) -> None:
        judged = Judged(blob.id, blob.tenant, report, datetime.now(UTC))
        signatures = self._state.signatures
        await self._vault.ledger.run(lambda db: ledger.judge(db, blob, holder, judged, signatures))

    async def _keep(self, ident: UUID, holder: str) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self._vault.ledger.run(lambda db: ledger.keep_lease(db, ident, holder))

    @contextlib.asynccontextmanager
    async def _plaintext(self, blob: Blob) -> AsyncIterator[Path]:
        """The bytes in the clear for as long as they are looked at."""
        reader = await self._vault.open(blob)
        name = f"{blob.id.hex}.{time.monotonic_ns()}"
        async with lay_out(self._scratch, name, reader.pieces(), size=blob.size) as path:
            yield path

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()


@contextlib.asynccontextmanager
async def open_worker(settings: Settings) -> AsyncIterator[Worker]:
    """A worker over its settings; what it holds is given back at the end. Raises StoreFault."""
    vault = Vault(settings)
    scratch = settings.scratch_folder
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    packs = Delivered(settings.packs, settings.pack_keys)
    scanner = ClamScanner(settings.clamd, baseline_is_enough=settings.baseline_is_enough)
    try:
        await vault.start(recover=False)
        async with Sandbox(
            MODULES, scratch, lanes=settings.parallel, variables=packs.variables,
            readable=(packs.folder,) if packs.folder else (),
        ) as sandbox:  # fmt: skip
            pipeline = Pipeline(sandbox, {"clamd": scanner})
            yield Worker(settings, vault, scanner, pipeline, packs)
    finally:
        vault.close()
