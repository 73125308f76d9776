"""What the working process knows of the scanner, left in the ledger for the serving one."""

from __future__ import annotations

import sqlite3
import time
from datetime import datetime

import msgspec

STALE_S = 180.0


class ScannerState(msgspec.Struct, frozen=True):
    """`scanner` is `ready`, `baseline` or `down`; `signatures` names what is scanned with
    (`ledger.scans_with`), `dated` is when ClamAV made its own.
    """

    scanner: str
    sentence: str
    signatures: str = ""
    checked: float = 0.0
    dated: datetime | None = None


UNKNOWN = ScannerState("down", "Nobody scans: the worker of the content plane is not running.")


def write_state(db: sqlite3.Connection, state: ScannerState) -> None:
    """Leave it for others."""
    db.execute(
        "INSERT INTO note VALUES ('scanner', ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body",
        (msgspec.json.encode(state),),
    )


def read_state(db: sqlite3.Connection) -> ScannerState:
    """The last word; a worker that has not looked for minutes is not there."""
    row = db.execute("SELECT body FROM note WHERE name = 'scanner'").fetchone()
    if row is None:
        return UNKNOWN
    state = msgspec.json.decode(row[0], type=ScannerState)
    return state if time.time() - state.checked < STALE_S else UNKNOWN
