"""A marketplace on this machine: real HTTP, the state of a shop, and bad days by a script.

Each system speaks its own recorded contract (markets_*.py beside it says which); faults are drawn
one for a question: before it is heard, after it was done, or in the way its pages are cut. `hang`:
done, and not answered until the test says so.
"""

import contextlib
import http.server
import json
import threading
from collections import Counter, deque
from urllib.parse import parse_qsl, urlsplit

HTML = b"<!DOCTYPE html><html><title>Sign in</title></html>"
# Before: nothing is done. After: it is done, and the answer is lost.
BEFORE = ("429", "420", "500", "503", "html", "drop")
AFTER = ("cut", "lost")
LISTS = ("shift", "twice", "vanish")


class Shop:
    """What is true at a marketplace."""

    def __init__(self, orders=(), prices=None, stocks=None):
        self.orders = list(orders)
        self.prices = dict(prices or {})
        self.stocks = dict(stocks or {})
        self.faults = deque()
        self.calls = Counter()
        self.headers = []
        self.gone = {}  # orders that are not listed any more
        self.late = deque()  # orders that come while pages are asked for
        self.swallows = set()  # offers whose updates are answered and not done
        self.refuses = {}  # offer: words
        self.lock = threading.RLock()
        self.hangs, self.released = threading.Event(), threading.Event()

    def list_fault(self):
        """A fault of this page alone, if the next one is of that sort."""
        if self.faults and self.faults[0] in LISTS:
            return self.faults.popleft()
        return ""

    def page(self, rows, start, size):
        """A slice of a list that may move under whoever reads it."""
        fault = self.list_fault()
        if fault == "shift" and self.late:
            self.orders.append(self.late.popleft())
        found = list(rows[start : start + size])
        if fault == "vanish" and self.orders:
            # Those behind it move up by one while the next page is asked for by its place.
            gone = self.orders.pop(0)
            self.gone[gone["id"]] = gone
        if fault == "twice" and found:
            found.append(found[0])
        return found

    def set(self, what, offer, value):
        """Do it, or only say so."""
        if offer not in self.swallows:
            (self.prices if what == "price" else self.stocks)[offer] = value


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    shop = None
    speak = None

    def serve(self):
        shop = self.shop
        parts = urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        with shop.lock:
            shop.calls[f"{self.command} {parts.path}"] += 1
            shop.headers.append(dict(self.headers))
            fault = shop.faults.popleft() if shop.faults and shop.faults[0] not in LISTS else ""
            if fault in BEFORE:
                self.fail(fault)
                return
            status, answer, headers = self.speak(self.command, parts.path, dict(parse_qsl(parts.query)), body)  # fmt: skip
        self.say(status, answer, headers, fault)

    do_GET = do_POST = do_PUT = serve

    def fail(self, fault):
        if fault == "drop":
            self.close_connection = True
        elif fault == "html":
            self.send(200, HTML, {"Content-Type": "text/html"})
        else:
            more = {"Retry-After": "1", "X-Ratelimit-Retry": "1"} if fault in ("429", "420") else {}
            self.send(int(fault), b'{"message":"not now"}', more)

    def say(self, status, answer, headers, fault):
        content = b"" if answer is None else json.dumps(answer, ensure_ascii=False).encode()
        if fault == "hang":
            self.shop.hangs.set()
            self.shop.released.wait(30)
        if fault in ("lost", "hang"):
            self.close_connection = True
        elif fault == "cut":
            # The length that is told is that of what comes: only the JSON shows that it is cut.
            self.send(status, content[: len(content) // 2], headers)
        else:
            self.send(status, content, headers)

    def send(self, status, content, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle(self):
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def run_market(shop, speak):
    """Serve a shop in the words of a system; its address."""
    chosen = type("Chosen", (Handler,), {"shop": shop, "speak": staticmethod(speak(shop))})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), chosen)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
