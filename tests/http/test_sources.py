"""Sources of connector workers as people see and steer them: a real worker beside a real node."""

import asyncio
import contextlib
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import msgspec
import pytest
import uvicorn

from appliance.base.clock import now
from appliance.intake import sources
from appliance.work.imports import watch_sources
from tests.connectors import servers
from tests.http.test_door import assert_problem
from tests.http.test_intake_work import LIST, PATH, Desk
from tests.plane import ROOT
from tests.ports import free_port

pytestmark = pytest.mark.anyio
HANGS = {"type": "sftp", "user": "firm", "fingerprints": ["SHA256:x"], "password_file": "pw"}


@contextlib.contextmanager
def serving(trickle):
    """A server that takes connections and says nothing, or a byte now and then."""
    server = socket.create_server(("127.0.0.1", 0))
    open_, taken = [], []

    def go():
        with contextlib.suppress(OSError):
            while True:
                sock, _ = server.accept()
                open_.append(sock)
                taken.append(time.monotonic())
                if trickle:
                    threading.Thread(target=drip, args=(sock,), daemon=True).start()

    def drip(sock):
        with contextlib.suppress(OSError):
            while True:
                sock.send(b"x")
                time.sleep(0.2)

    threading.Thread(target=go, daemon=True).start()
    try:
        yield server.getsockname()[1], taken
    finally:
        server.close()
        for sock in open_:
            sock.close()


class Elsewhere:
    """A worker process with sources of its own."""

    def __init__(self, folder, url, token):
        self.folder, self.url, self.child = folder, url, None
        folder.mkdir()
        (folder / "key").write_text(token)
        (folder / "key").chmod(0o600)

    def start(self, *found):
        lines = []
        for one in found:
            lines.append("[[source]]")
            lines += [f"{k} = {_toml(v)}" for k, v in one.items()]
        (self.folder / "sources.toml").write_text("\n".join(lines))
        words = ["work", "--node", self.url, "--name", self.folder.name, "--key-file",
                 self.folder / "key", "--data", self.folder / "data", "--sources",
                 self.folder / "sources.toml"]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "connectors", *map(str, words)], cwd=ROOT, stdout=log,
                stderr=log, env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
            )  # fmt: skip

    def end(self, sign=signal.SIGKILL):
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(sign)
            return self.child.wait(20)
        return None

    def told(self, event):
        lines = [x for x in (self.folder / "log").read_text().splitlines() if x[:1] == "{"]
        return [e for e in map(json.loads, lines) if e["event"] == event]


def _toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


@pytest.fixture
async def url(app):
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, lifespan="off"))
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


@pytest.fixture
async def owner(firm, sign_in):
    return await sign_in(firm, "owner")


async def until(ask, seconds=30):
    end = time.monotonic() + seconds
    while True:
        found = await ask()
        if found:
            return found
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.1)


async def state_of(owner, key):
    answer = await owner.get(f"{PATH}/sources/{key}")
    return answer.json() if answer.status_code == 200 else {}


async def letters(owner, **params):
    return (await owner.get(f"{PATH}/dead", params=params)).json()["letters"]


async def runs_of(owner, name):
    found = (await owner.get(f"{PATH}/runs?limit=200")).json()["runs"]
    return [r["name"] for r in found if r["source"] == name]


def box_of(folder, **more):
    place = {"type": "folder", "folder": str(folder), "may_move": True}
    return {"key": "box", "connector": "price_list", "name": "Box", "pattern": "*.csv",
            "every_s": 1, "bytes_max": 3_000, "place": place, **more}  # fmt: skip


