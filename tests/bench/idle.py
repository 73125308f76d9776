"""A whole node at rest: its memory by process, and the time from start to ready."""

import tempfile
import time
from pathlib import Path

from tests.bench import harness
from tests.faults.node import Node


async def main():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        node = Node(Path(folder) / "data")
        node.start()
        node.stop()
        began = time.monotonic()
        node.start()
        harness.figure("start to ready on existing data", time.monotonic() - began, "s", "< 10")
        try:
            time.sleep(10)
            found = memory(node.up.pid)
            for name, size in sorted(found.items(), key=lambda kv: -kv[1]):
                print(f"  {name:42} {size / 1024:9.1f} MB")
            total = sum(found.values()) / 1024
            harness.figure("idle node without clamd (PSS)", total, "MB", "< 700")
            harness.figure("API worker (PSS)", found["serve"] / 1024, "MB", "< 150")
        finally:
            node.stop()


def memory(root):
    """Proportional set size in kB by what a process is, of a process and all below it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            parents[int(stat.parent.name)] = int(fields[1])
        except OSError:
            continue
    found = {}
    for pid in parents:
        step = pid
        while step and step != root:
            step = parents.get(step, 0)
        if step != root:
            continue
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().split()
        name = next(
            (w for w in ("serve", "work", "valkey-server", "up") if any(w in x for x in words)), ""
        )
        name = name or " ".join(words[:2])[:42]
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                found[name] = found.get(name, 0) + int(line.split()[1])
    return found
