"""`python -m tests.branch.skewed CLOCK-FILE up …`: a node whose processes read another clock.

libfaketime is preloaded into every unit; the file says by how much (`+5h`, `-36h`, `+0`) and may be
written anew while the node runs, as when somebody sets the clock of a machine. Monotonic time and
the times of files stay as they are, because a machine's do.
"""

import os
import sys
from pathlib import Path

from appliance.cli.main import main
from appliance.runtime.supervisor import Supervisor

PLACES = ("/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime")  # fmt: skip
LIBRARY = "libfaketimeMT.so.1"
SLEEP = Path(__file__).resolve().parent / "skew"
# The clock is looked up anew this often.
CACHE_S = 1


def find_library():
    """libfaketime of Debian's package; None when it is not installed."""
    return next((str(p) for d in PLACES if (p := Path(d, LIBRARY)).exists()), None)


def environment(clock):
    return {
        "LD_PRELOAD": find_library(), "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": str(CACHE_S), "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1", "PYTHONPATH": str(SLEEP),
    }  # fmt: skip


def preload_everywhere(more):
    spawn = Supervisor._spawn

    async def with_clock(self, unit):
        unit.env = {**unit.env, **more}
        if "PYTHONPATH" in unit.env:
            unit.env["PYTHONPATH"] = f"{SLEEP}:{unit.env['PYTHONPATH']}"
        await spawn(self, unit)

    Supervisor._spawn = with_clock


if __name__ == "__main__":
    clock = Path(sys.argv.pop(1))
    preload_everywhere({k: v for k, v in environment(clock).items() if k != "PYTHONPATH"})
    sys.argv[0] = "nexus"
    os.environ.pop("LD_PRELOAD", None)
    main()
