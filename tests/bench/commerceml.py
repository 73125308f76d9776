"""A CommerceML catalogue to staged rows, beside bare `lxml.iterparse` with clearing.

CPU and wall time of the reading in this process, and of a whole child (its frames decoded here);
the child's memory at a tenth of the size and at the whole; the time to its first Progress.
`BENCH_OFFERS` changes the size (200 000: about 300 MB).
"""

import asyncio
import contextlib
import gc
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

from lxml import etree

from connectors.sdk.contract import Mapping, Progress, Rows, Summary
from connectors.sdk.manifest import read_manifest
from connectors.sdk.parent import open_input
from connectors.systems.commerceml import CONNECTOR
from tests.bench import harness
from tests.connectors.commerceml_files import write_large

OFFERS = int(os.environ.get("BENCH_OFFERS", "200000"))
ROUNDS = 3


async def main():
    gc.set_threshold(100_000, 20, 20)  # as in the child
    with tempfile.TemporaryDirectory() as folder:
        small = write_large(Path(folder) / "small.xml", OFFERS // 10)
        large = write_large(Path(folder) / "large.xml", OFFERS)
        print(f"{OFFERS} offers, {large.stat().st_size / 1e6:.0f} MB", flush=True)
        compare(large)
        base = await in_child(small)
        whole = await in_child(large)
        harness.figure("first progress of a child", whole.first, "s", "2")
        harness.figure("a child, start to its end", whole.wall, "s", "-")
        harness.figure("memory of a child, a tenth of the file", base.peak_mb, "MB", "200")
        harness.figure("memory of a child", whole.peak_mb, "MB", "200")


def compare(path):
    """Rounds of bare parsing and of reading, taking turns."""
    floors, ours = [], []
    for _ in range(ROUNDS):
        floors.append(timed(bare, path))
        ours.append(timed(read, path))
    for name, at in (("CPU", 0), ("wall", 1)):
        mine, floor = (statistics.median(t[at] for t in ts) * 1_000 for ts in (ours, floors))
        harness.report(f"commerceml to staged rows, {name}", mine, floor, "2", "ms")


def timed(act, path):
    cpu, wall = time.process_time(), time.perf_counter()
    act(path)
    return time.process_time() - cpu, time.perf_counter() - wall


def bare(path):
    """The floor: every Товар and Предложение as it ends, cleared with what stands before it."""
    count = 0
    for _, element in etree.iterparse(
        str(path), events=("end",), tag=("{*}Товар", "{*}Предложение"), resolve_entities=False,
        no_network=True, load_dtd=False, huge_tree=False,
    ):  # fmt: skip
        count += 1
        element.clear()
        while element.getprevious() is not None:
            del element.getparent()[0]
    assert count == 2 * OFFERS


def read(path):
    rows = 0
    for frame in CONNECTOR.open(path).read(Mapping(constants=read_manifest("commerceml").settings)):
        if isinstance(frame, Rows):
            rows += len(frame.rows)
        elif isinstance(frame, Summary):
            assert not frame.warnings, frame.warnings[:3]
    assert rows >= 5 * OFFERS, rows


class Measured:
    first = wall = peak_mb = 0.0


async def in_child(path):
    found, began = Measured(), time.perf_counter()
    async with open_input("commerceml", path) as reading:
        proposal = (await reading.inspect({})).proposal
        async for frame in reading.read(proposal):
            if isinstance(frame, Progress):
                found.first = found.first or time.perf_counter() - began
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{reading._child.pid}/status").read_text()
                if peak := re.search(r"VmHWM:\s+(\d+)", status):
                    found.peak_mb = int(peak[1]) / 1_024
    found.wall = time.perf_counter() - began
    return found


if __name__ == "__main__":
    asyncio.run(main())
