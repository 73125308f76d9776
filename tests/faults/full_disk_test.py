"""A full disk: writes are refused by name, reads go on, and it heals when there is space again."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from appliance.base.ids import uuid7
from tests.faults.node import Node, why_not

SIZE_MB = 700
# Tables run out of it long before the segment of WAL does that has just begun: without room for
# the next one PostgreSQL would stop instead of refusing.
LEFT_MB = 2
HEAL_S = 60.0


def _cannot():
    if why_not():
        return why_not()
    if os.geteuid() != 0:
        return "a small file system can only be mounted by root"
    return "" if shutil.which("mount") else "there is no mount program"


@contextlib.contextmanager
def small_disk():
    home = Path(tempfile.mkdtemp(prefix="nexus-full-"))
    home.chmod(0o755)
    disk = home / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(disk)], capture_output=True
    )
    if done.returncode:
        home.rmdir() if not any(home.iterdir()) else shutil.rmtree(home)
        pytest.skip("mounting a small file system is not allowed here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
        shutil.rmtree(home, ignore_errors=True)


def fill(disk, left_mb):
    """Take all space but `left_mb`."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free - left_mb * 1024 * 1024
    with ballast.open("ab") as file:
        for _ in range(max(0, free) // (1024 * 1024)):
            file.write(b"\0" * 1024 * 1024)
    return ballast


class Client:
    def __init__(self, node):
        headers = {"Authorization": f"Bearer {node.login()}"}
        self.http = httpx.Client(base_url=node.url, headers=headers, timeout=10.0)

    def create(self):
        headers = {"Idempotency-Key": str(uuid7())}
        body = {"fields": {"name": "full", "note": "x" * 50_000}}
        return self.http.post("/api/v1/records/customer", json=body, headers=headers)


@pytest.mark.skipif(bool(_cannot()), reason=_cannot() or "-")
def test_a_full_disk_refuses_writes_by_name_and_goes_on_reading():
    with small_disk() as disk:
        node = Node(disk / "data")
        try:
            node.start()
            node.init()
            client = Client(node)
            first = client.create()
            assert first.status_code == 201, first.text
            node.sql("SELECT pg_switch_wal()")
            assert client.create().status_code == 201
            ballast = fill(disk, LEFT_MB)
            # What a checkpoint gives back meanwhile is taken too.
            refused = _until(client, {507}, 2_000, each=lambda: fill(disk, LEFT_MB))
            assert refused.json()["code"] == "node.storage_full"
            path = f"/api/v1/records/customer/{first.json()['id']}"
            for _ in range(20):
                assert client.http.get(path).status_code == 200
            ballast.unlink()
            begun = time.monotonic()
            healed = _until(client, {201}, 10_000, HEAL_S)
            assert (
                client.http.get(f"/api/v1/records/customer/{healed.json()['id']}").status_code
                == 200
            )
            print(
                f"disk full: refused by name, reads on; writing again {time.monotonic() - begun:.1f} s after space"
            )
        finally:
            node.stop()


def _until(client, wanted, tries, seconds=HEAL_S, each=None):
    """Write until an answer of the wanted status; anything else must be 201, 503 or 507."""
    end = time.monotonic() + seconds
    for n in range(tries):
        if each is not None and n % 50 == 49:
            each()
        answer = client.create()
        if answer.status_code in wanted:
            return answer
        assert answer.status_code in (201, 503, 507), answer.text
        assert time.monotonic() < end, f"no answer of {wanted} in {seconds} s"
    raise AssertionError(f"no answer of {wanted} in {tries} writes")
