"""The plane's ledger: one file, two processes, leases, and nothing told twice or forgotten."""

import asyncio
import sqlite3
import threading
import time
from datetime import UTC, datetime

import msgspec
import pytest

from appliance.base.ids import uuid7
from quarantine import health, ledger
from quarantine.contract import (
    EngineRun,
    Fetched,
    Finding,
    Judged,
    Report,
    Verdict,
)
from quarantine.health import ScannerState
from quarantine.ledger import Ledger
from quarantine.store.faults import NoSpace, PlaceDown
from quarantine.store.incoming import Received
from tests.quarantine.planes import job

pytestmark = pytest.mark.anyio


@pytest.fixture
def books(tmp_path):
    found = Ledger(tmp_path / "ledger.sqlite3")
    yield found
    found.close()


def received(given, mark=""):
    return Received(given.blob, given.tenant, "0" * 64, 5, mark or given.blob.hex * 2, b"key")


async def add(books, *, priority=0, tenant=None, mark=""):
    given = msgspec.structs.replace(job(tenant), priority=priority)
    await books.run(lambda db: ledger.add_blob(db, given, received(given, mark)))
    return given


def take(books, holder="one"):
    return books.run(lambda db: ledger.take_job(db, holder))


def judged(blob, verdict=Verdict.CLEAN, signatures="s1", findings=()):
    engines = (EngineRun("clamd", "1", signatures, 0.5),)
    report = Report(verdict, "0" * 64, 5, "text/plain", findings, engines)
    return Judged(blob.id, blob.tenant, report, datetime.now(UTC))


def using(signatures):
    return ledger.scans_with(signatures, "") if signatures else ""


async def judge(books, blob, holder="one", *, now="s1", **more):
    word = judged(blob, **more)
    return await books.run(lambda db: ledger.judge(db, blob, holder, word, using(now)))


async def test_a_blob_is_taken_by_one_worker(books):
    now = time.time()
    assert not await books.peek(ledger.WAITING, now, now) and await take(books) is None
    given = await add(books)
    assert await books.peek(ledger.WAITING, time.time(), time.time())
    assert (await take(books)).id == given.blob and await take(books, "two") is None
    assert not await books.peek(ledger.WAITING, time.time(), time.time())


async def test_people_wait_for_no_rescan(books):
    again = await add(books, priority=ledger.RESCAN)
    person = await add(books)
    assert [(await take(books)).id for _ in range(2)] == [person.blob, again.blob]


async def test_the_lease_of_a_killed_worker_runs_out_and_its_word_counts_no_more(books):
    await add(books)
    blob = await take(books)
    assert await books.run(lambda db: ledger.keep_lease(db, blob.id, "one"))
    await books.run(lambda db: db.execute("UPDATE blob SET lease = 1"))
    assert (await take(books, "two")).id == blob.id
    assert not await books.run(lambda db: ledger.keep_lease(db, blob.id, "one"))
    assert not await judge(books, blob)
    assert not await books.run(lambda db: ledger.take_notices(db, 0))
    assert await judge(books, blob, "two")
    assert len(await books.run(lambda db: ledger.take_notices(db, 0))) == 1


async def test_what_the_worker_before_held_is_free_when_one_starts(books):
    await add(books)
    blob = await take(books)
    await books.run(ledger.free_leases)
    assert (await take(books, "two")).id == blob.id
    assert not await judge(books, blob) and await judge(books, blob, "two")


async def test_a_failure_waits_longer_each_time_and_a_missing_scanner_counts_as_none(books):
    await add(books)
    waits = []
    for _ in range(5):
        await books.run(lambda db: db.execute("UPDATE blob SET due = 0"))
        blob = await take(books)
        back = await books.run(
            lambda db, b=blob: ledger.put_back(db, b.id, "one", "no", failed=True)
        )
        (due,) = await books.run(lambda db: db.execute("SELECT due FROM blob").fetchone())
        waits.append((back, round((due - time.time()) / 60)))
    assert waits == [(1, 1), (2, 4), (3, 16), (4, 60), (5, 60)]
    await books.run(lambda db: db.execute("UPDATE blob SET due = 0"))
    blob = await take(books)
    for _ in range(9):
        down = await books.run(lambda db: ledger.put_back(db, blob.id, "one", "down", failed=False))
        await books.run(lambda db: db.execute("UPDATE blob SET due = 0"))
        assert down == 5 and await take(books)


async def test_notices_stay_until_they_are_taken(books):
    for _ in range(3):
        await add(books)
        await judge(books, await take(books))
    first = await books.run(lambda db: ledger.take_notices(db, 0, 2))
    again = await books.run(lambda db: ledger.take_notices(db, 0))
    assert [n.serial for n in first] == [1, 2] and [n.serial for n in again] == [1, 2, 3]
    left = await books.run(lambda db: ledger.take_notices(db, 2))
    assert [n.serial for n in left] == [3]
    await books.run(lambda db: ledger.take_notices(db, 3))
    await add(books)
    await judge(books, await take(books))
    assert [n.serial for n in await books.run(lambda db: ledger.take_notices(db, 3))] == [4]


