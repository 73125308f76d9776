"""A CSV of 1 000 000 rows to its plan: memory of the worker and of the child, rows in a second."""

import asyncio
import tempfile
import threading
import time
from pathlib import Path
from uuid import UUID

from appliance.access.acting import act_as
from appliance.base.memory import collect_seldom
from appliance.kernel.context import Door
from tests import cluster, tenants
from tests.bench import harness
from tests.bench.imports import HEADER, bring, importer
from tests.install.test_template import install

SMALL, LARGE = 100_000, 1_000_000


async def main():
    await harness.on_cluster(measure)


async def measure(db, dsns):
    _, ctx = await importer(db, dsns)
    with tempfile.TemporaryDirectory() as folder:
        await plan_both(db, ctx, Path(folder))


async def plan_both(db, ctx, folder):
    speed = {}
    for rows in (SMALL, LARGE):
        path = folder / f"{rows}.csv"
        write(path, rows)
        with Peak() as peak:
            began = time.perf_counter()
            made, _ = await bring(db, ctx, folder, path)
            speed[rows] = rows / (time.perf_counter() - began)
        assert made.counts["new"] == rows, made
        harness.figure(f"worker's memory, {rows} rows of CSV", peak.mb, "MB", "300")
    harness.report(
        "rows in a second at 1 000 000", speed[LARGE], speed[SMALL], "1 (of 100 000)", "/s"
    )


def write(path, rows):
    with path.open("w", encoding="utf-8") as file:
        file.write(";".join(HEADER) + "\n")
        for n in range(1, rows + 1):
            price = n % 5_000 + 1.25
            file.write(f"A{n:07};Позиция прайса номер {n};Бренд {n % 50};шт;{n % 12 + 1};{n % 300};"
                       f"{price:.2f};{price * 0.8:.2f}\n")  # fmt: skip


class Peak:
    """The most resident memory of this process while something runs, looked at five times a second."""

    def __enter__(self):
        self.mb, self._stop = 0.0, threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._watch.join()

    def _look(self):
        while not self._stop.wait(0.2):
            status = Path("/proc/self/status").read_text()
            kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
            self.mb = max(self.mb, int(kb) / 1024)


if __name__ == "__main__":
    asyncio.run(main())
