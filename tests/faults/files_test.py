"""Files of a whole node while its parts are killed, and while readers lose their leave to read.

What is hostile is never released, what is benign always is in the end, and by itself; what a
reader may no longer have stops in the middle.
"""

import contextlib
import os
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

import httpx
import psycopg
import pytest

from appliance.runtime.account import service_account
from appliance.runtime.engines import locate_clamd
from appliance.runtime.postgres import Postgres
from quarantine.canary import EICAR
from tests.faults.node import PASSWORD, SLUG, Node, why_not

_CANNOT = why_not() or ("" if locate_clamd(service_account()) else "clamd is not installed")
pytestmark = pytest.mark.skipif(bool(_CANNOT), reason=_CANNOT or "-")
FILES = "/api/v1/files"
OCTETS = {"Content-Type": "application/octet-stream"}
BAD = b"Dear reader,\n" + EICAR
# A check that did not come to its end on a busy machine is made again after a minute.
HEAL_S = 100.0
MB = 1024 * 1024


@pytest.fixture(scope="module")
def node():
    home = Path(tempfile.mkdtemp(prefix="nexus-files-"))
    home.chmod(0o755)
    found = Node(home / "data")
    found.start()
    found.init()
    yield found
    found.stop()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def owner(node):
    with person(node, node.login()) as found:
        until(
            lambda: found.get("/health/ready").json()["checks"]["scanner"] in ("baseline", "ready")
        )
        yield found


def person(node, token):
    return httpx.Client(
        base_url=node.url, headers={"Authorization": f"Bearer {token}"}, timeout=40.0
    )


def until(check, seconds=HEAL_S, every=0.05):
    """Wait for a true answer; the seconds it took."""
    began = time.monotonic()
    while not check():
        assert time.monotonic() - began < seconds, "it did not come to this in time"
        time.sleep(every)
    return time.monotonic() - began


def insist(ask):
    """The same request until it is answered as wanted; a part of the node may be coming back."""
    end = time.monotonic() + HEAL_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            answer = ask()
            if answer.status_code < 300:
                return answer
            assert answer.status_code in (500, 502, 503, 507), answer.text
        assert time.monotonic() < end, "the node does not come back by itself"
        time.sleep(0.1)


def bring(who, body, name="letter.txt"):
    answer = insist(lambda: who.post(FILES, params={"name": name}, content=body, headers=OCTETS))
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def view(who, ident):
    return insist(lambda: who.get(f"{FILES}/{ident}")).json()


def state(who, ident):
    return view(who, ident)["state"]


def rests(who, ident, wanted):
    """The seconds until a file is in this state; in none on the way that would let it out."""
    began = time.monotonic()
    while (found := view(who, ident))["state"] != wanted:
        assert found["state"] in ("receiving", "held"), found
        assert time.monotonic() - began < HEAL_S, found
        time.sleep(0.05)
    return time.monotonic() - began


def books(node, text, *values):
    """A statement in the plane's own ledger."""
    with contextlib.closing(sqlite3.connect(node.data / "content" / "ledger.sqlite3")) as db:
        rows = db.execute(text, values).fetchall()
        db.commit()
        return rows


def killed(node, owner, role):
    """Bring one of each sort, kill the role; the seconds until both are where they belong."""
    texts = [f"{role} {time.monotonic_ns()} {n}\n".encode() for n in range(2)]
    good, bad = bring(owner, texts[0] * 500), bring(owner, texts[1] + BAD)
    assert node.kill(role), role
    began = time.monotonic()
    late = bring(owner, texts[1])
    for ident, wanted in ((good, "released"), (bad, "rejected"), (late, "released")):
        rests(owner, ident, wanted)
    return time.monotonic() - began


def test_no_kill_loses_a_file_or_lets_one_out(node, owner):
    roles = ("scan", "content", "worker", "clamd")
    took = {role: killed(node, owner, role) for role in roles}
    print("killed, all files judged after: " + ", ".join(f"{r} {s:.1f} s" for r, s in took.items()))


@pytest.mark.slow
def test_no_kill_of_the_services_loses_a_file(node, owner):
    roles = ("api", "valkey", "postgres") * 2 + ("scan", "content", "worker", "clamd") * 2
    for role in roles:
        print(f"{role} killed, all files judged after {killed(node, owner, role):.1f} s")