async def test_new_signatures_ask_for_the_newest_and_most_read_first(books):
    blobs = []
    for _ in range(3):
        await add(books)
        blobs.append(await take(books))
        await judge(books, blobs[-1])
    read = Fetched(blobs[0].id, blobs[0].tenant, uuid7(), "t", 5, True, datetime.now(UTC))
    await books.run(lambda db: ledger.tell(db, read))
    assert await books.run(lambda db: ledger.rescan_older(db, using("s1"))) == 0
    assert await books.run(lambda db: ledger.rescan_older(db, using("s2"))) == 3
    order = [(await take(books)).id for _ in range(3)]
    assert order == [blobs[0].id, blobs[2].id, blobs[1].id]


async def test_what_was_scanned_with_former_signatures_is_scanned_again(books):
    """New ones came during the scan, after all older verdicts had been asked for."""
    await add(books)
    blob = await take(books)
    assert await books.run(lambda db: ledger.rescan_older(db, using("s2"))) == 0
    assert await judge(books, blob, signatures="s1", now="s2")
    stands = await books.run(lambda db: ledger.find_blob(db, blob.id))
    assert (stands.verdict, stands.signatures) == (Verdict.CLEAN, using("s1"))
    await books.run(lambda db: db.execute("UPDATE blob SET due = 0"))
    assert (await take(books)).id == blob.id
    assert await judge(books, blob, signatures="s2", now="s2") and await take(books) is None


async def test_what_was_rejected_or_judged_while_the_scanner_fell_is_not_scanned_again(books):
    for verdict, now in ((Verdict.REJECTED, "s2"), (Verdict.CLEAN, "")):
        await add(books)
        blob = await take(books)
        assert await judge(books, blob, verdict=verdict, now=now)
        await books.run(lambda db: db.execute("UPDATE blob SET due = 0"))
        assert await take(books) is None


async def test_equal_bytes_are_kept_once_and_go_with_their_last_blob(books):
    tenant, mark = uuid7(), "a" * 64
    first, second = [await add(books, tenant=tenant, mark=mark) for _ in range(2)]
    assert await books.run(lambda db: ledger.drop_blob(db, first.blob)) is None
    last = await books.run(lambda db: ledger.drop_blob(db, second.blob))
    assert last.blob == first.blob
    assert await books.run(lambda db: ledger.drop_blob(db, second.blob)) is None
    assert await books.run(lambda db: ledger.find_content(db, tenant, mark)) is None


async def test_figures_and_what_was_found(books):
    await add(books)
    await add(books)
    finding = Finding("clamd", "virus.found", Verdict.REJECTED, "Found.")
    await judge(books, await take(books), verdict=Verdict.REJECTED, findings=(finding,))
    found = await books.run(ledger.figures)
    assert (found["held"], found["stored"], found["bytes"], found["notices"]) == (1, 2, 10, 1)
    assert found["tally.verdicts.rejected"] == found["tally.findings.clamd"] == 1
    assert found["tally.seconds.clamd"] == 0.5 and 0 < found["oldest"] < 60


async def test_who_is_cancelled_leaves_no_transaction_open(books):
    inside, go = threading.Event(), threading.Event()

    def slow(db):
        db.execute("INSERT INTO note VALUES ('slow', 'x')")
        inside.set()
        go.wait(5)

    asked = asyncio.create_task(books.run(slow))
    await asyncio.to_thread(inside.wait, 5)
    asked.cancel()
    after = asyncio.create_task(
        books.run(lambda db: db.execute("SELECT count(*) FROM note").fetchone()[0])
    )
    await asyncio.sleep(0.05)
    assert not asked.done() and not after.done()
    go.set()
    assert await after == 1
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_a_full_disk_is_named_and_the_ledger_goes_on_after_it(books):
    (pages,) = await books.run(lambda db: db.execute("PRAGMA page_count").fetchone())
    await books.run(lambda db: db.execute(f"PRAGMA max_page_count = {pages + 1}").fetchone())
    with pytest.raises(NoSpace):
        await books.run(
            lambda db: db.execute("INSERT INTO note VALUES ('big', ?)", (b"x" * 100_000,))
        )
    await books.run(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
    await books.run(lambda db: db.execute("INSERT INTO note VALUES ('big', ?)", (b"x" * 100_000,)))


async def test_a_ledger_that_another_process_keeps_locked_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "_BUSY_S", 0.1)
    books = Ledger(tmp_path / "ledger.sqlite3")
    other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(PlaceDown):
        await books.run(lambda db: None)
    other.execute("ROLLBACK")
    await books.run(lambda db: None)
    other.close()
    books.close()


async def test_two_processes_take_each_blob_once(books, tmp_path):
    for _ in range(60):
        await add(books)
    other = Ledger(tmp_path / "ledger.sqlite3")

    async def work(own, holder):
        found = []
        while blob := await take(own, holder):
            found.append(blob.id)
        return found

    parts = await asyncio.gather(*(work(b, f"{n}") for n, b in enumerate((books, other) * 2)))
    other.close()
    everything = [i for part in parts for i in part]
    assert len(everything) == len(set(everything)) == 60


async def test_a_worker_that_is_not_heard_of_is_not_there(books):
    assert await books.run(health.read_state) == health.UNKNOWN
    said = ScannerState("ready", "Fine.", "s", time.time())
    await books.run(lambda db: health.write_state(db, said))
    assert await books.run(health.read_state) == said
    old = ScannerState("ready", "Fine.", "s", time.time() - health.STALE_S - 1)
    await books.run(lambda db: health.write_state(db, old))
    assert (await books.run(health.read_state)).scanner == "down"
