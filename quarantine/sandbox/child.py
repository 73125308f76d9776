"""The server inside the sandbox: engines loaded once, one process for each file.

`child SCRATCH MODULE...` speaks over the socket on descriptor 0 (see `messages`). It imports the
engines, which costs more than most scans, and forks for each file, ahead of it. The process of a
file goes through the engines once with a few bytes of ours while it waits, because the first use of
a page that it shares with the server costs more than the check of a small file. It then takes the
request, lets the socket go, binds itself, and only then reads a byte; it examines, answers and is
gone, and whatever it left running or lying in the scratch folder goes with it. The server itself
never touches the bytes of a file.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path

from quarantine.contract import Policy
from quarantine.engines.base import Engine
from quarantine.sandbox.inspection import Inspection
from quarantine.sandbox.limits import confine, die_with_parent, hide_memory, is_init
from quarantine.sandbox.messages import (
    MESSAGE_BYTES_MAX,
    Ended,
    Ready,
    decode_request,
    encode,
)
from quarantine.sandbox.system_calls import supported

_CLOSED = 99
"""The exit code of a process that waited for a file and was told that none will come."""
_REHEARSED = b"a;b\n1;2\n"


def main() -> int:
    """Serve until the other side closes the socket."""
    die_with_parent()
    hide_memory()
    control = socket.socket(fileno=os.dup(0))
    _silence()
    scratch = Path(sys.argv[1])
    engines, missing = _load(sys.argv[2:])
    # What is loaded stays shared with the processes of the files instead of being copied by them.
    gc.collect()
    gc.freeze()
    names = tuple(engine.name for engine in engines)
    control.send(encode(Ready(names, tuple(missing), supported())))
    while True:
        status = _serve(control, engines, scratch)
        if status == _CLOSED:
            return 0
        control.send(encode(Ended(status)))


def _serve(control: socket.socket, engines: list[Engine], scratch: Path) -> int:
    """One file. Its process is there before the file comes, so that nobody waits for a fork."""
    folder = scratch / "file"
    folder.mkdir(mode=0o700)
    process = os.fork()
    if process == 0:
        status = 70
        try:
            status = _examine(control, engines, folder)
        finally:
            os._exit(status)
    status = _wait(process)
    _sweep(process)
    shutil.rmtree(folder)
    return status


def _examine(control: socket.socket, engines: list[Engine], folder: Path) -> int:
    os.setpgid(0, 0)
    die_with_parent()
    os.chdir(folder)
    _rehearse(engines, folder)
    message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES_MAX, 2)
    control.close()
    if not message:
        return _CLOSED
    request = decode_request(message)
    plaintext, pipe = descriptors
    confine(request.policy, own_processes=is_init())
    path = Path(f"/proc/self/fd/{plaintext}")
    answer = Inspection(request.policy, engines, folder).inspect(path, request.name, request.sha256)
    with os.fdopen(pipe, "wb") as out:
        out.write(encode(answer))
    return 0


def _rehearse(engines: list[Engine], folder: Path) -> None:
    """What the engines say of our own bytes counts for nothing, nor whether they fail at it."""
    path = folder / "rehearsal.csv"
    path.write_bytes(_REHEARSED)
    with contextlib.suppress(Exception):
        Inspection(Policy(), engines, folder).inspect(path, path.name)
    path.unlink()


def _load(modules: list[str]) -> tuple[list[Engine], list[str]]:
    engines: list[Engine] = []
    missing: list[str] = []
    for module in modules:
        try:
            engine: Engine = import_module(module).ENGINE
            getattr(engine, "warm", _nothing)()
            # Asking for the version has the library behind it loaded before the first file.
            if engine.name and engine.version:
                engines.append(engine)
        except Exception:  # noqa: BLE001 - whatever it is, the engine is not there
            missing.append(module)
    return engines, missing


def _nothing() -> None:
    """For engines that have nothing to load."""


def _wait(process: int) -> int:
    while True:
        ended, status = os.wait()
        if ended == process:
            return os.waitstatus_to_exitcode(status)


def _sweep(process: int) -> None:
    """Kill whatever the process of a file has left behind."""
    with contextlib.suppress(ProcessLookupError):
        if is_init():
            os.kill(-1, signal.SIGKILL)
        else:
            os.killpg(process, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0 if is_init() else os.WNOHANG)[0]:
            pass


def _silence() -> None:
    """Libraries print; nobody reads it here, and it may hold content."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


if __name__ == "__main__":
    sys.exit(main())
