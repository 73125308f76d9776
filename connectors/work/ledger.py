"""What a channel has confirmed, item by item, and what is to be sent: a small SQLite file.

An intent stands here before it is sent and until its outcome is known, so that whoever is killed in
between sends the same value again and gets to the same end. There is one intent for an item and
what of it is meant: a newer one takes the place of an older.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec

from connectors.markets.selling import What

State = Literal["new", "sent", "held", "refused"]
_TABLES = """
CREATE TABLE IF NOT EXISTS confirmed (
    sku TEXT NOT NULL, what TEXT NOT NULL, value TEXT NOT NULL, old TEXT NOT NULL,
    revision TEXT NOT NULL, at REAL NOT NULL, offer TEXT NOT NULL, PRIMARY KEY (sku, what)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intent (
    sku TEXT NOT NULL, what TEXT NOT NULL, offer TEXT NOT NULL, value TEXT NOT NULL,
    old TEXT NOT NULL, currency TEXT NOT NULL, revision TEXT NOT NULL, state TEXT NOT NULL,
    tries INTEGER NOT NULL, sent_at REAL NOT NULL, is_released INTEGER NOT NULL,
    code TEXT NOT NULL, detail TEXT NOT NULL, before TEXT NOT NULL, is_told INTEGER NOT NULL,
    is_letter INTEGER NOT NULL,
    PRIMARY KEY (sku, what)
) WITHOUT ROWID;
"""
_INTENT = (
    "sku, what, offer, value, old, currency, revision, state, tries, sent_at, is_released, code, "
    "detail, before, is_told, is_letter"
)


class Confirmed(msgspec.Struct, frozen=True):
    """What a channel is known to have; `old` is a price crossed out, empty where there is none."""

    value: str
    old: str
    revision: str
    at: float


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What one item shall be, and how far that is.

    `new`: to be sent. `sent`: its outcome is not known. `held`: a person has to look at it.
    `refused`: the channel will not have it. `before`: what was there, where it is held for that.
    `is_told`: the node has been told of the state. `is_letter`: it was told of one that is not right
    yet, and waits to hear that it is.
    """

    sku: str
    what: str
    offer: str
    value: str
    old: str = ""
    currency: str = ""
    revision: str = ""
    state: str = "new"
    tries: int = 0
    sent_at: float = 0.0
    is_released: int = 0
    code: str = ""
    detail: str = ""
    before: str = ""
    is_told: int = 0
    is_letter: int = 0


class Ledger:
    """The file of one channel. One thread at a time."""

    def __init__(self, path: Path | None) -> None:
        self._db = sqlite3.connect(
            path or ":memory:", isolation_level=None, check_same_thread=False
        )
        if path is not None:
            path.chmod(0o600)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        """End it."""
        self._db.close()

    def copy(self) -> Ledger:
        """The same in memory, for a look that leaves no trace."""
        twin = Ledger(None)
        self._db.backup(twin._db)
        return twin

    def read_confirmed(self, sku: str, what: What) -> Confirmed | None:
        """What the channel is known to have."""
        row = self._db.execute(
            "SELECT value, old, revision, at FROM confirmed WHERE sku = ? AND what = ?", (sku, what)
        ).fetchone()
        return Confirmed(*row) if row else None

    def read_intent(self, sku: str, what: What) -> Intent | None:
        """What is meant for it now."""
        row = self._db.execute(
            f"SELECT {_INTENT} FROM intent WHERE sku = ? AND what = ?", (sku, what)
        ).fetchone()
        return _intent(row) if row else None

    def list_stocked(self) -> dict[str, str]:
        """Items that the channel may sell, or is about to: their SKUs, and what it calls them."""
        found = self._db.execute(
            "SELECT sku, offer FROM confirmed WHERE what = 'stock' AND value <> '0' UNION "
            "SELECT sku, offer FROM intent WHERE what = 'stock' AND (value <> '0' OR tries > 0)"
        )
        return dict(found.fetchall())

    def list_intents(self, what: What, *states: State) -> list[Intent]:
        """Intents in some states, those first that have waited longest since they were sent."""
        marks = ", ".join("?" * len(states))
        rows = self._db.execute(
            f"SELECT {_INTENT} FROM intent WHERE what = ? AND state IN ({marks}) "
            "ORDER BY sent_at, sku",
            (what, *states),
        )
        return [_intent(row) for row in rows]

    def write(self, intents: Iterable[Intent]) -> None:
        """Put intents in the place of those that were meant before, all or none."""
        values = [tuple(getattr(i, n) for n in i.__struct_fields__) for i in intents]
        if not values:
            return
        marks = ", ".join("?" * len(Intent.__struct_fields__))
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(f"INSERT OR REPLACE INTO intent ({_INTENT}) VALUES ({marks})", values)
        self._db.execute("COMMIT")

    def send(self, intents: Sequence[Intent]) -> None:
        """They are about to be sent: from here on nobody knows what the channel has."""
        marks = ", ".join("?" * len(Intent.__struct_fields__))
        values = [tuple(getattr(i, n) for n in i.__struct_fields__) for i in intents]
        gone = [(i.sku, i.what) for i in intents]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(f"INSERT OR REPLACE INTO intent ({_INTENT}) VALUES ({marks})", values)
        self._db.executemany("DELETE FROM confirmed WHERE sku = ? AND what = ?", gone)
        self._db.execute("COMMIT")

    def drop(self, keys: Sequence[tuple[str, str]]) -> None:
        """Nothing is meant for these any more: they are as they shall be."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("DELETE FROM intent WHERE sku = ? AND what = ?", keys)
        self._db.execute("COMMIT")

    def confirm(self, intents: Sequence[Intent], at: float) -> None:
        """They are there. An intent that has become a newer one meanwhile stays."""
        rows = [(i.sku, i.what, i.value, i.old, i.revision, at, i.offer) for i in intents]
        gone = [(i.sku, i.what, i.value, i.old) for i in intents]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT OR REPLACE INTO confirmed VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._db.executemany(
            "DELETE FROM intent WHERE sku = ? AND what = ? AND value = ? AND old = ?", gone
        )
        self._db.execute("COMMIT")


def value_of(value: Decimal) -> str:
    """A decimal as it is compared here: 5.00 and 5 are one."""
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _intent(row: Sequence[str | int | float]) -> Intent:
    return msgspec.convert(dict(zip(Intent.__struct_fields__, row, strict=True)), Intent)
