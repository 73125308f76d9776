"""What this program has cost: the figures that a reading tells of itself."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from connectors.sdk.contract import Used

_BEGUN = time.monotonic()


def read_used() -> Used:
    """Of this process since it began."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_ms = round((usage.ru_utime + usage.ru_stime) * 1_000)
    return Used(cpu_ms, read_peak() >> 20, round((time.monotonic() - _BEGUN) * 1_000))


def read_peak() -> int:
    """The most memory that this program has held, bytes. Not ru_maxrss, which begins with what the
    process held that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024
