"""A real node of our own: `nexus up` in a folder, its processes by role, its tables by SQL."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psycopg
import redis

from appliance.runtime.account import service_account
from appliance.runtime.postgres import Postgres
from appliance.runtime.valkey import Valkey
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SLUG, EMAIL, PASSWORD = "faults", "owner@example.org", "correct horse battery staple"
# How each role's process is known by its command line, as a direct or later child of `up`.
SIGNS = {
    "api": "appliance serve", "worker": "appliance work", "valkey": "valkey-server", "postgres": "postgres -D",
    "content": "quarantine serve", "scan": "quarantine work", "clamd": "clamd --config-file",
}  # fmt: skip
PROGRAM_PARTS = ("up", "init")


def why_not():
    """Why this program cannot run a node; empty when it can."""
    for part in PROGRAM_PARTS:
        if importlib.util.find_spec(f"appliance.cli.{part}") is None:
            return f"appliance.cli.{part} is not part of this program"
    return ""


class Node:
    """`nexus up --data … --port …` and what hangs below it."""

    def __init__(self, data, port=None):
        self.data, self.port = Path(data), port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.up = None

    def start(self, seconds=90.0):
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data.parent / f"{self.data.name}.log").open("ab") as log:
            self.up = subprocess.Popen(
                [sys.executable, "-m", "appliance", "up", "--data", str(self.data), "--port", str(self.port)],
                cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip
        self.wait_ready(seconds)

    def init(self):
        """The tenant of the test, by the command that people use."""
        password = self.data.parent / f"{self.data.name}.password"
        password.write_text(PASSWORD)
        subprocess.run(
            [sys.executable, "-m", "appliance", "init", "--data", str(self.data), "--tenant", SLUG, "--name", "Faults",
             "--email", EMAIL, "--password-file", str(password), "--template", "multi_branch_sales"], cwd=ROOT, check=True,
        )  # fmt: skip

    def wait_ready(self, seconds=90.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.up.poll() is not None:
                raise AssertionError(f"`up` ended with {self.up.returncode}, see {self.data}.log")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health/ready", timeout=2.0).status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"not ready in {seconds} s, see {self.data}.log")

    def stop(self):
        if self.up and self.up.poll() is None:
            self.up.send_signal(signal.SIGTERM)
            try:
                self.up.wait(60)
            except subprocess.TimeoutExpired:
                self.up.kill()
                self.up.wait()

    def pids(self, role):
        """The processes of a role; for PostgreSQL its first process only."""
        found = [p for p in descendants(self.up.pid) if SIGNS[role] in command_of(p)]
        return found[:1] if role == "postgres" else found

    def kill(self, role):
        """kill -9; which processes were hit."""
        hit = self.pids(role)
        for pid in hit:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return hit

    def sql(self, text, *params, database="nexus_pool"):
        """Rows as the superuser, past row security: the test looks at everything."""
        dsn = Postgres(Path("/"), self.data, service_account()).dsn("postgres", database)
        with psycopg.connect(dsn, autocommit=True) as conn:
            cursor = conn.execute(text, params)
            return cursor.fetchall() if cursor.description else []

    def redis(self):
        return redis.Redis.from_url(Valkey(Path("/"), self.data, service_account()).url)

    def login(self):
        answer = httpx.post(
            f"{self.url}/api/v1/session", timeout=10.0,
            json={"tenant": SLUG, "email": EMAIL, "password": PASSWORD},
        )  # fmt: skip
        assert answer.status_code == 201, answer.text
        return answer.json()["token"]


def command_of(pid):
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""


def descendants(root):
    """All processes below `root`, parents first."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = (entry / "stat").read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        below = sorted(children.get(queue.pop(0), []))
        found += below
        queue += below
    return found
