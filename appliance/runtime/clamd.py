"""The virus scanner of Debian's clamav-daemon, when it is there: what state it is in.

Attachments arrive with the quarantine; a node without a scanner runs, and says so.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

SIGNATURES = Path("/var/lib/clamav")


class ScannerState(msgspec.Struct, frozen=True):
    """`absent`, `no_signatures` or `present`, and the sentence for people."""

    state: str
    sentence: str


def scanner_state(clamd: Path | None) -> ScannerState:
    """What a node without attachments can know about its scanner."""
    if clamd is None:
        return ScannerState(
            "absent",
            "No virus scanner (clamd): files would stay held. "
            "Install it with: apt-get install clamav-daemon",
        )
    if not any(SIGNATURES.glob("*.c[vl]d")):
        return ScannerState(
            "no_signatures",
            "clamd is installed but has no signatures: files would stay held. Run: freshclam",
        )
    return ScannerState("present", "A virus scanner (clamd) is installed.")
