"""How the server inside is started: behind bubblewrap where that works, by rlimits alone else.

Behind bubblewrap it has no network, no other process, no file but its own code and libraries for
reading, and a scratch folder in memory of bounded size. Whether that works on this machine is
tried once, with the very arguments that are used later.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import quarantine
from quarantine.sandbox.limits import SCRATCH_BYTES_MAX

_INSIDE_SCRATCH = "/scratch"
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache")
_PROBE_S = 20


def command(
    modules: Sequence[str], scratch: Path, visible: Sequence[Path], *, bubblewrap: bool
) -> list[str]:
    """The command line of the server with these engine modules; it sees `visible` folders too."""
    inside = _INSIDE_SCRATCH if bubblewrap else str(scratch)
    front = _front(visible) if bubblewrap else []
    return [*front, sys.executable, "-B", "-s", "-m", "quarantine.sandbox.child", inside, *modules]


def environment(paths: Sequence[Path], more: Mapping[str, str]) -> dict[str, str]:
    """All that the server gets of an environment; `paths` are importable."""
    roots = [str(_root()), *map(str, paths)]
    return {**more, "PYTHONPATH": ":".join(roots), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


async def bubblewrap_works() -> bool:
    """Whether the walls can be put up here; asked once per process."""
    return await asyncio.to_thread(_probe)


@functools.cache
def _probe() -> bool:
    if shutil.which("bwrap") is None:
        return False
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            [*_front(()), sys.executable, "-S", "-c", "pass"],
            env=environment((), {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _front(visible: Sequence[Path]) -> list[str]:
    program = shutil.which("bwrap") or "bwrap"
    walls = [
        program, "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1",
        "--cap-drop", "ALL", "--hostname", "quarantine",
    ]  # fmt: skip
    for system in _SYSTEM:
        if Path(system).is_symlink():
            walls += ["--symlink", str(Path(system).readlink()), system]
        else:
            walls += ["--ro-bind-try", system, system]
    walls += ["--proc", "/proc", "--dev", "/dev"]
    walls += ["--size", str(SCRATCH_BYTES_MAX), "--tmpfs", _INSIDE_SCRATCH]
    for folder in _folders(visible):
        walls += ["--ro-bind", folder, folder]
    return [*walls, "--chdir", _INSIDE_SCRATCH, "--"]


def _folders(visible: Sequence[Path]) -> list[str]:
    """Python itself, the libraries, our own package, what is named: nothing else can be seen."""
    package = _root() / "quarantine"
    found = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent.parent)}
    found |= {str(package), *map(str, visible)}
    return sorted(folder for folder in found if not folder.startswith("/usr"))


def _root() -> Path:
    return Path(quarantine.__file__).resolve().parent.parent
