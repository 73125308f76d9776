"""One whole node for these tests, and its tenant on no template yet."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

from tests.faults.node import ROOT, Node, why_not

API = "/api/v1"
PASSWORD = "nine quiet lanterns by the river"
OWNER = "owner@example.org"


@pytest.fixture(scope="package")
def node():
    if why_not():
        pytest.skip(why_not())
    folder = Path(tempfile.mkdtemp(prefix="nexus-system-"))
    folder.chmod(0o755)
    found = Node(folder / "node")
    found.start()
    yield found
    found.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="package")
def new_tenant(node):
    """Makes a tenant by the command that people use; answers its owner's client."""

    def make(slug):
        password = node.data.parent / f"{slug}.password"
        password.write_text(PASSWORD)
        subprocess.run(
            [sys.executable, "-m", "appliance", "init", "--data", str(node.data), "--tenant", slug,
             "--name", slug.title(), "--email", OWNER, "--password-file", str(password),
             "--template", "blank"], cwd=ROOT, check=True, capture_output=True,
        )  # fmt: skip
        return sign_in(node, slug, OWNER, PASSWORD)

    return make


def sign_in(node, slug, email, password):
    answer = httpx.post(
        f"{node.url}{API}/session", json={"tenant": slug, "email": email, "password": password},
        timeout=30,
    )  # fmt: skip
    assert answer.status_code == 201, answer.text
    return Person(node.url, answer.json()["token"])


class Person:
    """Somebody at a keyboard: the public contract, and nothing else."""

    def __init__(self, url, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=url + API, headers=headers, timeout=60)

    def call(self, method, path, expected, **more):
        answer = self.http.request(method, path, **more)
        assert answer.status_code == expected, f"{method} {path}: {answer.text}"
        return answer.json() if answer.content else None

    def get(self, path, **params):
        return self.call("GET", path, 200, params=params)

    def post(self, path, body, expected=200):
        return self.call("POST", path, expected, json=body)

    def make(self, kind, **fields):
        return self.post(f"/records/{kind}", {"fields": fields}, 201)

    def change(self, *steps):
        """Several records in one change: (kind, id or None, fields)."""
        body = [{"kind": kind, "fields": fields} | ({"id": ident} if ident else {})
                for kind, ident, fields in steps]  # fmt: skip
        return self.post("/changes", body, 201)

    def edit(self, record, **fields):
        path = f"/records/{record['kind']}/{record['id']}"
        tag = {"If-Match": f'"{record["version"]}"'}
        return self.call("PATCH", path, 200, json={"fields": fields}, headers=tag)

    def rows(self, text):
        return self.get("/query", q=text)["rows"]