async def test_a_worker_is_seen_and_steered_and_hanging_places_slow_nobody(
    url, owner, firm, tmp_path
):
    key = await owner.post("/api/v1/keys", json={"label": "box", "profile": "admin", "days": 3})
    one = Elsewhere(tmp_path / "one", url, key.json()["token"])
    two = Elsewhere(tmp_path / "two", url, key.json()["token"])
    box = tmp_path / "anna" / "box"
    box.mkdir(parents=True)
    (box / "a.csv").write_bytes(LIST[:2_000])
    (box / "big.csv").write_bytes(LIST)
    (box / "huge.csv").write_bytes(LIST + LIST)
    with serving(False) as (silent, asked), serving(True) as (slow, dripped):
        places = [{**HANGS, "host": "127.0.0.1", "port": p} for p in (silent, slow)]
        hanging = [
            {"key": f"hangs{n}", "connector": "mt940", "name": f"H{n}", "every_s": 1, "place": p,
             "retry": {"tries": 2, "deadline_s": 2.0}} for n, p in enumerate(places * 5)
        ]  # fmt: skip
        shut = {"key": "shut", "connector": "mt940", "name": "Shut", "every_s": 1,
                "place": {"type": "https", "url": "http://shop.example/s3cret"}}  # fmt: skip
        try:
            one.start(box_of(box), shut, *hanging)

            async def is_given():
                found = await state_of(owner, "box")
                return found if found.get("files") and found["dead"] == 2 else None

            found = await until(is_given)
            assert (found["state"], found["address"], found["worker"]) == ("ok", "…/box", "one")
            assert found["code"] == "" and found["faults"] == {"file-too-large": 2}
            # Ten places hang in the worker: the node answers as ever, and box is looked at on.
            assert asked and dripped
            spent = []
            for _ in range(40):
                begun = time.monotonic()
                assert (await owner.get("/api/v1/me")).status_code == 200
                spent.append(time.monotonic() - begun)
            assert sorted(spent)[20] < 0.5, spent
            await until(lambda: _looked_since(owner, found["looks"]))

            async def is_failing():
                return (await state_of(owner, "hangs0")).get("code") in ("timeout", "still-hanging")

            await until(is_failing)
            stopped = await state_of(owner, "shut")
            assert (stopped["state"], stopped["code"]) == ("stopped", "address-forbidden")
            assert "s3cret" not in json.dumps(stopped) and stopped["next_look_at"] is None
            assert_problem(await owner.post(f"{PATH}/sources/shut/look"), 409, "source.still")
            assert (await owner.post(f"{PATH}/sources/shut/resume")).status_code == 202

            async def is_stopped_again():
                return (await state_of(owner, "shut"))["looks"] == 2

            await until(is_stopped_again)
            await _steer(owner, box)
            two.start(box_of(box, bytes_max=100_000_000))
            await until(lambda: _is_held(two))
            one.end()
        finally:
            one.end()
    try:
        await _take_over(owner, firm, two, box)
    finally:
        two.end()


async def _looked_since(owner, looks):
    return (await state_of(owner, "box"))["looks"] > looks + 1


async def _is_held(worker):
    return worker.told("source.held")


async def _steer(owner, box):
    """Paused it takes nothing, resumed it does; what is dismissed is moved aside."""
    assert (await owner.post(f"{PATH}/sources/box/pause")).json()["is_paused"]
    since = now().isoformat()

    async def is_told():
        found = await state_of(owner, "box")
        return found["told_at"] if found["told_at"] > since and not found["is_looking"] else None

    # The answer to the first word after it carries the wish, the next one is said under it.
    since = await until(is_told)
    await until(is_told)
    (box / "b.csv").write_bytes(LIST[:1_000])
    looks = (await state_of(owner, "box"))["looks"]
    await asyncio.sleep(1.5)
    paused = await state_of(owner, "box")
    assert (paused["state"], paused["looks"]) == ("paused", looks) and (box / "b.csv").exists()
    assert (await owner.post(f"{PATH}/sources/box/resume")).status_code == 202
    await until(lambda: _has_run(owner, "b.csv"))
    found = {x["name"]: x for x in await letters(owner, source="box")}
    assert set(found) == {"big.csv", "huge.csv"}
    assert {(x["stage"], x["code"]) for x in found.values()} == {("fetch", "file-too-large")}
    assert (box / "huge.csv").exists()
    gone = await owner.post(
        f"{PATH}/dead/{found['huge.csv']['id']}/dismiss", json={"note": "not ours"}
    )
    assert gone.status_code == 204
    await until(lambda: _is_moved(box))
    assert [x["name"] for x in await letters(owner, source="box")] == ["big.csv"]
    # Nothing has changed: it fails again, and is there as before.
    big = found["big.csv"]["id"]
    assert (await owner.post(f"{PATH}/dead/{big}/replay", json={})).status_code == 204

    async def has_failed_again():
        (one,) = await letters(owner, source="box")
        return one["tries"] == 2 and not one["is_asked"]

    await until(has_failed_again)


async def _is_moved(box):
    return (box / "failed" / "huge.csv").exists()


async def _has_run(owner, name):
    return name in await runs_of(owner, "Box")


async def _take_over(owner, firm, two, box):
    """After a kill the source falls silent, another worker has it, and nothing comes twice."""
    before = sorted(await runs_of(owner, "Box"))
    for name in ("a.csv", "b.csv"):
        (box / "done" / name).rename(box / name)
    await firm.tenant.sql("UPDATE intake_source SET lease_until = now() - interval '1 s'")
    found = {s["key"]: s["state"] for s in (await owner.get(f"{PATH}/sources")).json()["sources"]}
    assert found["hangs0"] == "silent" and found["shut"] == "stopped"
    await until(lambda: _is_of(owner, "two"))
    await until(lambda: _has_run(owner, "big.csv"))
    assert sorted(await runs_of(owner, "Box")) == sorted([*before, "big.csv"])
    await until(lambda: _are_none(owner))
    assert_problem(await owner.delete(f"{PATH}/sources/box"), 409, "source.in_use")
    # The node lives in this very loop: it has to hear the farewell meanwhile.
    assert await asyncio.to_thread(two.end, signal.SIGTERM) == 0
    # It has left: that is no silence yet, and another one may have the source at once.
    left = await state_of(owner, "box")
    assert left["state"] == "ok"
    assert (await owner.delete(f"{PATH}/sources/box")).status_code == 204
    assert_problem(await owner.get(f"{PATH}/sources/box"), 404, "source.unknown")


