"""Services never run as root: the account they drop to, and how a child drops to it."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from appliance.base.errors import Misconfigured

NAME = "nexus"
_PR_SET_PDEATHSIG = 1


class Account(msgspec.Struct, frozen=True):
    """An unprivileged user of the system; `is_self` when the node already runs as it."""

    name: str
    uid: int
    gid: int
    is_self: bool


def service_account() -> Account:
    """The account for services: ours when we are no root, else `nexus`, made when missing."""
    if os.geteuid() != 0:
        me = pwd.getpwuid(os.geteuid())
        return Account(me.pw_name, me.pw_uid, me.pw_gid, is_self=True)
    for name in (NAME, "nobody"):
        found = _lookup(name) or (_create(name) if name == NAME else None)
        if found is not None:
            return found
    raise Misconfigured(
        "Services must not run as root and no unprivileged account can be made. Start as a normal "
        f"user, or make one: useradd --system {NAME}"
    )


def _lookup(name: str) -> Account | None:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(found.pw_name, found.pw_uid, found.pw_gid, is_self=False)


def _create(name: str) -> Account | None:
    program = shutil.which("useradd", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        return None
    command = [program, "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name]
    subprocess.run(command, check=False, capture_output=True)  # noqa: S603
    return _lookup(name)


def may_execute(account: Account, program: Path) -> bool:
    """Whether the account can reach and run a program, by the modes of every folder above it."""
    if account.is_self:
        return os.access(program, os.X_OK)
    path = program.resolve()
    return path.exists() and all(_open(account, p) for p in (path, *path.parents))


def _open(account: Account, path: Path) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        return bool(found.st_mode & 0o100)
    if found.st_gid == account.gid:
        return bool(found.st_mode & 0o010)
    return bool(found.st_mode & 0o001)


def give(account: Account, path: Path, mode: int) -> None:
    """Make a file or folder the account's own with exactly this mode."""
    if not account.is_self:
        os.chown(path, account.uid, account.gid)
    path.chmod(mode)


def make_folder(account: Account, path: Path, mode: int = 0o700) -> Path:
    """A folder of the account; existing ones are given the owner and mode too."""
    path.mkdir(parents=True, exist_ok=True)
    give(account, path, mode)
    return path


def child_setup(account: Account) -> Callable[[], None]:
    """What a child does between fork and exec: own session, drop rights, die with its parent.

    The death signal is set after the change of user, which clears it; a parent that died in
    between is noticed by the changed parent id.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def setup() -> None:
        os.setsid()
        if not account.is_self:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return setup