def test_an_api_that_dies_between_the_store_and_its_note_loses_nothing(node, owner):
    go, idents = threading.Event(), []
    text = f"api {time.monotonic_ns()}\n".encode()

    def slowly():
        yield text
        go.wait(20)
        yield text

    def send():
        with contextlib.suppress(httpx.HTTPError), person(node, owner_token(owner)) as who:
            who.post(FILES, params={"name": "slow.txt"}, content=slowly(), headers=OCTETS)

    sender = threading.Thread(target=send)
    sender.start()

    def has_begun():
        idents[:] = node.sql(
            "SELECT id::text FROM record WHERE kind = 'sys.file' AND data->>'name' = 'slow.txt' "
            "AND data->>'state' = 'receiving'"
        )
        return idents

    until(has_begun)
    ((ident,),) = idents
    dsn = Postgres(Path("/"), node.data, service_account()).dsn("postgres", "nexus_pool")
    with psycopg.connect(dsn) as held:
        # While the row is held nobody can note that the bytes are there.
        held.execute("SELECT 1 FROM record WHERE id = %s FOR UPDATE", [ident])
        go.set()
        until(lambda: books(node, "SELECT 1 FROM blob WHERE id = ?", ident.replace("-", "")))
        assert node.kill("api")
        held.rollback()
    sender.join()
    print(f"api killed before its note: released {rests(owner, ident, 'released'):.1f} s later")


def owner_token(owner):
    return owner.headers["Authorization"].removeprefix("Bearer ")


def invite(node, owner):
    """Another reviewer; the client, and the id."""
    ((profile,),) = node.sql(
        "SELECT id::text FROM record WHERE kind = 'sys.profile' AND data->>'key' = 'admin'"
    )
    ((unit,),) = node.sql("SELECT id::text FROM record WHERE kind = 'sys.unit' ORDER BY id LIMIT 1")
    email = f"reader{time.monotonic_ns()}@example.org"
    body = {"name": "Reader", "email": email,
            "memberships": [{"profile": profile, "units": [unit]}]}  # fmt: skip
    made = insist(lambda: owner.post("/api/v1/invitations", json=body)).json()
    accepted = owner.post(
        "/api/v1/invitations/accept", json={"code": made["code"], "password": PASSWORD}
    )
    assert accepted.status_code == 204, accepted.text
    opened = owner.post(
        "/api/v1/session", json={"tenant": SLUG, "email": email, "password": PASSWORD}
    )
    assert opened.status_code == 201, opened.text
    return person(node, opened.json()["token"]), made["person"]


class Reading:
    """A download at about ten megabytes a second; ended when the plane sends nothing more."""

    def __init__(self, who, ident):
        ticket = insist(lambda: who.post(f"{FILES}/{ident}/ticket", json={}))
        self.who, self.got, self.whole, self.ended = who, 0, False, None
        self.url, self.size = ticket.json()["url"], 0
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        until(lambda: self.got > 3 * MB, every=0.01)

    def _read(self):
        try:
            with self.who.stream("GET", self.url, follow_redirects=True) as answer:
                self.size = int(answer.headers["content-length"])
                for piece in answer.iter_raw(65_536):
                    self.got += len(piece)
                    time.sleep(0.006)
            self.whole = True
        except httpx.HTTPError:
            self.ended = time.monotonic()

    def stops_after(self, began, node, ident):
        """Seconds until the plane told that it sends no more; the reader sees a torn end."""
        reads = "SELECT reads FROM blob WHERE id = ?"
        before = books(node, reads, ident.replace("-", ""))
        until(lambda: books(node, reads, ident.replace("-", "")) != before, 10, every=0.02)
        took = time.monotonic() - began
        self.thread.join()
        assert not self.whole and self.got < self.size, "it went on to its end"
        return took


