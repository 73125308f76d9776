"""What the plane knows of its blobs: one SQLite file, shared by its two processes.

Promises: every step is one transaction, durable when it returns; a scan is held by a lease, so a
killed worker's file is scanned by the next one; what the node has to be told stays in `notice`
until the node says that it has it. It is the plane's own store: no server, no credentials.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from quarantine.contract import (
    POLICY_REVISION,
    Fetched,
    Finding,
    Judged,
    Notice,
    Policy,
    Report,
    ScanJob,
    Verdict,
)
from quarantine.store.contents import Content, Joined, join, leave, mend
from quarantine.store.faults import NoSpace, PlaceDown, StoreFault
from quarantine.store.incoming import Received
from quarantine.store.threads import to_the_end

T = TypeVar("T")
LEASE_S = 20.0
RETRIES = 5
RETRY_FIRST_S, RETRY_MAX_S = 60.0, 3_600.0
DOWN_RETRY_S = 2.0
STALE_RETRY_S = 10.0
RESCAN = 5
SCANNER, PACKED = "clamd", ("rules", "denied")
_BUSY_S = 20.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tenant (id TEXT PRIMARY KEY, wrapped BLOB, erased INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS content (
  tenant TEXT, mark TEXT, blob TEXT, wrapped BLOB, size INTEGER, refs INTEGER, settled INTEGER,
  PRIMARY KEY (tenant, mark));
CREATE TABLE IF NOT EXISTS blob (
  id TEXT PRIMARY KEY, tenant TEXT, name TEXT, policy BLOB, mark TEXT, sha256 TEXT,
  size INTEGER, received REAL, todo INTEGER, priority INTEGER, rank REAL, due REAL, lease REAL,
  holder TEXT, attempts INTEGER DEFAULT 0, why TEXT DEFAULT '', verdict TEXT, judged REAL,
  signatures TEXT DEFAULT '', reads INTEGER DEFAULT 0);
CREATE INDEX IF NOT EXISTS blob_todo ON blob (priority, rank) WHERE todo = 1;
CREATE TABLE IF NOT EXISTS notice (serial INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB);
CREATE TABLE IF NOT EXISTS note (name TEXT PRIMARY KEY, body BLOB);
CREATE TABLE IF NOT EXISTS tally (name TEXT PRIMARY KEY, value REAL);
"""
_COLUMNS = (
    "id, tenant, name, policy, mark, sha256, size, received, attempts, why, verdict, judged, "
    "signatures, reads"
)


_OPEN = "todo = 1 AND due <= ? AND (lease IS NULL OR lease < ?)"
WAITING = f"SELECT 1 FROM blob WHERE {_OPEN}"
"""Whether there is a job to take; both values are the moment of asking."""


class Blob(msgspec.Struct, frozen=True):
    """One row: bytes that the plane holds for the node. Times are Unix seconds."""

    id: UUID
    tenant: UUID
    name: str
    policy: Policy
    mark: str
    sha256: str
    size: int
    received: float
    attempts: int
    why: str
    verdict: Verdict | None
    judged: float | None
    signatures: str
    reads: int


