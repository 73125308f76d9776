"""What a source has seen of a base, so that the next look tells what is new alone.

A file of its own beside the worker's book: of a hundred thousand objects a version each is written
row by row, where the book is written whole. Nothing is kept before a look was handed over. Losing
the file only makes the next look a full one.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from connectors.sdk.retry import Trouble

SEEN_MAX = 5_000_000
_TABLES = """
CREATE TABLE IF NOT EXISTS seen (entity TEXT, key TEXT, version TEXT, raw BLOB,
  PRIMARY KEY (entity, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mark (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent (id TEXT PRIMARY KEY, told TEXT, version TEXT, state TEXT)
  WITHOUT ROWID;
"""
_MET = "CREATE TEMP TABLE met (entity TEXT, key TEXT, turn INT, PRIMARY KEY (entity, key)) WITHOUT ROWID"  # fmt: skip


class Memory:
    """One file, for one source. Raises Trouble."""

    def __init__(self, path: Path) -> None:
        with _told(path):
            # One thread at a time, not always the same one.
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA busy_timeout = 10000")
            self._db.executescript(_TABLES)
            self._db.execute(_MET)
        self._path = path

    def close(self) -> None:
        """End it; what was not kept is forgotten."""
        self._db.close()

    def begin(self) -> None:
        """A look begins, from what was kept."""
        if self._db.in_transaction:
            self._do("ROLLBACK")
        self._do("BEGIN IMMEDIATE")
        self._do("DELETE FROM met")

    def keep(self) -> None:
        """The look was handed over."""
        if self._db.in_transaction:
            (count,) = self._do("SELECT count(*) FROM seen").fetchone()
            if count > SEEN_MAX:
                text = f"more than {SEEN_MAX} rows of one base; leave an entity out"
                raise Trouble("too-many", text, is_permanent=True)
            self._do("COMMIT")

    def mark(self, name: str) -> str:
        """A note by its name."""
        found = self._do("SELECT value FROM mark WHERE name = ?", (name,)).fetchone()
        return found[0] if found else ""

    def set_mark(self, name: str, value: str) -> None:
        """Keep a note."""
        self._do("INSERT OR REPLACE INTO mark VALUES (?, ?)", (name, value))

    def version(self, entity: str, key: str) -> str | None:
        """The version that was told last; None when none was."""
        sql = "SELECT version FROM seen WHERE entity = ? AND key = ?"
        found = self._do(sql, (entity, key)).fetchone()
        return found[0] if found else None

    def see(self, entity: str, key: str, version: str, raw: bytes | None = None) -> None:
        """A row is told. `raw`: kept to be told again with every look, because others refer to it."""
        self._do("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", (entity, key, version, raw))  # fmt: skip

    def kept(self, entity: str) -> Iterator[bytes]:
        """Rows that are told with every look."""
        sql = "SELECT raw FROM seen WHERE entity = ? AND raw IS NOT NULL ORDER BY key"
        yield from (raw for (raw,) in self._do(sql, (entity,)))

    def meet(self, entity: str, key: str, turn: int) -> bool:
        """A row was met in a turn of a sweep; whether it was met in this turn for the first time."""
        sql = "SELECT turn FROM met WHERE entity = ? AND key = ?"
        found = self._do(sql, (entity, key)).fetchone()
        if found is None or found[0] != turn:
            self._do("INSERT OR REPLACE INTO met VALUES (?, ?, ?)", (entity, key, turn))
        return found is None or found[0] != turn

    def was_met(self, entity: str, key: str) -> bool:
        """Whether a row was met in this look."""
        sql = "SELECT 1 FROM met WHERE entity = ? AND key = ?"
        return self._do(sql, (entity, key)).fetchone() is not None

    def vanished(self, entity: str, turn: int) -> list[str]:
        """Keys that were told once and were not met in the turn."""
        sql = (
            "SELECT s.key FROM seen s LEFT JOIN met m ON m.entity = s.entity AND m.key = s.key "
            "AND m.turn = ? WHERE s.entity = ? AND m.key IS NULL ORDER BY s.key"
        )
        return [key for (key,) in self._do(sql, (turn, entity))]

    def forget(self, entity: str, keys: Iterable[str]) -> None:
        """They are gone."""
        for key in keys:
            self._do("DELETE FROM seen WHERE entity = ? AND key = ?", (entity, key))

    def sent(self, id_: str) -> tuple[str, str, str] | None:
        """Of an order that was written: the version told, the version that 1C gave it, its state."""
        sql = "SELECT told, version, state FROM sent WHERE id = ?"
        found: tuple[str, str, str] | None = self._do(sql, (id_,)).fetchone()
        return found

    def note_sent(self, id_: str, told: str, version: str, state: str) -> None:
        """Keep how an order stands, at once."""
        self._do("INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?)", (id_, told, version, state))  # fmt: skip

    def _do(self, sql: str, args: tuple[str | int | bytes | None, ...] = ()) -> sqlite3.Cursor:
        with _told(self._path):
            return self._db.execute(sql, args)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise _damaged(path, error) from None
        text = f"{path.name} is in use: another worker looks at this base; give each its own"
        raise Trouble("memory-in-use", text) from None
    except sqlite3.Error as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: sqlite3.Error) -> Trouble:
    # Nothing is lost with it but time: without it the next look is a full one.
    text = f"{path.name} cannot be used ({error}); remove it, the next look is a full one"
    return Trouble("memory-damaged", text, is_permanent=True)
