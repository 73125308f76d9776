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
_LONGEST_NAME = "/.s.PGSQL.5432.lock"
_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")


def socket_folder(data: Path, account: Account) -> Path:
    """`<data>/run`, or a short folder in /tmp when that is too long or has odd characters."""
    wanted = data.absolute() / "run"
    text = os.fspath(wanted)
    if len(text) > _PATH_BYTES_MAX - len(_LONGEST_NAME) or not _PLAIN.fullmatch(text):
        digest = hashlib.sha256(os.fsencode(data.absolute())).hexdigest()[:12]
        wanted = Path("/tmp") / f"nexus-{digest}"  # noqa: S108
    with contextlib.suppress(FileExistsError):
        # Made by us or already there: in /tmp only the owner can put something in its place.
        wanted.mkdir(mode=0o700, parents=True)
    found = wanted.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, account.uid):
        raise Misconfigured(
            f"{wanted} is for the sockets of this node but belongs to somebody else; remove it and "
            "start again."
        )
    return make_folder(account, wanted)
