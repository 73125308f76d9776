"""A connector worker on another host: no database, no file of the node, one HTTPS port and a key."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from appliance.runtime.account import service_account
from appliance.runtime.engines import locate_clamd
from tests.branch import spaces
from tests.connectors import servers
from tests.faults.node import ROOT
from tests.system.conftest import OWNER, PASSWORD, sign_in

pytestmark = pytest.mark.skipif(
    locate_clamd(service_account()) is None, reason="clamd is not installed"
)
SLUG, NAME = "tradinghouse", "accounting"


def table(rows, price="12,50"):
    lines = ["Артикул;Наименование;Цена розница, грн"]
    lines += [f"K-{n:05};Болт оцинкованный М{n};{n % 90 + 1}{price[2:]}" for n in range(rows)]
    return "\n".join(lines).encode()


@pytest.fixture(scope="module")
def owner(node):
    password = node.data.parent / "house.password"
    password.write_text(PASSWORD)
    subprocess.run(
        [sys.executable, "-m", "appliance", "init", "--data", str(node.data), "--tenant", SLUG,
         "--name", "House", "--email", OWNER, "--password-file", str(password),
         "--template", "multi_branch_sales"], cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return sign_in(node, SLUG, OWNER, PASSWORD)


class Elsewhere:
    """A place with one route, to the node's front; the node's folder is not there."""

    def __init__(self, node, folder, url, argv):
        self.node, self.folder, self.url, self.argv = node, folder, url, argv
        self.child = None

    def start(self, *more):
        words = [
            sys.executable, "-m", "connectors", "work", "--node", self.url, "--name", NAME,
            "--key-file", str(self.folder / "key"), "--data", str(self.folder / "data"),
            "--ca-file", str(self.folder / "ca.pem"), *map(str, more),
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.child = subprocess.Popen(
                [*self.argv, *words], cwd=ROOT, stdout=log, stderr=log, env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
                start_new_session=True,
            )  # fmt: skip

    def kill(self, sign=signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, sign)
        self.child.wait(30)

    def told(self, event):
        lines = (self.folder / "log").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [e for e in found if e["event"] == event]

    def give_key(self, owner, profile):
        key = owner.post("/keys", {"label": NAME, "profile": profile, "days": 3}, 201)["token"]
        (self.folder / "key").write_text(key)
        (self.folder / "key").chmod(0o600)


@pytest.fixture
def elsewhere(node, tmp_path):
    may = not spaces.why_not()
    made = spaces.make(["worker"]) if may else {}
    address, argv = "127.0.0.1", []
    if may:
        address = made["worker"].ours
        hide = 'mount -t tmpfs none "$0" && exec "$@"'
        argv = [*made["worker"].argv(), "unshare", "-m", "sh", "-c", hide, str(node.data)]
    both, _ = servers.make_certificate(tmp_path, address)
    with servers.run_tls_front(both, address, node.port) as port:
        found = Elsewhere(node, tmp_path, f"https://{address}:{port}", argv)
        found.may = may
        yield found
        if found.child is not None and found.child.poll() is None:
            found.kill()
    if may:
        spaces.remove(made)


def begin(owner, content, **options):
    file = owner.call("POST", "/files?name=list.csv", 202, content=content, headers={"content-type": "application/octet-stream"})  # fmt: skip
    body = {"connector": "price_list", "file": file["id"], "name": "list.csv"}
    source = options.pop("source", "Supplier")
    return owner.post("/intake/runs", {**body, "source": source, "options": options}, 202)["id"]


def wait_state(owner, run, *states, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = owner.get(f"/intake/runs/{run}")
        if found["state"] in states:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not {states} in {seconds} s: {found}")


@pytest.mark.slow
def test_runs_are_read_elsewhere_with_a_key_for_that_alone_and_after_a_kill(owner, elsewhere):
    node = elsewhere.node
    labels = {"en": "Reads files elsewhere"}
    owner.make("sys.profile", key="reads", labels=labels, capabilities=["import.work"])
    elsewhere.give_key(owner, "reads")
    content = table(40_000)
    here = wait_state(owner, begin(owner, content, source="A"), "planned")
    run = begin(owner, content, source="B", worker=NAME)
    elsewhere.start()
    if elsewhere.may:
        look = "import os,sys,socket;print(os.listdir(sys.argv[1]));socket.create_connection((sys.argv[2],5432),2)"  # fmt: skip
        seen = subprocess.run(
            [*elsewhere.argv, sys.executable, "-c", look, str(node.data), elsewhere.url.split("/")[2].split(":")[0]],
            capture_output=True, text=True,
        )  # fmt: skip
        assert seen.stdout == "[]\n" and seen.returncode == 1
        routes = subprocess.run(
            [*elsewhere.argv[:4], "ip", "route"], capture_output=True, text=True
        )
        assert len(routes.stdout.splitlines()) == 1, routes.stdout
    end = time.monotonic() + 120
    while time.monotonic() < end and not node.sql("SELECT no FROM intake_frame LIMIT 1"):
        time.sleep(0.02)
    elsewhere.kill()
    assert owner.get(f"/intake/runs/{run}")["state"] in ("received", "preparing", "planned")
    kept = node.sql("SELECT count(*) FROM intake_frame")[0][0]
    node.sql("UPDATE intake_work SET lease_until = now() - interval '1 s'")
    elsewhere.start()
    there = wait_state(owner, run, "planned", "failed")
    assert there["state"] == "planned", there["detail"]
    assert there["counts"] == here["counts"] and there["counts"]["rows"] == 40_000
    first, second = elsewhere.told("run.taken")
    assert first["next"] == 0 and 0 < second["next"] <= kept + 1
    assert node.sql("SELECT count(*) FROM intake_frame")[0][0] == 0
    assert list((elsewhere.folder / "data" / "in").iterdir()) == []
    # The key reads what waits for a worker, and nothing else.
    import httpx

    token = (elsewhere.folder / "key").read_text()
    for path in ("/intake/runs", "/files/space", "/me"):
        answer = httpx.get(f"{node.url}/api/v1{path}", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 403 or path == "/me", (path, answer.status_code)
    elsewhere.kill(signal.SIGTERM)
    assert elsewhere.told("worker.stopped")


@pytest.mark.slow
def test_a_folder_there_becomes_planned_runs_here(owner, elsewhere):
    node = elsewhere.node
    elsewhere.give_key(owner, "admin")
    box = elsewhere.folder / "box"
    box.mkdir()
    (box / "list.csv").write_bytes(table(300, "12,75"))
    (box / "page.csv").write_bytes(b"<html><body>Sign in</body></html>")
    (box / "words.csv").write_bytes(b"just words\nand no table\n")
    (box / "coming.csv.part").write_bytes(b"half")
    sources = elsewhere.folder / "sources.toml"
    sources.write_text(
        '[[source]]\nkey = "box"\nconnector = "price_list"\nname = "Box"\npattern = "*.csv"\n'
        f'every_s = 1\nplace = {{ type = "folder", folder = "{box}", may_move = true }}\n'
    )
    elsewhere.start("--sources", sources)
    end = time.monotonic() + 120
    found = []
    while time.monotonic() < end:
        found = [r for r in owner.get("/intake/runs", limit=50)["runs"] if r["source"] == "Box"]
        if len(found) == 3 and all(r["state"] in ("planned", "failed") for r in found):
            break
        time.sleep(0.3)
    states = {r["name"]: (r["state"], r["counts"].get("new")) for r in found}
    assert states == {
        "list.csv": ("planned", 300), "page.csv": ("failed", None), "words.csv": ("failed", None),
    }, found  # fmt: skip
    assert sorted(p.name for p in box.iterdir()) == ["coming.csv.part", "done"]
    figures = next(r for r in found if r["name"] == "list.csv")["figures"]
    moments = [figures[f"{n}_at"] for n in ("begun", "started", "read", "planned")]
    assert moments == sorted(moments) and figures["used"]["cpu_ms"] and figures["mapping_version"]
    # What the file's scanner let pass and nobody can read is a letter; reading it again fails again.
    there = {x["name"]: x for x in owner.get("/intake/dead", source="box")["letters"]}
    assert {n: x["stage"] for n, x in there.items()} == {"page.csv": "check", "words.csv": "read"}
    owner.post(f"/intake/dead/{there['page.csv']['id']}/dismiss", {"note": "a page"}, 204)
    letter = there["words.csv"]
    owner.post(f"/intake/dead/{letter['id']}/replay", {}, 204)
    wait_state(owner, letter["run"], "failed")
    steer = [sys.executable, "-m", "appliance", "source"]
    more = ["--tenant", SLUG, "--data", str(node.data)]
    seen = {}
    for words in (["list"], ["show", "box"], ["dead"], ["replay", letter["id"]], ["look", "box"],
                  ["pause", "box"], ["resume", "box"]):  # fmt: skip
        done = subprocess.run([*steer, *words, *more], cwd=ROOT, capture_output=True, text=True,
                              env={**os.environ, "COLUMNS": "200"})  # fmt: skip
        assert done.returncode == 0, (words, done.stderr)
        seen[words[0]] = done.stdout
    assert "…/box" in seen["list"] and "words.csv" in seen["dead"] and "schedule" in seen["show"]
    wait_state(owner, letter["run"], "failed")
    done = subprocess.run([*steer, "dismiss", letter["id"], "--note", "words", *more], cwd=ROOT)
    assert done.returncode == 0 and owner.get("/intake/dead", source="box")["letters"] == []
    import httpx

    end = time.monotonic() + 60
    while 'nexus_source_state{source="box",state="ok"' not in (
        text := httpx.get(f"{node.url}/metrics").text
    ):
        assert time.monotonic() < end, text
        time.sleep(1)
    assert 'nexus_import_plan_seconds_count{connector="price_list"' in text
    elsewhere.kill(signal.SIGTERM)
