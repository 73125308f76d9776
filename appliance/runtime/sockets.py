"""Where the sockets are: a path that every server, address and URL can carry unchanged.

A socket's path has 107 bytes on Linux, `unix_socket_directories` splits at commas, and a URL has
characters of its own; a data folder may have any name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from pathlib import Path

from appliance.base.errors import Misconfigured
from appliance.runtime.account import Account, make_folder

_PATH_BYTES_MAX = 90
_MEMORY = Path("/dev/shm")  # noqa: S108 - folders of our own are claimed in it
_LONGEST_NAME = "/.s.PGSQL.5432.lock"
_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")


def socket_folder(data: Path, account: Account, name: str = "run") -> Path:
    """`<data>/<name>`, or a short folder in /tmp when that is too long or has odd characters."""
    wanted = data.absolute() / name
    text = os.fspath(wanted)
    if len(text) > _PATH_BYTES_MAX - len(_LONGEST_NAME) or not _PLAIN.fullmatch(text):
        wanted = Path("/tmp") / short_name(data, name)  # noqa: S108
    return claim_folder(wanted, account)


def short_name(data: Path, name: str) -> str:
    """A name for a folder of this data folder outside of it, the same at every start."""
    digest = hashlib.sha256(os.fsencode(data.absolute())).hexdigest()[:12]
    return f"nexus-{digest}" if name == "run" else f"nexus-{digest}-{name}"


def memory_folder(data: Path, name: str, bytes_min: int) -> Path | None:
    """A path in memory for a folder to be claimed; None where so much is not free there."""
    with contextlib.suppress(OSError):
        found = os.statvfs(_MEMORY)
        if found.f_bavail * found.f_frsize >= bytes_min and os.access(_MEMORY, os.W_OK):
            return _MEMORY / short_name(data, name)
    return None


def claim_folder(wanted: Path, account: Account) -> Path:
    """A folder of mode 700 of the account, also in a place where others may make folders."""
    with contextlib.suppress(FileExistsError):
        # Made by us or already there: in /tmp only the owner can put something in its place.
        wanted.mkdir(mode=0o700, parents=True)
    found = wanted.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, account.uid):
        raise Misconfigured(
            f"{wanted} is for this node but belongs to somebody else; remove it and start again."
        )
    return make_folder(account, wanted)


def open_to_group(path: Path, group: int) -> None:
    """Let a group reach the sockets of a folder, which inherit the folder's group."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, 0o2710)
    finally:
        os.close(descriptor)
