"""Network namespaces for nodes: each has a way to the test, and joins the others over TUN alone."""

import itertools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_turns = itertools.count()
PREFIX = "nx-branch"
WAN_PORT_DEVICE = "wan0"


def why_not():
    """Why namespaces cannot be made here; empty when they can. NEXUS_BRANCH_LINK=tcp forbids them."""
    if os.environ.get("NEXUS_BRANCH_LINK") == "tcp":
        return "NEXUS_BRANCH_LINK=tcp"
    if os.geteuid() != 0:
        return "namespaces are made by root"
    if shutil.which("ip") is None:
        return "there is no ip program (iproute2)"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    probe = f"{PREFIX}-{os.getpid()}-try"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        return "the kernel makes no network namespace"
    done = subprocess.run(
        ["ip", "-n", probe, "tuntap", "add", "dev", "t0", "mode", "tun"], capture_output=True
    )
    subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    return "the kernel makes no TUN device in a namespace" if done.returncode else ""


@dataclass(frozen=True)
class Space:
    """A namespace; `address` is where the test reaches it from `ours`, `wan` where other nodes do."""

    name: str
    ours: str
    address: str
    wan: str

    def argv(self):
        return ["ip", "netns", "exec", self.name]


def make(names):
    """A namespace for each name, the first one being the hub's. Ends what a killed run left."""
    sweep()
    turn = next(_turns)
    # Several may stand at once in one process, and several processes beside each other.
    net = (os.getpid() + 97 * turn) % 200 + 20
    return {name: _make(name, net, n, turn) for n, name in enumerate(names)}


def _make(name, net, n, turn):
    space = f"{PREFIX}-{os.getpid()}-{turn}-{name}"
    ours, theirs = f"10.{net}.{n}.1", f"10.{net}.{n}.2"
    device = f"nxb{os.getpid() % 100_000}{turn}{n}"
    ip("netns", "add", space)
    ip("-n", space, "link", "set", "lo", "up")
    ip("link", "add", device, "type", "veth", "peer", "name", "test0", "netns", space)
    ip("addr", "add", f"{ours}/30", "dev", device)
    ip("link", "set", device, "up")
    ip("-n", space, "addr", "add", f"{theirs}/30", "dev", "test0")
    ip("-n", space, "link", "set", "test0", "up")
    return Space(space, ours, theirs, f"10.{net}.250.{n + 1}")


def remove(spaces):
    for space in spaces.values():
        subprocess.run(["ip", "netns", "del", space.name], capture_output=True)


def sweep():
    """Remove the namespaces of runs that are no more."""
    done = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True)
    for line in done.stdout.splitlines():
        name = line.split()[0]
        parts = name.removeprefix(PREFIX + "-").split("-")
        if name.startswith(PREFIX + "-") and not Path(f"/proc/{parts[0]}").exists():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"