def test_readers_who_lose_their_leave_are_stopped_in_the_middle(node, owner):
    body = b"".join(
        b"%08d a line of a long list of what is in store\n" % n for n in range(1_000_000)
    )
    ident = bring(owner, body[: 50 * MB], "long.txt")
    rests(owner, ident, "released")
    reader, who = invite(node, owner)
    second = person(node, node.login())
    took = {}
    for what, client, ask in (
        ("signed out", second, lambda: second.delete("/api/v1/session")),
        ("offboarded", reader, lambda: owner.post(f"/api/v1/people/{who}/offboard", json={})),
        ("recalled", owner, lambda: owner.post(
            f"{FILES}/{ident}/review", json={"decision": "recall", "reason": "A wrong list was sent."})),
    ):  # fmt: skip
        running = Reading(client, ident)
        began = time.monotonic()
        answer = ask()
        assert answer.status_code in (200, 204), answer.text
        took[what] = running.stops_after(began, node, ident)
        assert client.get(running.url).status_code == 404
    refused = owner.post(f"{FILES}/{ident}/ticket", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "file.recalled")
    print("a running download stops: " + ", ".join(f"{w} {s:.2f} s" for w, s in took.items()))
    assert max(took.values()) < 2.0


def test_a_new_signature_recalls_what_was_released_and_names_its_readers(node, owner):
    mark = f"what tomorrow's rule knows {time.monotonic_ns()}".encode()
    ident = bring(owner, b"A list of parts.\n" + mark)
    rests(owner, ident, "released")
    reader, who = invite(node, owner)
    for client in (owner, reader):
        url = client.post(f"{FILES}/{ident}/ticket", json={}).json()["url"]
        assert mark in client.get(url, follow_redirects=True).content
    # Only who asked for a ticket and never came for the bytes.
    waiting, asked = invite(node, owner)
    url = waiting.post(f"{FILES}/{ident}/ticket", json={}).json()["url"]
    folder = node.data / "clamd" / "signatures.d"
    rule = folder / "tomorrow.ndb"
    rule.write_text(f"Own.Tomorrow:0:*:{mark.hex()}\n")
    rule.chmod(0o644)
    took = until(lambda: state(owner, ident) == "recalled")
    assert waiting.get(url).status_code in (404, 409)
    until(lambda: incidents(node, ident), 5)
    ((evidence,),) = incidents(node, ident)
    me = owner.get("/api/v1/me").json()
    readers = {r["person"]: r["downloads"] for r in evidence["readers"]}
    assert readers[who] == 1 and readers[asked] == 0 and len(readers) == 3, (readers, me)
    assert "Own.Tomorrow" in evidence["findings"][0]["detail"]
    assert took < 60
    print(f"a new signature: recalled with its incident {took:.1f} s after it was dropped in")


def incidents(node, ident):
    return node.sql(
        "SELECT data->'evidence' FROM record WHERE kind = 'sys.incident' AND data->>'subject' = %s",
        ident,
    )


def test_a_verdict_of_long_ago_is_made_anew_before_a_ticket(node, owner):
    ident = bring(owner, f"An old list {time.monotonic_ns()}.\n".encode())
    rests(owner, ident, "released")
    old, key = time.time() - 8 * 86_400, ident.replace("-", "")
    books(
        node, "UPDATE blob SET judged = ?, signatures = 'old' WHERE id = ? RETURNING id", old, key
    )
    began = time.monotonic()
    ticket = owner.post(f"{FILES}/{ident}/ticket", json={})
    assert ticket.status_code == 201, ticket.text
    ((judged, signatures),) = books(node, "SELECT judged, signatures FROM blob WHERE id = ?", key)
    assert judged > time.time() - 60 and signatures != "old"
    print(f"a ticket with a fresh verdict: {time.monotonic() - began:.2f} s")


@pytest.mark.slow
def test_without_redis_files_are_taken_and_tickets_refused_by_name(node, owner):
    ident = bring(owner, b"Before.\n")
    rests(owner, ident, "released")
    (pid,) = node.pids("valkey")

    os.kill(pid, signal.SIGSTOP)
    try:
        late = bring(owner, b"Meanwhile.\n")
        refused = owner.post(f"{FILES}/{ident}/ticket", json={})
        assert refused.status_code == 503 and "Redis" in refused.json()["detail"]
    finally:
        os.kill(pid, signal.SIGCONT)
    rests(owner, late, "released")
    assert insist(lambda: owner.post(f"{FILES}/{late}/ticket", json={})).status_code == 201
