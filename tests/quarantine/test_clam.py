"""A real clamd, killed, stopped, reloaded and fed with what it must not pass; never wrongly clean."""

import asyncio
import contextlib
import io
import os
import random
import signal
import socket
import struct
import time
import zipfile
import zlib

import pytest

from quarantine.canary import CLEAN, EICAR, PATTERN, _encrypted, _nested
from quarantine.contract import Verdict
from quarantine.engines.base import Unscannable
from quarantine.engines.clam import ClamScanner, Patience, ScannerDown, SignaturesChanged
from quarantine.signatures import PROBE
from tests.runtime.conftest import until
from tests.runtime.scanner import running

pytestmark = pytest.mark.anyio
SHORT = Patience(connect_s=0.5, write_s=0.5, reply_s=0.7)


async def pieces(body, size=100_000):
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def scan(scanner, body, size=None):
    found = await scanner.scan(pieces(body), len(body) if size is None else size)
    return [(f.code, f.verdict) for f in found.findings]


def zipped(name, body):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(name, body)
    return archive.getvalue()


def pdf(body):
    """A document with one compressed stream."""
    packed = zlib.compress(body)
    head = f"4 0 obj<</Length {len(packed)}/Filter/FlateDecode>>stream\n".encode()
    return CLEAN.replace(b"trailer", head + packed + b"\nendstream\nendobj\ntrailer")


async def test_what_is_bad_is_found_and_what_is_good_passes(data):
    async with running(data) as one:
        scanner = ClamScanner(one.socket)
        found = [("virus.found", Verdict.REJECTED)]
        sheet = zipped("xl/sharedStrings.xml", b"<sst><si><t>" + EICAR + b"</t></si></sst>")
        inside = (zipped("a", zipped("b", EICAR)), sheet, pdf(EICAR))
        for body in (EICAR, b"text before " + EICAR, PATTERN, *inside):
            assert EICAR not in body or body not in inside
            assert await scan(scanner, body) == found
        noise = random.Random(1).randbytes(3_000_000)
        for body in (b"", b"x", CLEAN, pdf(b"good"), noise, zipped("a.txt", b"good")):
            assert await scan(scanner, body) == []
        assert await scan(scanner, noise + EICAR) == found
        path = data / "file"
        path.write_bytes(noise + EICAR)
        done = await scanner.scan(path, len(noise) + len(EICAR), place="a.zip/b")
        (finding,) = done.findings
        assert "Nexus.Test.Eicar" in finding.detail and finding.place == "a.zip/b"
        assert done.run.engine == "clamd" and done.run.version.startswith("ClamAV ")
        assert done.run.signatures == f"baseline-{one.ids()[1]}" and done.run.seconds > 0


async def test_what_it_cannot_see_through_is_held(data):
    async with running(data) as one:
        scanner = ClamScanner(one.socket)
        assert await scan(scanner, _encrypted()) == [("virus.encrypted", Verdict.SUSPICIOUS)]
        assert await scan(scanner, _nested()) == [("virus.limits", Verdict.SUSPICIOUS)]
        many = io.BytesIO()
        with zipfile.ZipFile(many, "w", zipfile.ZIP_DEFLATED) as out:
            for number in range(5_100):
                out.writestr(f"{number}.txt", b"x" * 10)
            out.writestr("last.txt", EICAR)
        assert await scan(scanner, many.getvalue()) == [("virus.limits", Verdict.SUSPICIOUS)]
        with pytest.raises(Unscannable, match="larger than the scanner takes"):
            await scan(scanner, bytes(111 << 20))
        assert await scan(scanner, CLEAN) == []


@pytest.mark.parametrize("wrong", [1, -1])
async def test_other_bytes_than_recorded_are_not_clean(data, wrong):
    size = len(CLEAN) + wrong
    has = "more" if wrong < 0 else len(CLEAN)
    async with running(data) as one:
        with pytest.raises(Unscannable, match=f"recorded with {size} bytes, but has {has}"):
            await scan(ClamScanner(one.socket), CLEAN, size)


async def test_a_scanner_that_is_killed_gives_no_word(data):
    async with running(data) as one:
        scanner = ClamScanner(one.socket, patience=SHORT)

        async def killed(after):
            for number in range(40):
                if number == after:
                    before = one.clamd._unit.restarts
                    os.kill(one.pid, signal.SIGKILL)
                    await until(lambda: one.clamd._unit.restarts > before)
                yield bytes(100_000)

        for after in (0, 1, 39):
            with pytest.raises(ScannerDown):
                await scanner.scan(killed(after), 4_000_000)
            await again(scanner)
        body = zipped("a", random.Random(2).randbytes(60_000_000))
        task = asyncio.create_task(scan(ClamScanner(one.socket), body))
        await asyncio.sleep(0.15)
        os.kill(one.pid, signal.SIGKILL)
        with pytest.raises(ScannerDown):
            await task
        await again(scanner)


