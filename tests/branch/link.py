"""A seeded long-distance network between namespaces: TUN devices joined by one process.

netem is not in every kernel. This process takes whole IP packets from the hub's and each site's
device and brings them over late, sometimes not at all, twice, or out of order; a modem's buffer
overflows; an outage takes everything. Weather is per site and may change while it runs: the
process follows a file (`weather.json`: {site: {…}}), so that whoever can write it rules the link.

`python -m tests.branch.link FOLDER` reads `places.json` there; `Wan` is the test's handle of it.
"""

import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from tests.branch import below
from tests.branch import spaces as namespaces

ROOT = Path(__file__).resolve().parents[2]
GATE_PORT = 8469
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
MTU = 1400
LOOK_S, TELL_S = 0.05, 1.0
FAIR = {"delay": 0.0, "jitter": 0.0, "loss": 0.0, "dup": 0.0, "reorder": 0.0, "rate": 0, "queue": 64_000, "is_down": False}  # fmt: skip
# 300 ms there and back, one packet in a hundred lost, some twice: a branch over a satellite.
FAR = {**FAIR, "delay": 0.15, "jitter": 0.03, "loss": 0.01, "dup": 0.01, "reorder": 0.01, "rate": 250_000}  # fmt: skip


class Wan:
    """The network as the test holds it: `set` changes a site's weather, `hub_url` is its way in."""

    kind = "TUN devices between network namespaces"

    def __init__(self, folder, spaces, hub_port, seed=1):
        self.folder, self.spaces, self.seed = Path(folder), spaces, seed
        self.hub, *self.sites = spaces
        self.hub_port = hub_port
        self.hub_url = dict.fromkeys(self.sites, f"http://{spaces[self.hub].wan}:{GATE_PORT}")
        self.weather = {site: dict(FAR) for site in self.sites}
        self.process = self.gate = None
        self.folder.mkdir(parents=True, exist_ok=True)

    def start(self):
        places = {n: [s.name, s.wan] for n, s in self.spaces.items()}
        (self.folder / "places.json").write_text(json.dumps({"seed": self.seed, "places": places}))
        write_whole(self.folder / "weather.json", self.weather)
        self.process = below.start(
            [sys.executable, "-m", "tests.branch.link", str(self.folder)],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout.readline() == "up\n", "the link did not start"
        gate = self.spaces[self.hub]
        self.gate = below.start(
            [*gate.argv(), sys.executable, "-m", "tests.branch.gate", f"{gate.wan}:{GATE_PORT}",
             f"127.0.0.1:{self.hub_port}"], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.gate.stdout.readline() == "up\n", "the hub's gate did not start"

    def set(self, site, **weather):
        """Change how a site's link is; the rest of it stays."""
        self.weather[site] |= weather
        write_whole(self.folder / "weather.json", self.weather)

    def carried(self, site):
        """Bytes that a site's link has carried so far both ways, headers of IP and TCP included."""
        found = json.loads((self.folder / "stats.json").read_text())
        return found["up"].get(site, 0) + found["down"].get(site, 0)

    def cut(self, site):
        self.set(site, is_down=True)

    def heal(self, site):
        self.set(site, is_down=False)

    def stop(self):
        """End it; what it did: packets, lost, twice, overflowed, per site the bytes each way."""
        if self.gate is not None:
            self.gate.kill()
            self.gate.communicate()
            self.gate = None
        if self.process is None:
            return {}
        self.process.send_signal(signal.SIGTERM)
        told, _ = self.process.communicate(timeout=10)
        self.process = None
        return json.loads(told.strip().splitlines()[-1])


def write_whole(path, what):
    """Whole or not at all: somebody may be reading."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(what))
    partial.rename(path)


def open_tun(space):
    """A TUN device in another namespace, held by this process."""
    mine = os.open("/proc/self/ns/net", os.O_RDONLY)
    theirs = os.open(f"/var/run/netns/{space}", os.O_RDONLY)
    try:
        set_namespace(theirs)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        name = namespaces.WAN_PORT_DEVICE.encode()
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name, IFF_TUN | IFF_NO_PI))
        return device
    finally:
        set_namespace(mine)
        os.close(mine)
        os.close(theirs)


def set_namespace(descriptor):
    """os.setns came with Python 3.12."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Router:
    """Packets from device to device by their destination; one random generator, so one seed."""

    def __init__(self, folder):
        self.folder = Path(folder)
        given = json.loads((self.folder / "places.json").read_text())
        self.random = random.Random(given["seed"])
        self.devices, self.names, self.by_address = {}, {}, {}
        for name, (space, address) in given["places"].items():
            device = open_tun(space)
            namespaces.ip("-n", space, "addr", "add", f"{address}/24", "dev", "wan0")
            namespaces.ip("-n", space, "link", "set", "wan0", "mtu", str(MTU), "up")
            self.devices[name], self.names[device] = device, name
            self.by_address[bytes(map(int, address.split(".")))] = name
        self.hub = next(iter(given["places"]))
        self.weather, self.seen, self.looked, self.told = {}, 0, 0.0, 0.0
        self.queue, self.count, self.busy, self.last = [], 0, {}, {}
        self.stats = {"packets": 0, "lost": 0, "twice": 0, "overflow": 0, "up": {}, "down": {}}
        self.is_over = False

    def look(self, now):
        """Follow the weather's file."""
        if now - self.looked < LOOK_S:
            return
        self.looked = now
        if now - self.told > TELL_S:
            self.told = now
            write_whole(self.folder / "stats.json", self.stats)
        path = self.folder / "weather.json"
        with contextlib.suppress(OSError, ValueError):
            changed = path.stat().st_mtime_ns
            if changed != self.seen:
                self.weather, self.seen = json.loads(path.read_text()), changed

    def take(self, source, packet, now):
        """Decide what becomes of one packet: lost, late, twice, in whose place."""
        self.stats["packets"] += 1
        target = self.by_address.get(packet[16:20])
        # Sites do not see each other, and nothing but IPv4 goes over it.
        if packet[0] >> 4 != 4 or target is None or self.hub not in (source, target):
            return
        site = source if target == self.hub else target
        found = FAIR | self.weather.get(site, {})
        if found["is_down"] or self.random.random() < found["loss"]:
            self.stats["lost"] += 1
            return
        way = (source, target)
        self.busy[way] = max(self.busy.get(way, 0.0), now)
        if found["rate"]:
            if (self.busy[way] - now) * found["rate"] > found["queue"]:
                self.stats["overflow"] += 1
                return
            self.busy[way] += len(packet) / found["rate"]
        at = self.busy[way] + found["delay"] + self.random.uniform(-1, 1) * found["jitter"]
        if self.random.random() >= found["reorder"]:
            # Jitter alone must not put packets in another order.
            at = self.last[way] = max(at, self.last.get(way, 0.0))
        self.put(at, target, packet)
        ways = self.stats["up" if target == self.hub else "down"]
        ways[site] = ways.get(site, 0) + len(packet)
        if self.random.random() < found["dup"]:
            self.stats["twice"] += 1
            self.put(at + 0.01, target, packet)

    def put(self, at, target, packet):
        self.count += 1
        heapq.heappush(self.queue, (at, self.count, target, packet))

    def run(self):
        while not self.is_over:
            now = time.monotonic()
            self.look(now)
            wait = min(LOOK_S, self.queue[0][0] - now) if self.queue else LOOK_S
            for device in select.select(list(self.names), [], [], max(0.0, wait))[0]:
                self.drain(device)
            now = time.monotonic()
            while self.queue and self.queue[0][0] <= now:
                _, _, target, packet = heapq.heappop(self.queue)
                with contextlib.suppress(OSError):
                    os.write(self.devices[target], packet)

    def drain(self, device):
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = os.read(device, 2048)
                self.take(self.names[device], packet, time.monotonic())


def main(folder):
    router = Router(folder)
    signal.signal(signal.SIGTERM, lambda *_: setattr(router, "is_over", True))
    print("up", flush=True)
    router.run()
    print(json.dumps(router.stats), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