async def _are_none(owner):
    return await letters(owner, source="box") == []


async def _is_of(owner, worker):
    return (await state_of(owner, "box")).get("worker") == worker


@pytest.mark.slow
async def test_another_host_key_stops_a_source_until_a_person_says_go_on(url, owner, tmp_path):
    if servers.SSHD is None or servers.SFTP_SERVER is None:
        pytest.skip("sshd is not installed")
    token = (await owner.post("/api/v1/keys", json={"label": "s", "profile": "admin", "days": 3})).json()["token"]  # fmt: skip
    worker = Elsewhere(tmp_path / "sftp", url, token)
    public, _ = servers.make_ssh_key(tmp_path / "id")
    out = tmp_path / "out"
    out.mkdir()
    (out / "day.csv").write_bytes(LIST[:900])
    host = tmp_path / "host"
    host.mkdir()
    with servers.run_sshd(host, public) as (port, fingerprint):

        def place(pinned):
            return {"type": "sftp", "host": "127.0.0.1", "port": port, "user": getpass.getuser(),
                    "fingerprints": [pinned], "key_file": str(tmp_path / "id"), "folder": str(out)}  # fmt: skip

        bank = {"key": "bank", "connector": "price_list", "name": "Bank", "every_s": 1}
        try:
            worker.start({**bank, "place": place("SHA256:" + "A" * 43)})

            async def is_stopped():
                found = await state_of(owner, "bank")
                return found if found.get("state") == "stopped" else None

            found = await until(is_stopped)
            assert found["code"] == "host-key-changed" and fingerprint in found["detail"]
            assert found["address"] == f"127.0.0.1:{port}/…/out" and found["looks"] == 1
            worker.end()
            # It is pinned now, and still nobody is asked: a person has to say so.
            worker.start({**bank, "place": place(fingerprint)})
            await until(lambda: _has_begun(worker, 2))
            await asyncio.sleep(3)
            assert (await is_stopped())["looks"] == 1
            assert (await owner.post(f"{PATH}/sources/bank/resume")).status_code == 202
            await until(lambda: _has_bank_run(owner))
            assert (await state_of(owner, "bank"))["state"] == "ok"
        finally:
            worker.end()


async def _has_begun(worker, times):
    return len(worker.told("worker.started")) == times


async def _has_bank_run(owner):
    return await runs_of(owner, "Bank") == ["day.csv"]


def source(key, **more):
    return {"key": key, "connector": "mt940", "name": key.title(), "place": "folder",
            "address": "…/x", "schedule": {}, **more}  # fmt: skip


async def tell(client, *found, instance="a" * 32, worker="books", **more):
    body = {"worker": worker, "instance": instance, "sources": found, **more}
    return await client.put(f"{PATH}/work/sources", json=body)


