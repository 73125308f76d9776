"""The server inside the sandbox: engines loaded once, one process for each file.

`child SCRATCH MODULE...` speaks over the socket on descriptor 0 (see `messages`). It imports the
engines, which costs more than most scans, and forks for each file. The process of a file binds
itself before it reads a byte, examines, answers and is gone; whatever it left running or lying in
the scratch folder goes with it. The server itself never touches the bytes of a file.
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

from quarantine.engines.base import Engine
from quarantine.sandbox.inspection import Inspection
from quarantine.sandbox.limits import confine, die_with_parent, hide_memory, is_init
from quarantine.sandbox.messages import (
    MESSAGE_BYTES_MAX,
    Ended,
    Ready,
    Request,
    decode_request,
    encode,
)
from quarantine.sandbox.system_calls import supported


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
        message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES_MAX, 2)
        if not message:
            return 0
        control.send(encode(Ended(_serve(control, message, descriptors, (engines, scratch)))))


def _serve(
    control: socket.socket,
    message: bytes,
    descriptors: list[int],
    setting: tuple[list[Engine], Path],
) -> int:
    folder = setting[1] / "file"
    folder.mkdir(mode=0o700)
    process = os.fork()
    if process == 0:
        status = 70
        try:
            control.close()
            status = _examine(decode_request(message), descriptors, setting[0], folder)
        finally:
            os._exit(status)
    for descriptor in descriptors:
        os.close(descriptor)
    status = _wait(process)
    _sweep(process)
    shutil.rmtree(folder)
    return status


def _examine(request: Request, descriptors: list[int], engines: list[Engine], folder: Path) -> int:
    plaintext, pipe = descriptors
    os.setpgid(0, 0)
    confine(request.policy, own_processes=is_init())
    os.chdir(folder)
    path = Path(f"/proc/self/fd/{plaintext}")
    answer = Inspection(request.policy, engines, folder).inspect(path, request.name)
    with os.fdopen(pipe, "wb") as out:
        out.write(encode(answer))
    return 0


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
