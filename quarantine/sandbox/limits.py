"""What the process of one file may use; set by itself before it touches a byte.

Memory, processor time, file sizes and descriptors by rlimits, always. System calls by a filter
(`system_calls`) where the kernel has one. Namespaces are the parent's part.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal

from quarantine.contract import Policy
from quarantine.sandbox.system_calls import forbid

MEMORY_BYTES_MAX = 1 << 30
SCRATCH_BYTES_MAX = 512 * 1024 * 1024
DESCRIPTORS_MAX = 64
TASKS_MAX = 32
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def confine(policy: Policy, *, own_processes: bool) -> bool:
    """Bind this process for the rest of its life; whether system calls are filtered too.

    `own_processes` says that no other process of this user is counted (a namespace of its own):
    only there does a bound on processes make sense.
    """
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_AS, MEMORY_BYTES_MAX)
    _bound(resource.RLIMIT_CPU, math.ceil(policy.seconds_max) + 1)
    _bound(resource.RLIMIT_FSIZE, max(policy.unpacked_bytes_max, policy.entry_bytes_max))
    _bound(resource.RLIMIT_NOFILE, DESCRIPTORS_MAX)
    if own_processes:
        _bound(resource.RLIMIT_NPROC, TASKS_MAX)
    die_with_parent()
    return forbid()


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def hide_memory() -> None:
    """Let no process of the same user look into this one."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def is_init() -> bool:
    """Whether this is the first process of its own process namespace."""
    return os.getpid() == 1


def _bound(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (least, least))