async def again(scanner):
    """The supervisor brings it back, and it works."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(ScannerDown):
                assert await scan(scanner, EICAR) == [("virus.found", Verdict.REJECTED)]
                return
            await asyncio.sleep(0.1)


async def test_a_scanner_that_is_gone_or_hangs_gives_no_word(data):
    with pytest.raises(ScannerDown, match="does not take a connection"):
        await scan(ClamScanner(data / "nothing.sock"), CLEAN)
    async with running(data) as one:
        scanner = ClamScanner(one.socket, patience=SHORT)
        os.kill(one.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(ScannerDown, match="within 0.7 seconds"):
                await scan(scanner, CLEAN)
            assert time.monotonic() - began < 3

            with pytest.raises(ScannerDown):
                await scanner._stream(pieces(bytes(5_000_000)), 5_000_000)
        finally:
            os.kill(one.pid, signal.SIGCONT)

        async def stopped():
            yield bytes(100_000)
            os.kill(one.pid, signal.SIGSTOP)
            yield bytes(100_000)

        try:
            with pytest.raises(ScannerDown):
                await scanner.scan(stopped(), 200_000)
        finally:
            os.kill(one.pid, signal.SIGCONT)
        await again(scanner)


async def test_a_scan_over_a_reload_is_done_again(data):
    async with running(data) as one:
        scanner = ClamScanner(one.socket)

        async def changing():
            yield b"a" * 10
            one.add("own.ndb", f"Own.Sign:0:*:{b'marker-of-the-firm'.hex()}\n")
            was = await one.clamd.loaded()
            async with asyncio.timeout(20):
                while await one.clamd.loaded() in ("", was):
                    await asyncio.sleep(0.05)
            yield b"b" * 10

        with pytest.raises(ScannerDown) as raised:
            await scanner.scan(changing(), 20)
        assert isinstance(raised.value, SignaturesChanged)
        assert await scan(scanner, b"the marker-of-the-firm") == [("virus.found", Verdict.REJECTED)]
        assert (await scanner.identify()).level == "local"


async def test_scans_run_beside_each_other(data):
    async with running(data) as one:
        scanner = ClamScanner(one.socket)
        noise = random.Random(3).randbytes(5_000_000)
        bodies = [noise + EICAR if n % 3 == 0 else noise for n in range(12)]
        answers = await asyncio.gather(*(scan(scanner, body) for body in bodies))
        assert [bool(found) for found in answers] == [n % 3 == 0 for n in range(12)]


async def test_baseline_signatures_count_only_where_that_is_allowed(data):
    async with running(data) as one:
        with pytest.raises(ScannerDown, match="baseline_is_enough"):
            await scan(ClamScanner(one.socket, baseline_is_enough=False), CLEAN)


VERSION = b"ClamAV 1.4.6/27800/Sat Nov 21 08:11:02 2026\0"
OK, FOUND = b"stream: OK\0", b"stream: X.Y FOUND\0"
ANSWERS = [
    b"", b"stream: OK", b"stream: OK\n", b"stream: OK\0\0", b"stream: OK\0 ", b" stream: OK\0",
    b"stream: ok\0", b"1: stream: OK\0", b"OK\0", b"stream: OK\0stream: OK\0", b"PONG\0",
    b"stream: FOUND\0", b"stream: X FOUND", b"stream: X ERROR\0", b"UNKNOWN COMMAND\0",
    b"stream: Can't allocate memory ERROR\0", b"x" * 9_000, FOUND + OK, b"\xff\xfe\0",
]  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
async def test_an_answer_that_is_not_exact_is_no_word(data, answer):
    async with speaking(data, answer) as path:
        with pytest.raises(ScannerDown):
            await scan(ClamScanner(path, patience=SHORT), CLEAN)


async def test_the_exact_answers_count(data):
    async with speaking(data, OK) as path:
        assert await scan(ClamScanner(path), CLEAN) == []
    async with speaking(data, FOUND) as path:
        assert await scan(ClamScanner(path), CLEAN) == [("virus.found", Verdict.REJECTED)]
    for name, code in (
        ("Heuristics.Limits.Exceeded.MaxFileSize", "virus.limits"),
        ("Heuristics.Encrypted.PDF", "virus.encrypted"),
        ("Heuristics.OLE2.ContainsMacros.VBA", "virus.macros"),
        ("Heuristics.Broken.Executable", "virus.broken"),
    ):
        async with speaking(data, f"stream: {name} FOUND\0".encode()) as path:
            assert await scan(ClamScanner(path), CLEAN) == [(code, Verdict.SUSPICIOUS)]
    async with speaking(data, b"stream: Heuristics.Exploit.X FOUND\0") as path:
        assert await scan(ClamScanner(path), CLEAN) == [("virus.found", Verdict.REJECTED)]


async def test_an_ok_without_a_clean_end_is_no_word(data):
    for how in ("stays open", "is reset"):
        async with speaking(data, OK, end=how) as path:
            with pytest.raises(ScannerDown):
                await scan(ClamScanner(path, patience=SHORT), CLEAN)


@contextlib.asynccontextmanager
async def speaking(data, answer, end="closes"):
    """Something at a scanner's socket that says its version, and `answer` to every file."""
    path = data / f"{len(list(data.iterdir()))}.sock"
    loop = asyncio.get_running_loop()

    async def read(line, size):
        found = b""
        while len(found) < size:
            found += await loop.sock_recv(line, size - len(found))
        return found

    async def talk(line):
        with contextlib.suppress(OSError), line:
            if await read(line, 9) == b"zVERSION\0":
                return await loop.sock_sendall(line, VERSION)
            await read(line, len(b"zINSTREAM\0") - 9)
            said = answer
            while size := struct.unpack(">I", await read(line, 4))[0]:
                if size == len(PROBE):
                    said = OK
                elif end == "is reset":
                    break  # Ended with something unread, which the other side gets as an error.
                await read(line, size)
            await loop.sock_sendall(line, said)
            if size or (said is answer and end == "stays open"):
                await asyncio.sleep(0.2 if size else 5)

    async def listen():
        with socket.socket(socket.AF_UNIX) as server:
            server.setblocking(False)
            server.bind(str(path))
            server.listen()
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(talk((await loop.sock_accept(server))[0]))

    task = asyncio.create_task(listen())
    try:
        while not path.exists():
            await asyncio.sleep(0.01)
        yield path
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
