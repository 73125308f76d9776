"""A file through our client of clamd, against a bare loop over the same socket, in turns.

The floor says nothing of which signatures are loaded and takes any answer; ours asks before and
after, counts the bytes, and takes only the exact one.
"""

import asyncio
import os
import random
import socket
import statistics
import tempfile
import time
from pathlib import Path

from quarantine.canary import check_scanner
from quarantine.engines.clam import ClamScanner
from tests.bench import harness
from tests.runtime.scanner import running

SIZES = ((1, 31), (10, 7), (100, 3))
CHUNK = 64 * 1024
TEXT = b"4820000;\xd0\xa1\xd1\x82\xd1\x96\xd0\xbb;12.50;2026-11-20\n"


async def main():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        async with running(Path(folder)) as one:
            harness.figure("clamd with baseline signatures (RSS)", rss(one.pid), "MB", "< 50")
            scanner = ClamScanner(one.socket)
            for kind, make in (("random bytes", random.Random(5).randbytes), ("text", text)):
                for megabytes, rounds in SIZES:
                    path = Path(folder) / "blob"
                    path.write_bytes(make(megabytes * 1_000_000))
                    await compare(scanner, path, f"{megabytes} MB of {kind}", rounds)
            await beside(scanner, path, "two files of 100 MB", 2)
            path.write_bytes(text(1_000_000))
            await beside(scanner, path, "forty files of 1 MB, two", 40)
            began = time.perf_counter()
            for _ in range(50):
                await scanner.identify()
            took = (time.perf_counter() - began) / 50 * 1e3
            harness.figure("asking what is loaded (twice a scan)", took, "ms", "< 3")
            began = time.perf_counter()
            await check_scanner(scanner)
            took = (time.perf_counter() - began) * 1e3
            harness.figure("all canaries (once a minute)", took, "ms", "< 100")
            harness.figure("clamd after the files (RSS)", rss(one.pid), "MB", "< 200")


async def compare(scanner, path, name, rounds):
    """Median time in ms of both, in turns."""
    size = path.stat().st_size
    ours, floor = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        done = await scanner.scan(path, size)
        ours.append(time.perf_counter() - began)
        assert not done.findings, done
        began = time.perf_counter()
        await asyncio.to_thread(bare, scanner.path, path)
        floor.append(time.perf_counter() - began)
    one, two = statistics.median(ours), statistics.median(floor)
    harness.report(name, one * 1e3, two * 1e3, "< 1.43", "ms")
    print(f"  {size / one / 1e6:.0f} MB/s, bare {size / two / 1e6:.0f} MB/s", flush=True)


async def beside(scanner, path, name, count):
    """Two scans at a time against one after the other.

    clamd reads a file page by page into memory that its threads share. In a virtual machine each
    page costs the other core an interrupt, and two large files take as long together as in turn.
    """
    size = path.stat().st_size

    async def scan(times):
        for _ in range(times):
            await scanner.scan(path, size)

    began = time.perf_counter()
    await scan(count)
    after = time.perf_counter() - began
    began = time.perf_counter()
    await asyncio.gather(scan(count // 2), scan(count // 2))
    both = time.perf_counter() - began
    harness.report(f"{name} at a time", both * 1e3, after * 1e3, "< 1.2 in a VM", "ms")


def bare(address, path):
    """The least a client can be."""
    with socket.socket(socket.AF_UNIX) as line, path.open("rb", buffering=0) as file:
        line.connect(address)
        line.sendall(b"zINSTREAM\0")
        while part := file.read(CHUNK):
            line.sendall(len(part).to_bytes(4, "big") + part)
        line.sendall(bytes(4))
        assert line.recv(100) == b"stream: OK\0"


def text(size):
    return (TEXT * (size // len(TEXT) + 1))[:size]


def rss(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
