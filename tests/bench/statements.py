"""Bank statements to staged rows, beside bare reading of the same bytes; memory at 200 MB.

CPU seconds, not the clock: other work may share the machine. The floor of text is its lines, of
camt `lxml.iterparse` with clearing. Each reading has a process of its own, so that its peak is its.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from connectors.sdk.contract import Mapping, Rows, Summary
from connectors.sdk.recognise import load_connector
from tests.connectors.statements import TRANSACTIONS, large

ENTRIES = 60_000
LARGE_BYTES = 200 << 20
ROOT = Path(__file__).resolve().parents[2]
TARGET = 20_000
CONSTANTS = {"bank_csv": {"account": "OWN"}}


async def main():
    from tests.bench import harness

    with tempfile.TemporaryDirectory() as folder:
        for system in TRANSACTIONS:
            path = Path(folder) / system
            large(system, path, ENTRIES)
            told = measure(system, path)
            ours, floor = told["cpu"] / ENTRIES * 1e6, told["floor"] / ENTRIES * 1e6
            harness.report(f"{system}: CPU of an entry to its staged row", ours, floor, "50 µs")
            harness.figure(f"{system}: entries in a second of CPU", 1e6 / ours, "/s", str(TARGET))
            assert (told["lines"], told["ties"]) == (ENTRIES, system != "ofx")
            size = path.stat().st_size
            if system in ("mt940", "camt"):
                small = told["peak_mb"]
                large(system, path, ENTRIES * LARGE_BYTES // size)
                peak = measure(system, path)["peak_mb"]
                harness.figure(f"{system}: peak at {size >> 20} MB", small, "MB", "flat")
                harness.figure(
                    f"{system}: peak at {path.stat().st_size >> 20} MB", peak, "MB", "200"
                )
            path.unlink()


def measure(system, path):
    command = [sys.executable, "-m", "tests.bench.statements", system, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return json.loads(done.stdout)


def read_one(system, path):
    """Our reading and then the floor; printed for the parent."""
    began = time.process_time()
    lines, ties = 0, True
    source = load_connector(system).open(path)
    mapping = Mapping(constants=source.inspect({}).proposal.constants | CONSTANTS.get(system, {}))
    for frame in source.read(mapping):
        if isinstance(frame, Rows):
            lines += sum(r.entity == "bank_line" for r in frame.rows)
            ties &= all(r.values.get("ties", False) for r in frame.rows if r.entity == "statement")
        elif isinstance(frame, Summary):
            assert not frame.holds, frame.holds[:3]
    cpu = time.process_time() - began
    status = Path("/proc/self/status").read_text()
    peak = next(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmHWM")) / 1024
    began = time.process_time()
    floor_camt(path) if system == "camt" else floor_text(path)
    floor = time.process_time() - began
    print(json.dumps({"lines": lines, "ties": ties, "cpu": cpu, "floor": floor, "peak_mb": peak}))


def floor_text(path):
    with path.open(encoding="latin-1") as file:
        return sum(1 for _ in file)


def floor_camt(path):
    from lxml import etree

    count = 0
    for _, element in etree.iterparse(path, events=("end",), tag="{*}Ntry"):
        count += 1
        element.clear()
        while element.getprevious() is not None:
            del element.getparent()[0]
    return count


if __name__ == "__main__":
    if len(sys.argv) > 1:
        read_one(sys.argv[1], Path(sys.argv[2]))
    else:
        asyncio.run(main())
