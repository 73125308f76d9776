"""Files through a whole node's own processes: up, judged, down; and what memory that takes.

Each figure stands beside a floor of the same run: a copy of the file with hashing for uploads, the
bare bytes over a socket for downloads, clamd alone for verdicts.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import sqlite3
import statistics
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from appliance.runtime.account import service_account
from appliance.runtime.clamd import Clamd
from appliance.runtime.engines import locate_clamd
from tests.bench import harness
from tests.bench.blobs import copy
from tests.bench.memory import Growth, sandbox_of
from tests.bench.scanner import bare, text
from tests.faults.node import Node, command_of, descendants
from tests.quarantine.office_files import package, word

MB = 1_000_000
LARGE = 100
ROUNDS = 5
PIECE = 1 << 20
RELEASED_S = 60.0


async def main():
    folder = Path(tempfile.mkdtemp(prefix="nexus-bench-"))
    folder.chmod(0o755)
    node = Node(folder / "data")
    try:
        node.start()
        node.init()
        firm = Firm(node, folder)
        firm.bring(firm.document(), "first.docx")
        firm.settle()
        idle(node)
        uploads(firm)
        downloads(firm)
        tickets(firm)
        at_once(firm)
        memory(firm)
        whole_pipeline(firm)
    finally:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Firm:
    """A person of the node's tenant with files to bring; `token` opens the session."""

    def __init__(self, node, folder):
        self.node, self.folder, self.token = node, folder, node.login()
        self.http = httpx.Client(
            base_url=node.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=60.0
        )

    def wave(self, megabytes, name="a.wav"):
        """Noise that no check stumbles over; other bytes each time, so that nothing is known."""
        path, left = self.folder / name, megabytes * MB
        with path.open("wb") as file:
            file.write(b"RIFF" + (left - 8).to_bytes(4, "little") + b"WAVEfmt ")
            left -= 16
            while left:
                left -= file.write(os.urandom(min(left, PIECE)))
        return path

    def table(self, megabytes, name="a.csv"):
        path = self.folder / name
        path.write_bytes(secrets.token_hex(8).encode() + b";a;b;c\n" + text(megabytes * MB))
        return path

    def document(self, name="a.docx"):
        """About 1 MB: forty pages of text and a picture that does not compress."""
        body = "".join(
            f"<w:p><w:r><w:t>{secrets.token_hex(40)}</w:t></w:r></w:p>" for _ in range(2000)
        )
        path = self.folder / name
        parts = {"word/media/sound.wav": self.wave(1, "part").read_bytes()[: 870 * 1024]}
        package("docx", word(body), parts=parts, defaults={"wav": "audio/wav"})(path)
        return path

    def bring(self, path, name=""):
        """The bytes themselves; the file's id."""
        return self._send(path, f"?name={name or path.name}", "application/octet-stream", b"", b"")

    def bring_form(self, path):
        """The same as a browser sends it."""
        head = (
            f'--x1y2\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        form = "multipart/form-data; boundary=x1y2"
        return self._send(path, "", form, head.encode(), b"\r\n--x1y2--\r\n")

    def _send(self, path, query, media, before, after):
        length = len(before) + path.stat().st_size + len(after)
        head = (
            f"POST /api/v1/files{query} HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {self.token}\r\n"
            f"content-type: {media}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )
        with (
            socket.create_connection(("127.0.0.1", self.node.port)) as line,
            path.open("rb") as file,
        ):
            line.sendall(head.encode() + before)
            line.sendfile(file)
            line.sendall(after)
            answer = b"".join(iter(lambda: line.recv(PIECE), b""))
        status, _, body = answer.partition(b"\r\n\r\n")
        assert b" 202 " in status.split(b"\r\n")[0], answer[:500]
        return json.loads(body)["id"]

    def ticket(self, ident):
        """Asks every few milliseconds until there is one; its address."""
        end = time.monotonic() + RELEASED_S
        while True:
            answer = self.http.post(f"/api/v1/files/{ident}/ticket")
            if answer.status_code == 201:
                return answer.json()["url"]
            found = answer.json()
            assert found["code"] in ("file.held", "file.receiving"), found
            assert time.monotonic() < end, found
            time.sleep(0.005)

    def fetch(self, url):
        """All bytes behind a ticket, thrown away; how many."""
        where = httpx.get(url, headers=self.http.headers).headers["location"]
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port)) as line:
            line.sendall(
                f"GET {where} HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {self.token}\r\n"
                "connection: close\r\n\r\n".encode()
            )
            return drain(line)

    def settle(self):
        """Until all files have their verdict and the machine rests."""
        while self.ledger("SELECT 1 FROM blob WHERE todo = 1 OR verdict IS NULL"):
            time.sleep(0.05)
        time.sleep(0.3)

    def ledger(self, query, *values):
        path = self.node.data / "content" / "ledger.sqlite3"
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as db:
            return db.execute(query, values).fetchall()

    def process(self, role):
        (found,) = [
            p
            for p in descendants(self.node.up.pid)
            if command_of(p).endswith(f" quarantine {role} ")
        ]
        return found


def timed(call):
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


def drain(line):
    room, count = bytearray(PIECE), 0
    while got := line.recv_into(room):
        count += got
    return count


def idle(node):
    """What the plane's processes hold when nothing happens (PSS, so what is shared counts once)."""
    time.sleep(3)
    total = 0.0
    for pid in descendants(node.up.pid):
        if " quarantine" in (name := command_of(pid)):
            found = Path(f"/proc/{pid}/smaps_rollup").read_text()
            size = int(found.split("\nPss:")[1].split()[0]) / 1024
            short = name.split("-m ")[-1].split("/scratch")[0][:36]
            print(f"  {short:42} {size:9.1f} MB")
            total += size
    harness.figure("idle content plane without clamd (PSS)", total, "MB", "printed")


