"""All checks on a file against raw clamd on the same file, in turns; what each engine costs."""

import asyncio
import hashlib
import random
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from quarantine.contract import Policy, Verdict
from quarantine.engines.clam import ClamScanner
from quarantine.pipeline import MODULES, Pipeline
from quarantine.sandbox.parent import Sandbox
from quarantine.sandbox.plaintext import lay_out
from tests.bench import harness
from tests.bench.blobs import pieces
from tests.bench.scanner import bare, text
from tests.quarantine.benign_containers import BENIGN
from tests.runtime.scanner import running

POLICY = Policy(seconds_max=60.0, bytes_max=200_000_000)
WAVE = b"RIFF" + (100_000_008 - 4).to_bytes(4, "little") + b"WAVEfmt "
MEMORY = Path("/dev/shm")  # noqa: S108 - nothing is left there
SIZES = ((1, 31), (10, 9), (100, 5))


async def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with running(folder) as one, Sandbox(MODULES, folder) as sandbox:
            began = time.perf_counter()
            _, is_walled = await sandbox.warm()
            took = (time.perf_counter() - began) * 1e3
            harness.figure("two lanes of the sandbox started", took, "ms", "once")
            harness.figure("bubblewrap around them", is_walled, "", "1 where it works")
            scanner = ClamScanner(one.socket)
            pipeline = Pipeline(sandbox, {"clamd": scanner})
            small = [make() for key, make in BENIGN.items() if key.endswith("s.csv")]
            await small_files(pipeline, folder, small)
            before = resident()
            for megabytes, rounds in SIZES:
                file = fill(folder, megabytes, lambda: text(1_000_000))
                await compare(pipeline, scanner, ("a.csv", *file), rounds)
            source = random.Random(5)
            file = fill(folder, 100, lambda: source.randbytes(1_000_000), WAVE)
            await compare(pipeline, scanner, ("a.wav", *file), 3)
            grown = (resident() - before) / 1e6
            harness.figure("the parent after files of 100 MB (RSS)", grown, "MB", "< 150 more")
            await beside(pipeline, folder)


def fill(folder, megabytes, piece, head=b"", name="plaintext"):
    """A file of so many pieces: its path, hash and size; never in memory as a whole."""
    path, digest = folder / name, hashlib.sha256(head)
    with path.open("wb") as file:
        file.write(head)
        for _ in range(megabytes):
            part = piece()
            file.write(part)
            digest.update(part)
    return path, digest.hexdigest(), path.stat().st_size


async def small_files(pipeline, folder, contents):
    """Files of daily size, one after the other."""
    took = []
    for data in contents * 5:
        file = fill(folder, 1, lambda content=data: content)
        began = time.perf_counter()
        await judge(pipeline, "a.csv", *file)
        took.append((time.perf_counter() - began) * 1e3)
    harness.figure("a small table, median", statistics.median(took), "ms", "< 50")


async def compare(pipeline, scanner, file, rounds):
    """Median of both over the bytes as a worker lays them out, and what the engines took each."""
    name, source, sha256, size = file
    async with lay_out(MEMORY, "checks", pieces(source), size=size) as path:
        await in_turns(pipeline, scanner, (name, path, sha256, size), rounds)


async def in_turns(pipeline, scanner, file, rounds):
    name, path, sha256, size = file
    ours, floor, spent = [], [], defaultdict(list)
    for _ in range(rounds):
        began = time.perf_counter()
        report = await judge(pipeline, name, path, sha256, size)
        ours.append(time.perf_counter() - began)
        for run in report.engines:
            spent[run.engine].append(run.seconds * 1e3)
        began = time.perf_counter()
        await asyncio.to_thread(bare, scanner.path, path)
        floor.append(time.perf_counter() - began)
    one, two = statistics.median(ours) * 1e3, statistics.median(floor) * 1e3
    harness.report(f"{size // 1_000_000} MB, {name}", one, two, "< 1.43", "ms")
    print("  " + ", ".join(f"{k} {statistics.median(v):.1f}" for k, v in spent.items()), flush=True)


async def beside(pipeline, folder):
    """Two files at a time against one after the other."""
    files = [fill(folder, 20, lambda: text(1_000_000), name=f"file-{n}") for n in range(2)]
    began = time.perf_counter()
    for file in files:
        await judge(pipeline, "a.csv", *file)
    after = time.perf_counter() - began
    began = time.perf_counter()
    await asyncio.gather(*(judge(pipeline, "a.csv", *file) for file in files))
    both = time.perf_counter() - began
    harness.report("two files of 20 MB at a time", both * 1e3, after * 1e3, "< 1", "ms")


async def judge(pipeline, name, path, sha256, size):
    report = await pipeline.judge(path, name, POLICY, sha256=sha256, size=size)
    assert report.verdict is Verdict.CLEAN, report
    return report


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
