"""The scanning process beside a real clamd: what is killed, hung, full or damaged, and what then.

In each case: what is hostile is never clean, what is benign gets clean by itself in the end, and
meanwhile the reason says what it waits for.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time

import pytest

from appliance.base.errors import Refused, StorageFull, Unavailable
from quarantine.contract import Judged, Verdict
from tests.http.conftest import valkey_url  # noqa: F401
from tests.quarantine.planes import HOSTILE, TEXT, job, open_folder, pieces, plane, until
from tests.runtime.scanner import Running, program, running

pytestmark = pytest.mark.anyio
MARK = b"a mark that the operator's own rule knows, 5f1c"
OWN = f"Own.Mark:0:*:{MARK.hex()}\n"
LONG = TEXT * 250_000
CLEAN, REJECTED = Verdict.CLEAN, Verdict.REJECTED


@pytest.fixture
def data():
    with open_folder() as found:
        yield found


@pytest.fixture
async def clamd(data):
    async with running(data, prepare=lambda one: one.add("own.ndb", OWN)) as found:
        yield found


@pytest.fixture
async def bench(clamd, valkey_url):  # noqa: F811
    async with plane(valkey_url, clamd.socket) as found:
        await found.state("ready")
        yield found


async def is_leased(bench):
    return bench.ledger("SELECT 1 FROM blob WHERE lease IS NOT NULL")


async def test_without_a_scanner_files_are_held_and_go_on_by_themselves(data, valkey_url):  # noqa: F811
    async with plane(valkey_url, Running(data, data / "none").socket) as bench:
        await bench.state("down")
        good, bad = await bench.bring(), await bench.bring(HOSTILE)

        async def named():
            # Before the worker's first word the plane says that nobody scans.
            return "scanner" in (await bench.why(good)).lower()

        await until(named)
        assert await bench.hear() == []
        async with running(data):
            (verdict, took), (other, _) = await bench.verdict(good), await bench.verdict(bad)
            assert (verdict, other) == (CLEAN, REJECTED)
        # The worker takes it for up, asks, and gets no answer that counts.
        again = await bench.bring(TEXT + b"again")

        async def says():
            return "scanner" in (await bench.why(again)).lower()

        await until(says)
        assert (await bench.client.look(bench.tenant, again)).attempts == 0
        async with running(data):
            assert (await bench.verdict(again))[0] is CLEAN
        print(f"the scanner is back: judged {took:.1f} s later by itself")


async def test_a_scanner_killed_before_and_during_a_scan_costs_no_file(bench, clamd):
    os.kill(clamd.pid, signal.SIGKILL)
    before = await bench.bring()
    good, bad = await bench.bring(LONG), await bench.bring(LONG + MARK)
    kills = 0
    for _ in range(3):
        await until(lambda: is_leased(bench))
        await asyncio.sleep(0.15)
        with contextlib.suppress(ProcessLookupError):
            os.kill(clamd.pid, signal.SIGKILL)
            kills += 1
    found = [(await bench.verdict(b, 40))[0] for b in (before, good, bad)]
    assert found == [CLEAN, CLEAN, REJECTED] and kills
    heard = [n.report.verdict for n in await bench.hear() if n.blob == bad]
    assert heard == [REJECTED], "never clean on the way"
    assert [n.blob for n in await bench.hear()].count(good) == 1


async def test_a_scanner_that_hangs_is_waited_for(bench, clamd):
    os.kill(clamd.pid, signal.SIGSTOP)
    try:
        good, bad = await bench.bring(), await bench.bring(HOSTILE)
        await asyncio.sleep(0.5)
        assert (await bench.client.look(bench.tenant, good)).verdict is None
    finally:
        os.kill(clamd.pid, signal.SIGCONT)
    assert (await bench.verdict(good))[0] is CLEAN and (await bench.verdict(bad))[0] is REJECTED


@pytest.mark.slow
async def test_a_scanner_that_hangs_is_said_to(bench, clamd):
    os.kill(clamd.pid, signal.SIGSTOP)
    try:
        good, bad = await bench.bring(), await bench.bring(HOSTILE)
        sentence, took = await bench.state("down")
        assert "hangs" in sentence
        assert (await bench.client.look(bench.tenant, good)).verdict is None
    finally:
        os.kill(clamd.pid, signal.SIGCONT)
    assert (await bench.verdict(good))[0] is CLEAN and (await bench.verdict(bad))[0] is REJECTED
    print(f"hung: said after {took:.1f} s")


async def test_new_signatures_come_during_uploads_and_recall_what_they_know(bench, clamd):
    mark = b"what only tomorrow's rule knows, 77ab"
    old = await bench.bring(TEXT + mark)
    assert (await bench.verdict(old))[0] is CLEAN
    began = time.monotonic()
    clamd.add("new.ndb", f"Own.New:0:*:{mark.hex()}\n")
    brought = []

    async def is_recalled():
        if len(brought) < 40:
            brought.append(await bench.bring(TEXT + b"%d" % len(brought)))
        return (await bench.client.look(bench.tenant, old)).verdict is REJECTED

    await until(is_recalled, 60)
    took = time.monotonic() - began
    assert {(await bench.verdict(b))[0] for b in brought} == {CLEAN}
    told = [n.report for n in await bench.hear() if n.blob == old]
    assert [r.verdict for r in told] == [CLEAN, REJECTED]
    assert "Own.New" in told[-1].findings[0].detail and took < 60
    print(f"a new signature: recalled {took:.1f} s after it was dropped in")


async def test_a_broken_rule_file_stops_nobody(bench, clamd):
    clamd.add("bad.yar", "rule broken { strings: $a = nonsense condition: $a }")
    clamd.add("bad.ndb", "not:a:signature\n")
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        blob = await bench.bring(TEXT + os.urandom(8).hex().encode())
        bad = await bench.bring(TEXT + MARK + os.urandom(8).hex().encode())
        assert (await bench.verdict(blob))[0] is CLEAN and (await bench.verdict(bad))[0] is REJECTED


@contextlib.asynccontextmanager
async def bare_clamd(folder, name, **files):
    """A clamd that is not ours, over these signatures; with none it does not start."""
    database = folder / name
    database.mkdir()
    for file, text in files.items():
        (database / file.replace("_", ".")).write_text(text)
    conf = folder / f"{name}.conf"
    conf.write_text(
        f"Foreground yes\nLocalSocket {folder}/bare.sock\nFixStaleSocket yes\n"
        f"DatabaseDirectory {database}\nTemporaryDirectory {folder}\nIdleTimeout 2\n"
    )
    child = subprocess.Popen(
        [program(), f"--config-file={conf}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.mark.slow
async def test_a_scanner_that_knows_nothing_releases_nothing(data, valkey_url):  # noqa: F811
    async with plane(valkey_url, data / "bare.sock") as bench:
        async with bare_clamd(data, "empty") as child:
            blob = await bench.bring()
            await asyncio.to_thread(child.wait, 10)
            await bench.state("down")
        async with bare_clamd(data, "blind", own_ndb=OWN):

            async def is_blind():
                return "instead of virus.found" in (await bench.client.status()).sentence

            await until(is_blind)
            await asyncio.sleep(0.5)
            assert "instead of virus.found" in await bench.why(blob)
            assert (await bench.client.look(bench.tenant, blob)).verdict is None
        async with running(data) as ours:
            (data / "bare.sock").unlink(missing_ok=True)
            (data / "bare.sock").symlink_to(ours.socket)
            assert (await bench.verdict(blob))[0] is CLEAN


async def test_a_worker_killed_at_every_step_loses_nothing(bench):
    processes = bench.processes
    processes.kill("work")
    before, bad = await bench.bring(), await bench.bring(HOSTILE)
    processes.start("work")
    assert (await bench.verdict(before))[0] is CLEAN and (await bench.verdict(bad))[0] is REJECTED
    during = await bench.bring(LONG)
    scratch = processes.folder / "scratch"

    async def has_plaintext():
        return any(p.is_file() for p in scratch.iterdir())

    await until(has_plaintext, every=0.01)
    processes.kill("work")
    processes.start("work")
    assert (await bench.verdict(during))[0] is CLEAN
    assert not await has_plaintext(), "none is left"
    # After the verdict, before the node took it: both die.
    processes.kill("work")
    processes.kill("serve")
    processes.start("serve")
    heard = await bench.hear()
    assert sorted(n.blob for n in heard) == sorted((before, bad, during))
    assert await bench.hear() == heard, "told once it is taken, not again"


async def test_serving_killed_in_the_middle_of_an_upload_keeps_nothing_half(bench):
    given, going = job(bench.tenant), asyncio.Event()

    async def slowly():
        for piece in range(200):
            yield LONG[:500_000]
            if piece == 10:
                going.set()
                await asyncio.sleep(0.3)

    upload = asyncio.create_task(bench.client.put(given, slowly()))
    await going.wait()
    await asyncio.sleep(0.1)
    assert bench.waiting()
    bench.processes.kill("serve")
    with pytest.raises(Unavailable):
        await upload
    bench.processes.start("serve")
    assert await bench.is_gone(given.blob), "its half goes with the next sweep"
    assert [name.partition(".")[2] for name in bench.waiting()] == ["part"]
    assert (await bench.verdict(await bench.bring()))[0] is CLEAN


async def test_a_sender_that_breaks_off_leaves_nothing(bench):
    given = job(bench.tenant)

    async def torn():
        yield LONG[:3_000_000]
        raise KeyError

    with pytest.raises(KeyError):
        await bench.client.put(given, torn())

    async def is_clear():
        return not bench.waiting()

    await until(is_clear)
    assert await bench.is_gone(given.blob)


async def test_other_bytes_under_one_number_are_refused(bench):
    given = job(bench.tenant)
    await bench.client.put(given, pieces(TEXT))
    with pytest.raises(Refused, match="changed"):
        await bench.client.put(given, pieces(HOSTILE))
    await bench.client.put(given, pieces(TEXT))
    assert (await bench.verdict(given.blob))[0] is CLEAN
    assert b"".join([p async for p in bench.client.read(bench.tenant, given.blob)]) == TEXT


def flip(bench, blob):
    ((sealed,),) = bench.ledger(
        "SELECT content.blob FROM content JOIN blob USING (tenant, mark) WHERE id = ?", blob.hex
    )
    (path,) = (bench.processes.folder / "store").rglob(f"*.{sealed}")
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


async def test_flipped_bytes_are_never_released_nor_served(bench):
    bench.processes.kill("work")
    never = await bench.bring(TEXT * 50)
    flip(bench, never)
    bench.processes.start("work")

    async def says():
        why = await bench.why(never)
        return why if "is not what was stored" in why else ""

    await until(says)
    once = await bench.bring(TEXT * 60)
    assert (await bench.verdict(once))[0] is CLEAN
    flip(bench, once)
    with pytest.raises(Unavailable):
        async for _ in bench.client.read(bench.tenant, once):
            pass
    bench.ledger("UPDATE blob SET attempts = 4, due = 0 WHERE id = ? RETURNING id", never.hex)
    assert (await bench.verdict(never))[0] is Verdict.SUSPICIOUS
    (told,) = [n for n in await bench.hear() if isinstance(n, Judged) and n.blob == never]
    assert told.report.findings[0].code == "pipeline.unscannable"
    with pytest.raises(Refused):
        async for _ in bench.client.read(bench.tenant, never):
            pass


def mount_small(folder, megabytes):
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("a small file system can only be mounted by root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        capture_output=True,
    )
    if done.returncode:
        pytest.skip("mounting a small file system is not allowed here")


async def test_a_full_disk_refuses_by_name_and_heals(clamd, valkey_url, data):  # noqa: F811
    disk = data / "disk"
    disk.mkdir()
    mount_small(disk, 140)
    try:
        async with plane(valkey_url, clamd.socket, folder=disk) as bench:
            kept = await bench.bring(TEXT * 1000)
            assert (await bench.verdict(kept))[0] is CLEAN
            with pytest.raises(StorageFull):
                await bench.client.put(job(bench.tenant), pieces(os.urandom(100_000_000)))
            assert not bench.waiting()
            bench.processes.kill("work")
            waits = await bench.bring(TEXT * 2000)
            ballast = disk / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(b"\0" * 65_536) == 65_536:
                    pass
            bench.processes.start("work")
            with pytest.raises(StorageFull):
                await bench.bring(b"one more")
            assert not bench.waiting()
            body = [p async for p in bench.client.read(bench.tenant, kept)]
            assert b"".join(body) == TEXT * 1000
            assert (await bench.client.look(bench.tenant, waits)).verdict is None
            ballast.unlink()
            if bench.processes.running["work"].poll() is not None:
                bench.processes.start("work")
            (verdict, took) = await bench.verdict(waits)
            assert verdict is CLEAN and (await bench.verdict(await bench.bring()))[0] is CLEAN
            print(f"disk full: refused by name; judged {took:.1f} s after there was space")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.slow
async def test_a_scratch_without_room_is_no_fault_of_the_file(clamd, valkey_url, data):  # noqa: F811
    scratch = data / "scratch"
    scratch.mkdir()
    mount_small(scratch, 8)
    try:
        async with plane(valkey_url, clamd.socket, scratch=scratch) as bench:
            await bench.state("ready")
            blob = await bench.bring(LONG)

            async def says():
                return "no room to look into it" in await bench.why(blob)

            await until(says)
            assert str(scratch) not in await bench.why(blob)
            assert (await bench.client.look(bench.tenant, blob)).attempts == 0
            subprocess.run(["mount", "-o", "remount,size=64m", str(scratch)], check=True)
            assert (await bench.verdict(blob))[0] is CLEAN
    finally:
        subprocess.run(["umount", "-l", str(scratch)], check=False)