def uploads(firm):
    """100 MB through the API against a copy that reads, hashes, writes and flushes."""
    took = {"bytes as they are": [], "a form": []}
    floor = []
    for _ in range(ROUNDS):
        for name, send in (("bytes as they are", firm.bring), ("a form", firm.bring_form)):
            path = firm.wave(LARGE)
            seconds, _ = timed(lambda path=path, send=send: send(path))
            took[name].append(seconds)
            firm.settle()
        seconds, _ = timed(lambda path=path: copy(path, firm.folder / "copy"))
        floor.append(seconds)
    bare_speed = LARGE / statistics.median(floor)
    for name, found in took.items():
        speed = LARGE / statistics.median(found)
        harness.report(f"upload of 100 MB, {name}", speed, bare_speed, "> 0.5", "MB/s")


def downloads(firm):
    """100 MB with a ticket against the same bytes read and sent over a socket by nobody's server."""
    path = firm.wave(LARGE)
    ident = firm.bring(path)
    ours, floor = [], []
    for _ in range(ROUNDS):
        url = firm.ticket(ident)
        firm.settle()
        seconds, count = timed(lambda url=url: firm.fetch(url))
        assert count > LARGE * MB, count
        ours.append(seconds)
        floor.append(timed(lambda: send_bare(path))[0])
    speeds = [LARGE / statistics.median(found) for found in (ours, floor)]
    harness.report("download of 100 MB with a ticket", *speeds, "printed", "MB/s")


def send_bare(path):
    ours, theirs = socket.socketpair()

    def send():
        with theirs, path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                theirs.sendall(piece)

    sender = threading.Thread(target=send)
    sender.start()
    with ours:
        drain(ours)
    sender.join()


def tickets(firm):
    """From the first byte of a document of 1 MB until there is a ticket for it."""
    took = []
    for _ in range(40):
        path = firm.document()
        firm.settle()
        seconds, _ = timed(lambda path=path: firm.ticket(firm.bring(path)))
        took.append(seconds * 1e3)
    harness.figure("1 MB docx, upload to ticket, p50", statistics.median(took), "ms", "printed")
    harness.figure(
        "1 MB docx, upload to ticket, p95", statistics.quantiles(took, n=20)[18], "ms", "< 1000"
    )


def at_once(firm):
    """Two files brought by two people at a time, until both are judged, against one by one."""
    both, after = [], []
    for _ in range(3):
        paths = [firm.wave(20, f"{n}.wav") for n in range(2)]
        after.append(timed(lambda paths=paths: [bring_and_wait(firm, path) for path in paths])[0])
        paths = [firm.wave(20, f"{n}.wav") for n in range(2)]
        threads = [threading.Thread(target=bring_and_wait, args=(firm, path)) for path in paths]

        def run(threads=threads):
            for one in threads:
                one.start()
            for one in threads:
                one.join()

        both.append(timed(run)[0])
    values = (statistics.median(found) * 1e3 for found in (both, after))
    harness.report("two files of 20 MB at a time", *values, "< 1", "ms")


def bring_and_wait(firm, path):
    ident = firm.bring(path)
    while not firm.ledger(
        "SELECT 1 FROM blob WHERE id = ? AND verdict IS NOT NULL", ident.replace("-", "")
    ):
        time.sleep(0.005)


def memory(firm):
    """Above idle while 100 MB come in, are judged and go out; with the plaintext of the scan."""
    firm.settle()
    work = firm.process("work")
    groups = {
        "serve": lambda: [firm.process("serve")], "work": lambda: [work],
        "sandbox": lambda: sandbox_of(work),
    }  # fmt: skip
    for name, make in (("wav", firm.wave), ("csv", firm.table)):
        path = make(LARGE, f"b.{name}")
        with Growth(groups, work) as growth:
            firm.fetch(firm.ticket(firm.bring(path)))
        for part, most in growth.most.items():
            print(f"  {name}: {part:37} {most / 1e6:9.1f} MB", flush=True)
        harness.figure(f"100 MB {name} above idle, all together", growth.total / 1e6, "MB", "< 150")
        firm.settle()


def whole_pipeline(firm):
    """From stored to judged, by the plane's own clock, against clamd alone on the same file."""
    account = service_account()
    address = str(Clamd(locate_clamd(account), firm.node.data, account, signatures=[]).socket)
    for megabytes, rounds in ((1, 21), (10, 9), (100, 5)):
        for make in (firm.table, firm.wave):
            ours, floor, before = [], [], spent(firm)
            for _ in range(rounds):
                path = make(megabytes)
                firm.settle()
                ident = firm.bring(path).replace("-", "")
                firm.settle()
                ((judged, received),) = firm.ledger(
                    "SELECT judged, received FROM blob WHERE id = ?", ident
                )
                ours.append(judged - received)
                floor.append(timed(lambda path=path: bare(address, path))[0])
            values = [statistics.median(found) * 1e3 for found in (ours, floor)]
            harness.report(
                f"{megabytes} MB {path.suffix}, stored to judged", *values, "< 1.43", "ms"
            )
            shares = {k: (v - before.get(k, 0.0)) / rounds * 1e3 for k, v in spent(firm).items()}
            print("  " + ", ".join(f"{k} {v:.1f}" for k, v in shares.items()), flush=True)


def spent(firm):
    """Seconds of each engine since the plane began."""
    rows = firm.ledger("SELECT name, value FROM tally WHERE name LIKE 'seconds.%'")
    return {name.removeprefix("seconds."): value for name, value in rows}


if __name__ == "__main__":
    asyncio.run(main())
