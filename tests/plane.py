"""A content plane of its own for tests: its two processes, real, on a free port."""

import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from appliance.content import ContentPlane
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[1]


class PlaneProcesses:
    """`serve` and `work` over one folder; each can be killed and started again."""

    def __init__(self, folder, redis_url, clamd="", **more):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self.key = secrets.token_bytes(32)
        (folder / "node.key").write_bytes(self.key)
        self.env = {
            "QUARANTINE_DATA": str(folder), "QUARANTINE_KEY_FILE": str(folder / "node.key"),
            "QUARANTINE_REDIS_URL": redis_url, "QUARANTINE_PORT": str(self.port),
            "QUARANTINE_CLAMD": str(clamd), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8", **{f"QUARANTINE_{k.upper()}": str(v) for k, v in more.items()},
        }  # fmt: skip
        self.running = {}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def client(self):
        return ContentPlane(self.url, self.url, self.key)

    def start(self, name):
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "quarantine", name], env=self.env, stdout=log, stderr=log,
            )  # fmt: skip
        if name == "serve":
            self._wait()

    def _wait(self):
        end = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=1)
            except urllib.error.HTTPError:
                return
            except OSError:
                assert time.monotonic() < end, (self.folder / "serve.log").read_text()
                assert self.running["serve"].poll() is None, (self.folder / "serve.log").read_text()
                time.sleep(0.05)
            else:
                return

    def kill(self, name, sign=signal.SIGKILL):
        child = self.running.pop(name)
        os.kill(child.pid, sign)
        child.wait()

    def stop(self):
        for name in list(self.running):
            self.kill(name, signal.SIGTERM)