class Ledger:
    """All statements run in a thread, one at a time for each process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._db = sqlite3.connect(
            path, timeout=_BUSY_S, check_same_thread=False, isolation_level=None
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        # A key that is forgotten is nowhere: also not in a page that is free.
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.executescript(_SCHEMA)
        self._lock = asyncio.Lock()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work` in a transaction of its own. Raises NoSpace, PlaceDown when it is not written."""
        async with self._lock:
            # Who is cancelled waits: the connection is in a transaction until the thread ends it.
            return await to_the_end(partial(self._within, work))

    async def peek(self, sql: str, *values: object) -> bool:
        """Whether a query finds anything; takes no lock, so that a look is cheap."""
        async with self._lock:
            try:
                return self._db.execute(sql, values).fetchone() is not None
            except sqlite3.OperationalError as error:
                raise _fault(error) from error

    def _within(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            found = work(self._db)
            self._db.execute("COMMIT")
        except BaseException as error:
            # A full disk ends some transactions by itself, and fails in others only at the end.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise _fault(error) from error
            raise
        return found

    async def forget_log(self) -> None:
        """Empty the write-ahead log, in which what was deleted still stands. Raises PlaceDown."""
        async with self._lock:
            await to_the_end(self._empty_log)

    def _empty_log(self) -> None:
        try:
            (busy, *_) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError as error:
            raise _fault(error) from error
        if busy:
            raise PlaceDown("empty the log of its ledger")

    def close(self) -> None:
        """Give the file back."""
        self._db.close()


def _fault(error: sqlite3.OperationalError) -> StoreFault:
    if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return NoSpace("what the ledger has to note")
    return PlaceDown("write its ledger")


def find_blob(db: sqlite3.Connection, ident: UUID) -> Blob | None:
    """One blob, None when it is unknown or purged."""
    row = db.execute(f"SELECT {_COLUMNS} FROM blob WHERE id = ?", (ident.hex,)).fetchone()
    return _blob(row) if row else None


def add_blob(db: sqlite3.Connection, job: ScanJob, received: Received) -> Joined:
    """A blob that is whole and waits for its scan; equal bytes of the tenant are kept once."""
    joined = join(find_content(db, received.tenant, received.mark), received)
    put_content(db, joined.content)
    now = time.time()
    db.execute(
        "INSERT INTO blob (id, tenant, name, policy, mark, sha256, size, received, todo, "
        "priority, rank, due) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?)",
        (job.blob.hex, job.tenant.hex, job.name, msgspec.json.encode(job.policy), received.mark,
         received.sha256, received.size, now, job.priority, now, now),
    )  # fmt: skip
    return joined


def find_content(db: sqlite3.Connection, tenant: UUID, mark: str) -> Content | None:
    """What is stored of equal bytes in this tenant."""
    row = db.execute(
        "SELECT * FROM content WHERE tenant = ? AND mark = ?", (tenant.hex, mark)
    ).fetchone()
    return _content(row) if row else None


def put_content(db: sqlite3.Connection, content: Content) -> None:
    """Write a content's row as it is to be."""
    db.execute(
        "INSERT OR REPLACE INTO content VALUES (?, ?, ?, ?, ?, ?, ?)",
        (content.tenant.hex, content.mark, content.blob.hex, content.wrapped_key, content.size,
         content.references, content.settled),
    )  # fmt: skip


def mend_content(db: sqlite3.Connection, received: Received) -> Content | None:
    """Let bytes that came again take the place of what is damaged or lost, for all blobs of it,
    which are then judged anew; what lies there until then, None when it is gone by now. The blob
    that brought them was added before.
    """
    known = find_content(db, received.tenant, received.mark)
    if known is None:
        return None
    others = msgspec.structs.replace(known, references=known.references - 1)
    put_content(db, mend(others, received).content)
    db.execute(
        "UPDATE blob SET todo = 1, due = 0, attempts = 0 WHERE tenant = ? AND mark = ?",
        (received.tenant.hex, received.mark),
    )
    return known


def unsettled(db: sqlite3.Connection) -> list[Content]:
    """Contents that were whole when a process died and are not known to be at their place."""
    return [_content(r) for r in db.execute("SELECT * FROM content WHERE settled = 0")]


def drop_blob(db: sqlite3.Connection, ident: UUID) -> Content | None:
    """Forget a blob; the content when this was its last reference (its key is gone with it)."""
    row = db.execute("SELECT tenant, mark FROM blob WHERE id = ?", (ident.hex,)).fetchone()
    if row is None:
        return None
    db.execute("DELETE FROM blob WHERE id = ?", (ident.hex,))
    content = find_content(db, UUID(row[0]), row[1])
    left = leave(content) if content is not None else None
    if left is None or not left.gone:
        if left is not None:
            put_content(db, left.content)
        return None
    db.execute("DELETE FROM content WHERE tenant = ? AND mark = ?", row)
    return content


def take_job(db: sqlite3.Connection, holder: str) -> Blob | None:
    """The next blob to scan, under a lease; people's files before rescans."""
    now = time.time()
    row = db.execute(
        f"UPDATE blob SET lease = ?, holder = ? WHERE id = (SELECT id FROM blob WHERE {_OPEN} "
        f"ORDER BY priority, rank LIMIT 1) RETURNING {_COLUMNS}",
        (now + LEASE_S, holder, now, now),
    ).fetchone()
    return _blob(row) if row else None


def free_leases(db: sqlite3.Connection) -> None:
    """A worker starts: what the one before it held is free at once. Were that one alive after all,
    a blob would be scanned twice, and judged once.
    """
    db.execute("UPDATE blob SET lease = NULL, holder = NULL WHERE lease IS NOT NULL")


def keep_lease(db: sqlite3.Connection, ident: UUID, holder: str) -> bool:
    """Prolong; False when another worker has it by now."""
    done = db.execute(
        "UPDATE blob SET lease = ? WHERE id = ? AND holder = ?",
        (time.time() + LEASE_S, ident.hex, holder),
    )
    return bool(done.rowcount)


def put_back(db: sqlite3.Connection, ident: UUID, holder: str, why: str, *, failed: bool) -> int:
    """The scan did not come to an end: again later; how often it failed. Waiting for a scanner is
    no failure of the file.
    """
    row = db.execute(
        "SELECT attempts FROM blob WHERE id = ? AND holder = ?", (ident.hex, holder)
    ).fetchone()
    if row is None:
        return 0
    attempts = int(row[0]) + failed
    wait = min(RETRY_FIRST_S * 4 ** (attempts - 1), RETRY_MAX_S) if failed else DOWN_RETRY_S
    db.execute(
        "UPDATE blob SET lease = NULL, holder = NULL, attempts = ?, due = ?, why = ? WHERE id = ?",
        (attempts, time.time() + wait, why[:500], ident.hex),
    )
    return attempts


def scans_with(scanner: str, packs: str, policy: int = POLICY_REVISION) -> str:
    """One word for all that a verdict hangs on besides the bytes: the scanner's signatures, the
    rule packs and the revision of our checks. Another word asks for all verdicts anew.
    """
    return f"{scanner}/{packs}/policy.{policy}"


def _scanned_with(report: Report, otherwise: str) -> str:
    by = {run.engine: run.signatures for run in report.engines}
    if SCANNER not in by:
        return otherwise
    packs = dict.fromkeys(by[name] for name in PACKED if name in by)
    return scans_with(by[SCANNER], "|".join(packs), report.policy_revision)


def judge(db: sqlite3.Connection, blob: Blob, holder: str, judged: Judged, signatures: str) -> bool:
    """Write the verdict down and tell the node; False when the lease was lost meanwhile.

    `signatures` is what is scanned with now (`scans_with`), empty while the scanner is down. What
    was scanned with others is asked for again: when all older verdicts were, this one was not
    there yet.
    """
    report = judged.report
    used = _scanned_with(report, signatures)
    again = signatures not in ("", used) and report.verdict is not Verdict.REJECTED
    done = db.execute(
        "UPDATE blob SET todo = ?, due = ?, priority = ?, lease = NULL, holder = NULL, "
        "attempts = 0, why = '', verdict = ?, judged = ?, signatures = ? WHERE id = ? "
        "AND holder = ?",
        (again, time.time() + STALE_RETRY_S, RESCAN, report.verdict.value,
         judged.judged_at.timestamp(), used, blob.id.hex, holder),
    )  # fmt: skip
    if not done.rowcount:
        return False
    tell(db, judged)
    _count(db, f"verdicts.{report.verdict}", 1)
    for finding in report.findings:
        _count(db, f"findings.{finding.engine}", 1)
    for run in report.engines:
        _count(db, f"seconds.{run.engine}", run.seconds)
        _count(db, f"runs.{run.engine}", 1)
    return True


def ask_again(db: sqlite3.Connection, ident: UUID, priority: int) -> bool:
    """Scan a blob once more, its present verdict standing until then."""
    done = db.execute(
        "UPDATE blob SET todo = 1, priority = ?, rank = ?, due = 0 WHERE id = ?",
        (priority, time.time(), ident.hex),
    )
    return bool(done.rowcount)


def rescan_older(db: sqlite3.Connection, signatures: str) -> int:
    """Ask again for every verdict of other signatures: the newest and most read first."""
    done = db.execute(
        "UPDATE blob SET todo = 1, priority = ?, rank = -(received + reads * 86400.0), due = 0 "
        "WHERE todo = 0 AND verdict IN ('clean', 'suspicious') AND signatures <> ?",
        (RESCAN, signatures),
    )
    return done.rowcount


def tell(db: sqlite3.Connection, what: Judged | Fetched) -> None:
    """Something for the node to take."""
    db.execute("INSERT INTO notice (body) VALUES (?)", (msgspec.json.encode(what),))
    if isinstance(what, Fetched):
        db.execute("UPDATE blob SET reads = reads + 1 WHERE id = ?", (what.file.hex,))


def take_notices(db: sqlite3.Connection, taken: int, most: int = 100) -> list[Notice]:
    """Forget what the node has taken; the next ones."""
    db.execute("DELETE FROM notice WHERE serial <= ?", (taken,))
    rows = db.execute("SELECT serial, body FROM notice ORDER BY serial LIMIT ?", (most,)).fetchall()
    decode = msgspec.json.Decoder(Judged | Fetched).decode
    return [Notice(serial, decode(body)) for serial, body in rows]


def figures(db: sqlite3.Connection) -> dict[str, float]:
    """Counts for the status: held, the age of the oldest, stored, bytes, notices, and all tallies."""
    held, oldest = db.execute(
        "SELECT count(*), min(received) FROM blob WHERE verdict IS NULL"
    ).fetchone()
    stored, size = db.execute("SELECT count(*), COALESCE(sum(size), 0) FROM content").fetchone()
    (notices,) = db.execute("SELECT count(*) FROM notice").fetchone()
    known = {
        "held": held, "oldest": time.time() - oldest if oldest else 0.0, "stored": stored,
        "bytes": size, "notices": notices,
    }  # fmt: skip
    return {**known, **{f"tally.{n}": v for n, v in db.execute("SELECT name, value FROM tally")}}


def _count(db: sqlite3.Connection, name: str, by: float) -> None:
    db.execute(
        "INSERT INTO tally VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        (name, by),
    )


def _blob(row: tuple[Any, ...]) -> Blob:
    ident, tenant, name, policy, mark, *rest = row
    sha256, size, received, attempts, why, verdict, judged, signatures, reads = rest
    return Blob(
        UUID(str(ident)), UUID(str(tenant)), str(name),
        msgspec.json.decode(policy, type=Policy),
        str(mark), str(sha256), int(str(size)), float(str(received)),
        int(str(attempts)), str(why), Verdict(verdict) if verdict else None,
        float(str(judged)) if judged is not None else None, str(signatures), int(str(reads)),
    )  # fmt: skip


def _content(row: tuple[Any, ...]) -> Content:
    tenant, mark, blob, wrapped, size, refs, settled = row
    return Content(UUID(tenant), mark, UUID(blob), wrapped, size, refs, bool(settled))


def unscannable(blob: Blob, why: str) -> Report:
    """The report on a blob that no engine came to an end with: a person has to look."""
    finding = Finding("pipeline", "pipeline.unscannable", Verdict.SUSPICIOUS, why[:300])
    return Report(
        Verdict.SUSPICIOUS, blob.sha256, blob.size, "application/octet-stream", (finding,)
    )
