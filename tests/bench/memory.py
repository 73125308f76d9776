"""How much memory groups of processes take above what they had, watched while something runs."""

import contextlib
import os
import threading
import time
from pathlib import Path

from tests.faults.node import command_of, descendants

EVERY_S = 0.004
PAGE = os.sysconf("SC_PAGE_SIZE")


def sandbox_of(work):
    """The processes in the lanes below the worker, those of single files too."""
    return [p for p in descendants(work) if "sandbox.child" in command_of(p)]


class Growth:
    """`most` by group and `total` are bytes above the beginning, at the highest moment.

    Memory of a process is what it does not share by a file in memory: that is counted once, as the
    bytes that the process `keeper` holds in files without a name, the plaintext under scan.
    """

    def __init__(self, groups, keeper):
        self._groups, self._keeper = groups, keeper
        self.most, self.total = {}, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._first = self._now()
        self.most = dict.fromkeys(self._first, 0)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.is_set():
            more = {name: size - self._first[name] for name, size in self._now().items()}
            self.most = {name: max(size, more[name]) for name, size in self.most.items()}
            self.total = max(self.total, sum(more.values()))
            time.sleep(EVERY_S)

    def _now(self):
        found = {name: sum(map(private, pids())) for name, pids in self._groups.items()}
        found["plaintext in memory"] = held_by(self._keeper)
        return found


def private(pid):
    """Bytes that are this process's own; what a fork shares with its parent counts there."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1]) * 1024
    return 0


def held_by(pid):
    """Each file once, however often it is open."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(link.readlink()).startswith("/memfd:"):
                status = link.stat()
                found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())
