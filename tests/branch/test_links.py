"""The links themselves: late as told, cut and healed at once, broken where the seed says."""

import http.server
import subprocess
import sys
import threading
import time

import httpx
import pytest

from tests.branch import spaces
from tests.branch.link import GATE_PORT, Wan
from tests.branch.proxy import Proxied
from tests.ports import free_port

BODY = b"x" * 300_000


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        """Nobody reads it."""


@pytest.fixture
def served():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@pytest.fixture
def proxied(served, tmp_path):
    link = Proxied(tmp_path, ("north", "south"), served, seed=3)
    for site in link.weather:
        link.set(site, delay=0.0)
    link.start()
    link.weather = {s: type(w)() for s, w in link.weather.items()}
    link.set("north")
    time.sleep(0.3)
    yield link
    link.stop()


def fetch(url, seconds=3.0):
    try:
        return len(httpx.get(url, timeout=seconds).content)
    except httpx.HTTPError as failed:
        return type(failed).__name__


def test_a_proxied_link_is_late_cut_healed_and_forgotten(proxied):
    north, south = proxied.hub_url["north"], proxied.hub_url["south"]
    assert fetch(north) == fetch(south) == len(BODY)
    proxied.set("north", delay=0.15)
    time.sleep(0.3)
    began = time.monotonic()
    assert fetch(north) == len(BODY)
    assert time.monotonic() - began >= 0.3
    proxied.cut("north")
    time.sleep(0.3)
    assert isinstance(fetch(north), str)
    assert fetch(south) == len(BODY), "the other one is not touched"
    proxied.heal("north")
    time.sleep(0.3)
    assert fetch(north) == len(BODY)
    proxied.forget("north")
    time.sleep(0.3)
    assert fetch(north, 0.6) == "ReadTimeout", "half-open: taken, and never answered"


def test_a_proxied_link_breaks_anywhere(proxied):
    proxied.set("north", loss=0.5)
    time.sleep(0.3)
    found = [fetch(proxied.hub_url["north"]) for _ in range(8)]
    assert all(isinstance(f, str) for f in found), f"20 000 bytes on average do not carry {found}"
    told = proxied.stop()
    assert told["north"]["broken"] == 8
    assert 0 < told["north"]["down"] < 8 * len(BODY)


@pytest.mark.skipif(bool(spaces.why_not()), reason=spaces.why_not() or "-")
def test_a_link_between_namespaces_is_late_cut_and_healed(tmp_path):
    made = spaces.make(("hub", "north"))
    link = Wan(tmp_path / "link", made, 8470)
    link.set("north", loss=0.0)
    program = "import http.server as h; h.HTTPServer(('127.0.0.1', 8470), h.SimpleHTTPRequestHandler).serve_forever()"
    server = subprocess.Popen(
        [*made["hub"].argv(), sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        link.start()
        assert link.hub_url["north"].endswith(f":{GATE_PORT}")
        assert ask(made["north"], link.hub_url["north"]) == "200"
        began = time.monotonic()
        assert ask(made["north"], link.hub_url["north"]) == "200"
        assert time.monotonic() - began > 0.5, "two round trips of 300 ms"
        link.cut("north")
        assert ask(made["north"], link.hub_url["north"]) != "200"
        link.heal("north")
        assert ask(made["north"], link.hub_url["north"]) == "200"
        told = link.stop()
        assert told["lost"] and told["up"]["north"] and told["down"]["north"]
    finally:
        server.kill()
        server.wait()
        link.stop()
        spaces.remove(made)


def ask(space, url):
    """The status of one request from inside a namespace, tried again until the server listens."""
    program = (
        "import sys, time, urllib.request as u\n"
        "for n in range(3):\n"
        "    try: print(u.urlopen(sys.argv[1], timeout=2).status); break\n"
        "    except OSError: time.sleep(0.3)"
    )
    done = subprocess.run(
        [*space.argv(), sys.executable, "-c", program, url], capture_output=True, text=True
    )
    return done.stdout.strip()