async def test_overdue_and_silent_sources_are_told_once_counted_and_over_when_they_are(
    owner, firm, node, sign_in, valkey_url
):
    await firm.tenant.sql("DELETE FROM intake_source")

    good = {"last_good_at": "2026-01-02T00:00:00Z", "looks": 3}
    daily = {"expected_by": "00:00", "zone": "Europe/Kyiv"}
    told = await tell(owner, source("daily", schedule=daily, **good), source("calm", **good))
    wanted = {w["key"]: w for w in told.json()["sources"]}
    assert wanted["daily"]["is_yours"] and wanted["daily"]["held_by"] == ""
    other = await tell(owner, source("daily"), instance="b" * 32, worker="other")
    assert other.json()["sources"][0] | {"files": []} == wanted["daily"] | {
        "is_yours": False, "held_by": "books",
    }  # fmt: skip
    assert (await state_of(owner, "daily"))["state"] == "ok"
    await firm.tenant.sql("UPDATE intake_source SET known_at = now() - interval '9 days'")
    found = await state_of(owner, "daily")
    assert found["state"] == "overdue" and found["overdue_since"] <= now().isoformat()
    row = await sources.get_source(node.db, firm.tenant.id, "calm")
    assert sources.state_of(row, now()) == "ok"

    class Working:
        db, redis_url = node.db, valkey_url

    assert await watch_sources(Working) == 1
    assert await watch_sources(Working) == 0
    text = (await owner.get("/metrics")).text
    slug = firm.slug
    assert f'nexus_source_state{{source="daily",state="overdue",tenant="{slug}"}} 1.0' in text
    assert f'nexus_source_overdue{{source="calm",tenant="{slug}"}} 0.0' in text
    await tell(owner, source("daily", schedule=daily, last_file_at=now().isoformat(), **good))
    await firm.tenant.sql(
        "UPDATE intake_source SET lease_until = now() - interval '1 s' WHERE key = 'calm'"
    )
    assert await watch_sources(Working) == 2
    assert (await state_of(owner, "calm"))["state"] == "silent"
    text = (await owner.get("/metrics")).text
    assert f'nexus_source_looks_total{{source="daily",tenant="{slug}"}} 3.0' in text
    # Who may not, and what is no report.
    seller, viewer = await sign_in(firm, "seller"), await sign_in(firm, "viewer")
    for who in (seller, viewer):
        assert_problem(await who.get(f"{PATH}/sources"), 403)
        assert_problem(await tell(who, source("x")), 403)
        assert_problem(await who.post(f"{PATH}/sources/daily/pause"), 403)
    for bad in (
        source("x", address="a\0b"), source("No"), source("x", schedule={"zone": "Mars"}),
        source("x", looks=-1), source("x", last_look_at="2026-01-01T00:00:00"), source("x", a=1),
    ):  # fmt: skip
        assert_problem(await tell(owner, bad), 422)
    assert_problem(await tell(owner, source("x"), source("x")), 422)
    for key in ("%00", "..", "No", "none"):
        assert_problem(await owner.get(f"{PATH}/sources/{key}"), 404)
    assert (await owner.delete(f"{PATH}/sources/calm")).status_code == 204
    # A word that comes after the farewell takes nothing back; another worker has it at once.
    late = source("last", **good)
    assert (await tell(owner, late, no=7)).json()["sources"][0]["is_yours"]
    assert (await tell(owner, late, no=8, is_leaving=True)).json()["sources"][0]["is_yours"]
    assert not (await tell(owner, late, no=7)).json()["sources"][0]["is_yours"]
    assert (await state_of(owner, "last"))["state"] == "ok"
    took = await tell(owner, late, no=1, instance="c" * 32, worker="other")
    assert took.json()["sources"][0]["is_yours"]


async def test_a_file_that_cannot_be_read_is_a_letter_until_it_is_read_or_put_aside(
    firm, sign_in, node, owner
):
    desk = Desk(owner, firm, node.settings.data_dir)
    run = await desk.bring(b"%PDF-1.7 no table", cpu_s_max=60, rows_max=500)
    taken = (await desk.take()).json()
    assert taken["budget"] == {"memory_mb": 2048, "cpu_s": 60, "seconds": 3600, "rows": 500}
    failed = {"type": "failed", "fault": {"code": "not-a-table", "expected": "a table"}}
    assert (await desk.post(msgspec.msgpack.encode(failed), 1)).status_code == 200
    (letter,) = [x for x in await letters(owner) if x["id"] == run]
    assert (letter["stage"], letter["code"], letter["run"]) == ("read", "not-a-table", run)
    admin = await sign_in(firm, "admin")

    async def waits(client):
        # Files of other tests may have failed in this firm too.
        return run in [x["id"] for x in await letters(client)]

    assert await waits(admin)
    assert_problem(await admin.post(f"{PATH}/dead/{run}/replay", json={"mapping": "none"}), 404)
    # The scanner of this node has let nothing pass: nobody reads the file yet.
    refused = await admin.post(f"{PATH}/dead/{run}/replay", json={})
    assert_problem(refused, 409, "intake.file_unusable")
    await firm.tenant.sql("UPDATE intake_run SET blob = NULL WHERE id = $1", run)
    assert (await admin.post(f"{PATH}/dead/{run}/replay", json={})).status_code == 204
    assert not await waits(owner)
    again = await desk.state()
    assert (again["state"], again["figures"]["started_at"]) == ("received", None)
    await desk.prepare()
    assert (await desk.take()).json()["epoch"] == 1
    await desk.post(msgspec.msgpack.encode(failed), 1)
    assert await waits(owner)
    noted = await owner.post(f"{PATH}/dead/{run}/dismiss", json={"note": "not a price list"})
    assert noted.status_code == 204 and not await waits(owner)
    assert_problem(await owner.post(f"{PATH}/dead/{run}/dismiss", json={}), 404, "letter.unknown")
    assert_problem(await owner.post(f"{PATH}/dead/{run}/dismiss", json={"note": "\0"}), 422)
    tally = dict(await firm.tenant.sql("SELECT ending, sum(runs) FROM intake_tally GROUP BY 1"))
    assert int(tally["failed"]) >= 2
