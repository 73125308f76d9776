"""The units' log files: appended to by a unit itself, kept within bounds while it runs.

A unit holds its file open for as long as it lives, so a full file is copied to `<name>.log.1` and
cut to nothing in place: with O_APPEND the unit goes on at the start. What it writes between the
last byte copied and the cut (microseconds) is lost; holding its pipe instead would make every
unit wait for the supervisor. On a full disk the old lines give way: the file is cut uncopied.
"""

from __future__ import annotations

import os
from pathlib import Path

from appliance.runtime.account import Account, give

_CHUNK = 1 << 20
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


def rotate(account: Account, path: Path, most: int) -> str:
    """Cut a log file of over `most` bytes; what became of its lines: "", "kept" or "dropped".

    Raises OSError when the file itself cannot be opened or cut.
    """
    try:
        log = os.open(path, os.O_RDWR | _FLAGS)
    except FileNotFoundError:
        return ""
    try:
        if os.fstat(log).st_size <= most:
            return ""
        former = path.with_name(f"{path.name}.1")
        kept = _copy(account, log, former)
        os.ftruncate(log, 0)
    finally:
        os.close(log)
    return "kept" if kept else "dropped"


def _copy(account: Account, log: int, former: Path) -> bool:
    former.unlink(missing_ok=True)
    try:
        copy = os.open(former, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o640)
        try:
            # To the end as it is when it is reached: the unit goes on writing.
            while chunk := os.read(log, _CHUNK):
                _write_all(copy, chunk)
        finally:
            os.close(copy)
        give(account, former, 0o640)
    except OSError:
        former.unlink(missing_ok=True)
        return False
    return True


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
