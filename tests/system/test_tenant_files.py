"""A company with a file, backed up, drilled, erased and brought back by the commands people use."""

import os
import subprocess
import sys
import time

import httpx
import pytest

from appliance.runtime.account import service_account
from appliance.runtime.engines import locate_clamd
from tests.faults.node import ROOT
from tests.system.conftest import OWNER, PASSWORD, sign_in

pytestmark = pytest.mark.skipif(
    locate_clamd(service_account()) is None, reason="clamd is not installed"
)
BODY = b"What was agreed, in plain words.\n" * 30_000


@pytest.fixture
def nexus(node):
    def run(*words, code=0):
        argv = [sys.executable, "-m", "appliance", "tenant", *map(str, words)]
        done = subprocess.run(
            [*argv, "--data", str(node.data)], cwd=ROOT, capture_output=True, text=True, timeout=120,
            env={**os.environ, "NEXUS_PORT": str(node.port)}, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def download(owner, ident, seconds=60):
    """The file's bytes once they are given out, and what was said until then."""
    said, end = set(), time.monotonic() + seconds
    while time.monotonic() < end:
        answer = owner.http.post(f"/files/{ident}/ticket", json={})
        if answer.status_code in (200, 201):
            url = answer.json()["url"]
            return httpx.get(
                url, headers=owner.http.headers, follow_redirects=True, timeout=30
            ).content, said
        said.add(answer.json()["code"])
        time.sleep(0.2)
    raise AssertionError(f"not given out in time: {said}")


def test_a_tenant_is_backed_up_erased_and_restored_with_its_files(
    node, new_tenant, nexus, tmp_path
):
    owner = new_tenant("keeping")
    sent = owner.call("POST", "/files", 202, files={"file": ("letter.txt", BODY)})
    assert download(owner, sent["id"])[0] == BODY
    count = f"1 files with {len(BODY)} bytes"
    assert f"{count} are in it." in nexus("backup", "keeping", "--folder", tmp_path)
    (backup,) = tmp_path.iterdir()
    assert f"good.\x1b[K\n{count} are in it and fit their records." in nexus("drill", backup)

    assert "close it first" in nexus("erase", "keeping", "--confirm", "keeping", code=1)
    nexus("close", "keeping")
    assert "repeat its short name" in nexus("erase", "keeping", "--confirm", "other", code=1)
    assert f"forgot its key and {count}." in nexus("erase", "keeping", "--confirm", "keeping")
    assert BODY[:32] not in b"".join(
        p.read_bytes() for p in (node.data / "content").rglob("*") if p.is_file()
    )
    assert "keeping" not in nexus("list")

    told = nexus("restore", backup, "--placement", "pool")
    assert f"{count} are back; each is served when it was scanned again and found clean." in told
    time.sleep(2.5)
    again = sign_in(node, "keeping", OWNER, PASSWORD)
    assert again.get(f"/files/{sent['id']}")["state"] == "released"
    body, said = download(again, sent["id"])
    assert body == BODY and said <= {"file.rescanning"}

    nexus("suspend", "keeping")
    assert "after the tenant is resumed" in nexus("restore", backup, "--replace")
    nexus("resume", "keeping")
    time.sleep(2.5)
    assert download(sign_in(node, "keeping", OWNER, PASSWORD), sent["id"])[0] == BODY
