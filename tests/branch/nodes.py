"""A node of the branch tests: a role, perhaps a namespace, a clock and a disk of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.branch import below
from tests.branch.skewed import environment, find_library
from tests.faults.node import ROOT, Node, command_of, descendants

COMMAND_S = 300
BALLAST_LEFT_MB = 24


class BranchNode(Node):
    """`nexus up --role …`; `space` is its network namespace, None on loopback."""

    def __init__(self, data, role, space=None, *, port=None, disk_mb=0):
        super().__init__(data, port)
        self.role, self.space, self.disk_mb = role, space, disk_mb
        self.name = self.data.name
        self.address = space.address if space else "127.0.0.1"
        self.url = f"http://{self.address}:{self.port}"
        self.clock = self.data.parent / f"{self.name}.clock"
        self.has_clock = find_library() is not None
        self.starts = 0

    def environ(self):
        found = {k: v for k, v in os.environ.items() if not k.startswith("NEXUS_")}
        found |= {"NEXUS_FILES_SCANNER": "true" if self.role == "hub" else "false"}
        if self.space:
            # The test stands where a proxy that ends TLS would: it says that people came over HTTPS.
            found["NEXUS_HTTP_HOST"] = "0.0.0.0"
            found["NEXUS_HTTP_TRUSTED_PROXIES"] = self.space.ours
        return found

    def launch(self):
        """Start it without waiting."""
        self.mount()
        words = ["up", "--data", str(self.data), "--port", str(self.port), "--role", self.role]
        argv, env = [sys.executable, "-m", "appliance", *words], self.environ()
        if self.has_clock:
            if not self.clock.exists():
                self.set_clock("+0")
            argv = [sys.executable, "-m", "tests.branch.skewed", str(self.clock), *words]
            env |= environment(self.clock)
        with self.log_path.open("ab") as log:
            self.up = below.start(
                [*(self.space.argv() if self.space else []), *argv], cwd=ROOT, stdout=log, stderr=log, env=env,
            )  # fmt: skip
        self.starts += 1

    @property
    def log_path(self):
        return self.data.parent / f"{self.name}.log"

    def start(self, seconds=300.0):
        self.launch()
        self.wait_ready(seconds)

    def wait_ready(self, seconds=300.0):
        try:
            super().wait_ready(seconds)
        except AssertionError as late:
            told = self.log_path.read_text(errors="replace")[-1500:]
            raise AssertionError(f"{late}\n{told}") from None

    def nexus(self, *words, code=0):
        """A command on this node's folder, as its operator types it; what it said."""
        done = subprocess.run(
            [*(self.space.argv() if self.space else []), sys.executable, "-m", "appliance", *map(str, words),
             "--data", str(self.data)], cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S,
            env=self.environ() | {"NEXUS_PORT": str(self.port)},
        )  # fmt: skip
        assert code is None or done.returncode == code, f"nexus {' '.join(map(str, words))}: " + (
            done.stdout + done.stderr
        )
        return done.stdout + done.stderr

    def set_clock(self, offset):
        """What its clock shows beside the machine's: `+5h`, `-36h`, `+0`."""
        partial = self.clock.with_suffix(".partial")
        partial.write_text(offset + "\n")
        partial.chmod(0o644)
        partial.rename(self.clock)

    def kill_whole(self):
        """As when the power goes: `up` and all below it at once. It stays down."""
        for pid in [self.up.pid, *descendants(self.up.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.up.wait()

    def is_ready(self):
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health/ready", timeout=2.0).status_code == 200
        return False

    def resident_mb(self):
        """Resident memory by part, what is shared counted once (Pss), in MB."""
        found = {}
        for pid in [self.up.pid, *descendants(self.up.pid)]:
            part = part_of(command_of(pid))
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                kb = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
                found[part] = found.get(part, 0) + kb / 1024
        return found

    # A small disk of its own, to be filled.

    def mount(self):
        if self.disk_mb and not os.path.ismount(self.data):
            self.data.mkdir(parents=True, exist_ok=True)
            options = f"size={self.disk_mb}m,mode=755"
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.data)], check=True
            )
        self.data.mkdir(parents=True, exist_ok=True)

    def fill(self, left_mb=BALLAST_LEFT_MB):
        """Take all space of its disk but a little."""
        free = shutil.disk_usage(self.data).free - left_mb * 1024 * 1024
        with (self.data / "ballast").open("ab") as file, contextlib.suppress(OSError):
            for _ in range(max(0, free) // (1024 * 1024)):
                file.write(b"\0" * 1024 * 1024)

    def empty(self):
        (self.data / "ballast").unlink(missing_ok=True)

    def remove(self):
        """Stop it and forget its disk."""
        self.stop()
        if self.disk_mb:
            subprocess.run(["umount", "-l", str(self.data)], capture_output=True)


def part_of(command):
    signs = {"postgres": "postgres", "valkey": "valkey-server", "appliance serve": "api", "appliance work": "worker",
             "quarantine": "content", "clamd": "clamd"}  # fmt: skip
    return next((part for sign, part in signs.items() if sign in command), "up")


def wait_until(true, seconds, what, every=0.1):
    """The seconds until it is so. Raises AssertionError with what was waited for."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"not in {seconds:.0f} s: {what}"
        time.sleep(every)
    return time.monotonic() - began
