"""An engine that does what a taken-over one would do: whatever the file tells it."""

import ctypes
import mmap
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

from quarantine.contract import Finding, Verdict
from quarantine.engines.base import Unscannable


def _fork():
    while True:
        os.fork()


def _clone():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(56 if os.uname().machine == "x86_64" else 220, 17, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "clone")


def _connect():
    with socket.socket() as wire:
        wire.connect(("192.0.2.1", 80))


def _local_socket():
    socket.socket(socket.AF_UNIX).connect("/run/nowhere")


def _recurse():
    _recurse()


def _hog():
    held = []
    while True:
        held.append(bytearray(64 << 20))


def _map():
    mmap.mmap(-1, 3 << 30)


def _write_much():
    with open("much", "wb") as file:
        while True:
            file.write(bytes(1 << 20))


def _babble():
    for descriptor in range(3, 20):
        try:
            os.set_blocking(descriptor, True)
            for _ in range(64):
                os.write(descriptor, bytes(1 << 20))
        except OSError:
            continue


def _lie():
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b"\xc1 no message")
        except OSError:
            continue
    os._exit(0)


def _many():
    return [Finding("rogue", "rogue.many", Verdict.SUSPICIOUS, "x" * 9000) for _ in range(50_000)]


def _threads():
    seen = []
    threads = [threading.Thread(target=seen.append, args=(1,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4


def _look_around():
    left = os.listdir(".")
    if left:
        raise Unscannable(f"There is something: {left}.")


def _see_disk():
    names = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
    opened = [os.readlink(name) for name in names if os.path.lexists(name)]
    for place in ("/etc/passwd", "/var", *(name for name in opened if name.startswith("/tmp"))):
        if os.path.exists(place):
            raise Unscannable(f"{place} is there.")


def _see_processes():
    others = [name for name in os.listdir("/proc") if name.isdigit()]
    if sorted(others) != sorted({"1", str(os.getpid())}):
        raise Unscannable(f"There are processes: {others}.")


def _see_environment():
    # The last three are set inside, by the wheel that brings libmagic.
    known = "PYTHONPATH PATH LANG LC_CTYPE PWD MAGIC LIBRARY_PATH LD_LIBRARY_PATH".split()
    if set(os.environ) - set(known):
        raise Unscannable(f"There is {sorted(os.environ)}.")


ACTS = {
    "abort": os.abort,
    "break": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(0),
    "exit-badly": lambda: os._exit(3),
    "raise": lambda: 1 / 0,
    "recurse": _recurse,
    "sleep": lambda: time.sleep(600),
    "spin": lambda: exec("while True: pass"),
    "fork": _fork,
    "clone": _clone,
    "run": lambda: subprocess.run(["/bin/true"]),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "connect": _connect,
    "local-socket": _local_socket,
    "hog": _hog,
    "map": _map,
    "write-much": _write_much,
    "babble": _babble,
    "lie": _lie,
    "kill-server": lambda: os.kill(os.getppid(), 9),
    "kill-all": lambda: os.kill(-1, 9),
    "stop-server": lambda: os.kill(os.getppid(), 19),
    "unscannable": lambda: (_ for _ in ()).throw(Unscannable("It is odd.")),
    "many": _many,
    "threads": _threads,
    "leave": lambda: Path("left").write_bytes(b"x"),
    "look-around": _look_around,
    "see-disk": _see_disk,
    "see-processes": _see_processes,
    "see-environment": _see_environment,
    "unlimited": lambda: __import__("resource").setrlimit(7, (9000, 9000)),
    "nothing": lambda: None,
}


class Rogue:
    name = "rogue"
    version = "1"

    def wants(self, leaf):
        return True

    def examine(self, leaf, policy):
        act = leaf.path.read_bytes().decode("ascii", "replace").strip()
        if act == "write-back":
            with open(leaf.path, "r+b") as file:
                file.write(b"WRITE-BACK")
            return []
        if act.startswith("wait "):
            time.sleep(float(act[5:]))
            return []
        found = ACTS[act]() if act in ACTS else None
        return found if isinstance(found, list) else []


ENGINE = Rogue()
