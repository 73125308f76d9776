"""What a killed PostgreSQL leaves: children that hold its memory, a pid file that means nobody.

Promises: the next start finds a free cluster, or a sentence with the pid that holds it. Only
children whose server is gone are killed, which is the crash that recovery is made for; a server
that lives is never touched. Where this process may not look at others (a container without the
right to), it does nothing, and PostgreSQL's own interlock decides as always.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from appliance.base import logs
from appliance.base.errors import Unavailable

_PROGRAM = "postgres"
SERVER_WAIT_S = 15.0
CHILDREN_WAIT_S = 5.0


async def clear_leftovers(cluster: Path, uid: int) -> None:
    """Wait for what is left of the last server in this folder. Raises Unavailable.

    The caller holds the lock of the data folder, so no node is running over the cluster.
    """
    began = time.monotonic()
    while (found := processes_in(cluster, uid)) is not None:
        server = _pid_in(cluster / "postmaster.pid")
        waited = time.monotonic() - began
        if not found:
            _remove_foreign_pid(cluster / "postmaster.pid", server)
            return
        if server in found and waited > SERVER_WAIT_S:
            raise Unavailable(
                f"A PostgreSQL server (process {server}) is running over {cluster}, started by "
                f"something else. Stop it first: kill -INT {server}",
                dependency="PostgreSQL",
            )
        if server not in found and waited > CHILDREN_WAIT_S:
            # Busy in a statement, they do not notice that their server is gone.
            logs.event("unit.leftovers_killed", level="warning", service=_PROGRAM, count=len(found))
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
        await asyncio.sleep(0.05)


def processes_in(cluster: Path, uid: int) -> set[int] | None:
    """Processes of PostgreSQL working in this cluster; None when that cannot be seen.

    A server and its children stand in the data folder, so their current folder tells.
    """
    found: set[int] = set()
    place = cluster.resolve()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid != uid or _comm(entry) != _PROGRAM:
                continue
            if (entry / "cwd").readlink() == place:
                found.add(int(entry.name))
        except PermissionError:
            return None
        except OSError:
            continue  # It ended while we looked; a zombie has no folder either.
    return found


def _comm(process: Path) -> str:
    return (process / "comm").read_text("utf-8", errors="replace").strip()


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text("utf-8").split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def _remove_foreign_pid(path: Path, pid: int | None) -> None:
    """After a power cut the number may be another program's: PostgreSQL would refuse for ever."""
    if pid is None:
        return
    try:
        foreign = _comm(Path(f"/proc/{pid}")) != _PROGRAM
    except OSError:
        return  # Nobody has the number, and PostgreSQL sees that by itself.
    if foreign:
        logs.event("unit.stale_pid_removed", level="warning", service=_PROGRAM, pid=pid)
        path.unlink(missing_ok=True)
