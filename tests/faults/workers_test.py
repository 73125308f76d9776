"""Two API processes of one node: what one commits the other tells of, and each may be killed."""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from tests.faults.node import Node, command_of, descendants, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@pytest.fixture
def node(monkeypatch):
    monkeypatch.setenv("NEXUS_HTTP_WORKERS", "2")
    folder = Path(tempfile.mkdtemp(prefix="nexus-workers-"))
    folder.chmod(0o755)
    found = Node(folder / "node")
    found.start()
    yield found
    found.stop()
    shutil.rmtree(folder, ignore_errors=True)


def workers(node):
    """The API processes that serve, without the one that starts them."""
    return [p for p in descendants(node.up.pid) if "spawn_main" in command_of(p)]


def held(node, pid):
    """How many connections to the node's port a process holds."""
    local = f":{node.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {r[9] for r in rows if r[1].endswith(local) and r[3] == "01"}
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(entry.readlink()))
    return sum(f"socket:[{inode}]" in links for inode in inodes)


class Live:
    """One live stream on a connection of its own."""

    def __init__(self, node, token):
        self.client = httpx.Client(timeout=20, headers={"Authorization": f"Bearer {token}"})
        request = self.client.build_request("GET", f"{node.url}/api/v1/live?query=customer")
        self.answer = self.client.send(request, stream=True)
        assert self.answer.status_code == 200
        self.lines = self.answer.iter_lines()
        assert next(self.lines) == "retry: 2000"

    def tells(self, event, text):
        """Whether a frame of this sort with this text comes; the template's own may come first."""
        for line in self.lines:
            if line == f"event: {event}" and text in next(self.lines):
                return True
        return False

    def close(self):
        self.answer.close()
        self.client.close()


def streams_on_both(node, token):
    found = []
    while not all(held(node, p) for p in workers(node)):
        assert len(found) < 60, "one process takes every connection"
        found.append(Live(node, token))
    time.sleep(0.5)
    return found


def make_one(node, token, title):
    headers = {"Authorization": f"Bearer {token}"}
    body = {"fields": {"name": title}}
    answer = httpx.post(
        f"{node.url}/api/v1/records/customer", json=body, headers=headers, timeout=20
    )
    assert answer.status_code == 201, answer.text


def until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def gone(pid):
    return (
        not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    )


def test_two_workers_are_one_node(node):
    node.init()
    token = node.login()
    headers = {"Authorization": f"Bearer {token}"}
    # The tenant was made a moment ago, and each call may reach either process.
    told = [httpx.get(f"{node.url}/api/v1/me", headers=headers).status_code for _ in range(20)]
    assert told == [200] * 20
    assert len(workers(node)) == 2

    streams = streams_on_both(node, token)
    make_one(node, token, "told to both")
    assert all(stream.tells("change", "told to both") for stream in streams)

    first, second = workers(node)
    os.kill(first, signal.SIGKILL)
    until(lambda: len(workers(node)) == 2 and first not in workers(node))
    assert second in workers(node), "the other one goes on"
    until(lambda: httpx.get(f"{node.url}/health/ready").status_code == 200)
    for stream in streams:
        stream.close()

    streams = streams_on_both(node, token)
    make_one(node, token, "told by the new one")
    assert all(stream.tells("change", "told by the new one") for stream in streams)

    began, pids = time.monotonic(), [*workers(node), *node.pids("api")]
    node.up.send_signal(signal.SIGTERM)
    assert all(stream.tells("end", "node_stopping") for stream in streams)
    assert node.up.wait(30) == 0
    assert time.monotonic() - began < 20
    assert all(map(gone, pids))


@pytest.mark.slow
def test_no_worker_outlives_a_killed_node(node):
    pids = [*workers(node), *node.pids("api")]
    assert len(pids) == 3
    node.up.kill()
    node.up.wait()
    until(lambda: all(map(gone, pids)), 5)
    node.start()
    assert len(workers(node)) == 2
    assert not set(workers(node)) & set(pids)
    api = node.pids("api")[0]
    pids = workers(node)
    os.kill(api, signal.SIGKILL)
    until(lambda: all(map(gone, pids)), 5)
    until(lambda: len(workers(node)) == 2)
    node.wait_ready()
