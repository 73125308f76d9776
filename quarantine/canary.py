"""Whether the scanner is awake: it must find what is bad and let pass what is good, now.

A scanner can answer every ping and see nothing: with broken rules it loads none, with the limits of
its package it says `OK` to what it did not unpack. So it is asked about files whose answer is
known. One wrong answer and it counts as down: uploads are then held, not released.

The caller asks at its start and each minute (`EVERY_S`).
"""

from __future__ import annotations

import enum
import io
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec

from quarantine.engines.base import Unscannable
from quarantine.engines.clam import ClamScanner, Identity, ScannerDown

EVERY_S = 60.0
OLD_DAYS = 7.0

# Put together here, so that no scanner takes this file for what it describes.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}" + rb"$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
PATTERN = b"NEXUS-HARMLESS-" + b"TEST-PATTERN-0f6b1c92d7e84a35"
CLEAN = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>endobj\n"
    b"trailer<</Root 1 0 R/Size 4>>\n%%EOF\n"
)
_NESTED = 24


class State(enum.StrEnum):
    """`baseline` works, but knows no virus; `down` has said something wrong or nothing."""

    READY = "ready"
    BASELINE = "baseline"
    DOWN = "down"


class ScannerHealth(msgspec.Struct, frozen=True):
    """What the scanner showed at `checked_at`, and the sentence for people.

    `signatures_dated` is the day of ClamAV's data and `age_days` its age then; both are None
    without that data.
    """

    state: State
    sentence: str
    checked_at: datetime
    version: str = ""
    signatures: str = ""
    signatures_dated: datetime | None = None
    age_days: float | None = None

    @property
    def is_up(self) -> bool:
        """Whether files may be scanned and released."""
        return self.state is not State.DOWN


async def check_scanner(scanner: ClamScanner, *, at: datetime | None = None) -> ScannerHealth:
    """Ask the scanner about files whose answer is known; at most as long as its patience."""
    moment = at or datetime.now(UTC)
    found = Identity("", "", "")
    try:
        found = await scanner.identify()
        wrong = await _first_wrong(scanner)
    except (ScannerDown, Unscannable) as failed:
        wrong = str(failed)
    age = (moment - found.dated).total_seconds() / 86_400 if found.dated else None
    state = State.DOWN if wrong else State.READY
    if state is State.READY and found.level == "baseline":
        state = State.BASELINE
    return ScannerHealth(
        state, wrong or _sentence(found, age), moment,
        version=found.version, signatures=found.signatures,
        signatures_dated=found.dated, age_days=age,
    )  # fmt: skip


async def _first_wrong(scanner: ClamScanner) -> str:
    """The first file that the scanner took for something else, as a sentence; empty when none."""
    for what, body, expected in (
        ("the standard test file", EICAR, "virus.found"),
        ("a clean document", CLEAN, ""),
        ("an encrypted archive", _encrypted(), "virus.encrypted"),
        ("an archive beyond the limits", _nested(), "virus.limits"),
    ):
        scanned = await scanner.scan(_once(body), len(body))
        said = scanned.findings[0].code if scanned.findings else ""
        if said != expected:
            return (
                f"The scanner answers {said or 'clean'} for {what} instead of "
                f"{expected or 'clean'}. Files stay held until it is right; see docs/scanner.md."
            )
    return ""


def _sentence(found: Identity, age: float | None) -> str:
    if found.level == "baseline":
        return (
            f"{found.version} works with baseline signatures only: it finds test files and what it "
            "cannot see through, but knows no virus. Give it ClamAV's signatures: freshclam."
        )
    if found.level == "local":
        return f"{found.version} works with signatures of your own and without ClamAV's."
    if age is not None and age > OLD_DAYS:
        return f"{found.version} works, but its signatures are {age:.0f} days old. Run: freshclam"
    return f"{found.version} works with signatures {found.signatures}."


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _encrypted() -> bytes:
    """A zip with one stored entry that is marked as encrypted."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr(zipfile.ZipInfo("a.txt"), b"twelve bytes" + b"and the text")
    body = bytearray(archive.getvalue())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(header) + flags] |= 1
    return bytes(body)


def _nested() -> bytes:
    """A zip in a zip in a zip, deeper than any scanner of ours follows."""
    body = b"the innermost file"
    for depth in range(_NESTED):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr(zipfile.ZipInfo(f"{depth}.zip" if depth else "a.txt"), body)
        body = archive.getvalue()
    return body
