"""`make demo-branch` and its walk, as a newcomer has them."""

import importlib.util
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.faults.node import ROOT, why_not
from tests.ports import free_port

UP_S, WALK_S = 240.0, 300.0
_CANNOT = why_not() or (
    "" if importlib.util.find_spec("appliance.sync.agent") else "this program has no site's agent"
)


@pytest.mark.slow
@pytest.mark.skipif(bool(_CANNOT), reason=_CANNOT or "-")
def test_the_demo_shows_that_everything_is_everywhere():
    home = Path(tempfile.mkdtemp(prefix="nexus-demo-"))
    home.chmod(0o755)
    data, log = home / "three", home / "log"
    nexus = [sys.executable, "-m", "appliance", "demo"]
    with log.open("wb") as said:
        up = subprocess.Popen(
            [*nexus, "branch", "--data", str(data), "--port", str(free_port())], cwd=ROOT,
            stdout=said, stderr=said,
        )  # fmt: skip
    try:
        end = time.monotonic() + UP_S
        while "Stop with Ctrl-C" not in log.read_text():
            assert up.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.5)
        for what in ("cut", "heal", "show"):
            done = subprocess.run([*nexus, "link", what, "north", "--data", str(data)], cwd=ROOT, capture_output=True, text=True)  # fmt: skip
            assert done.stdout.strip() == f"north: {'cut' if what == 'cut' else 'whole'}", done
        walk = subprocess.run([*nexus, "show", "--data", str(data)], cwd=ROOT, capture_output=True, text=True, timeout=WALK_S)  # fmt: skip
        print(walk.stdout)
        assert walk.returncode == 0, walk.stdout + walk.stderr
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(120)
        shutil.rmtree(home, ignore_errors=True)
