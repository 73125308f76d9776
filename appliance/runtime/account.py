"""Services never run as root: the account they drop to, and how a process drops to it.

Promises: a service that was taken over gains nothing from root's writes into its folders, because
files appear there by rename and owners are changed through descriptors that follow no link.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from appliance.base.errors import Misconfigured

NAME = "nexus"
SECRET_BYTES = 24
_PR_SET_PDEATHSIG = 1


class Account(msgspec.Struct, frozen=True):
    """A user of the system; `is_self` when this process already runs as it."""

    name: str
    uid: int
    gid: int
    is_self: bool


def service_account() -> Account:
    """The account for services: ours when we are no root, else `nexus`, made when missing."""
    if os.geteuid() != 0:
        return own_account()
    for name in (NAME, "nobody"):
        found = _lookup(name) or (_create(name) if name == NAME else None)
        if found is not None:
            return found
    raise Misconfigured(
        "Services must not run as root and no unprivileged account can be made. Start as a normal "
        f"user, or make one: useradd --system {NAME}"
    )


def helper_account(service: Account, name: str) -> Account:
    """An account of its own for what reads strangers' bytes, so that it can touch nothing of ours.

    Where we are no root, or none can be made, it is the service account.
    """
    if service.is_self:
        return service
    return _lookup(name) or _create(name) or service


def own_account() -> Account:
    """The account of this process: for a unit that drops its rights by itself, later."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        raise Misconfigured(
            f"User {uid} has no entry in /etc/passwd, and PostgreSQL refuses to run without one. "
            "Start as a user of the system, or add the entry."
        ) from None
    return Account(name, uid, os.getegid(), is_self=True)


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


def open_data_folder(account: Account, data: Path) -> None:
    """Make the data folder, passable for the account. Raises Misconfigured.

    What is inside has modes of its own; folders above are the operator's and are not touched.
    """
    data.mkdir(parents=True, exist_ok=True)
    if account.is_self:
        return
    mode = data.stat().st_mode & 0o7777
    if data.stat().st_uid == 0 and mode | 0o011 != mode:
        data.chmod(mode | 0o011)
    for folder in (data.resolve(), *data.resolve().parents):
        if not _open(account, folder):
            raise Misconfigured(
                f"The services run as the account {account.name}, which cannot pass {folder}. "
                "Use a data folder elsewhere (--data /var/lib/nexus), or start as a normal user."
            )


def give(account: Account, path: Path, mode: int) -> None:
    """Make a file or folder the account's own with exactly this mode; a link is refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _give_open(account, descriptor, mode)
    finally:
        os.close(descriptor)


def _give_open(account: Account, descriptor: int, mode: int) -> None:
    if not account.is_self:
        os.fchown(descriptor, account.uid, account.gid)
    os.fchmod(descriptor, mode)


def make_folder(account: Account, path: Path, mode: int = 0o700) -> Path:
    """A folder of the account; existing ones are given the owner and mode too."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    give(account, path, mode)
    return path


def write_private(
    account: Account, path: Path, content: str | bytes, *, replace: bool = True
) -> None:
    """A file of mode 600 of the account; it appears whole or not at all, a link is replaced.

    With `replace=False` a file that is there already stays as it is.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        _give_open(account, file.fileno(), 0o600)
        file.flush()
        os.fsync(file.fileno())
    try:
        if replace:
            draft.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def keep_secret(account: Account, path: Path) -> str:
    """The secret in a file of mode 600, generated at first use. Never log what it returns."""
    make_folder(account, path.parent)
    if not path.exists() or not path.stat().st_size:
        # An empty one is what a power cut left of a file that nobody has used yet.
        path.unlink(missing_ok=True)
        write_private(account, path, secrets.token_urlsafe(SECRET_BYTES), replace=False)
    return path.read_text("utf-8").strip()


def child_setup(account: Account, death: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """What a child does between fork and exec: own session, drop rights, die with its parent.

    The death signal is set after the change of user, which clears it; a parent that died in
    between is noticed by the changed parent id. The kernel sends it when the *thread* that
    started the child ends, so children are started from the main thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def setup() -> None:
        os.setsid()
        # Started in the background of a shell, a program inherits that interrupts are ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _become(account)
        libc.prctl(_PR_SET_PDEATHSIG, death, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return setup


def die_with(parent: int) -> None:
    """Let the kernel end this process with its parent, also where somebody else started it.

    An API worker that outlived a killed parent would hold the port against the next start.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def drop_privileges(account: Account) -> None:
    """Turn this running process into the account for good, and keep dying with its parent.

    For a process whose interpreter only root can read: it imports what it needs, then drops.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getppid()
    _become(account)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _become(account: Account) -> None:
    if account.is_self or os.getuid() == account.uid:
        return
    os.setgroups([])
    os.setgid(account.gid)
    os.setuid(account.uid)
