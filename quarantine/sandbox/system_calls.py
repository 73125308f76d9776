"""A filter on system calls: the process of one file starts nothing and talks to nobody.

It may use threads (a time-out of YARA is one), memory and its own files. New processes, other
programs, sockets, signals to others, looking into other processes, mounts, namespaces and the
kernel's rarer doors answer "not permitted". Works without privileges (seccomp, kernel 3.17 and
later), on x86-64 and arm64; elsewhere `forbid` says that it did nothing.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

import msgspec

_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_MODE_FILTER = 2
_LOAD, _EQUAL, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_AT, _MACHINE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_CLONE_THREAD = 0x00010000
_CLONE3 = 435


class _Machine(msgspec.Struct, frozen=True):
    """A processor: its audit number, its `clone`, and the calls that are forbidden on it."""

    audit: int
    clone: int
    forbidden: tuple[int, ...]
    second_numbering_from: int = 0


# Everywhere: io_uring_setup, pidfd_send_signal, pidfd_open, pidfd_getfd, the new mount calls.
_NEW = (425, 424, 434, 438, 428, 429, 430, 432)
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        56,
        # fork vfork execve execveat socket connect accept bind listen socketpair accept4 ptrace
        # process_vm_readv/writev unshare setns mount umount2 pivot_root chroot bpf
        # perf_event_open add_key request_key keyctl userfaultfd init_module finit_module kill
        # tkill personality open_by_handle_at
        (
            57,
            58,
            59,
            322,
            41,
            42,
            43,
            49,
            50,
            53,
            288,
            101,
            310,
            311,
            272,
            308,
            165,
            166,
            155,
            161,
            321,
            298,
            248,
            249,
            250,
            323,
            175,
            313,
            62,
            200,
            135,
            304,
            *_NEW,
        ),
        0x40000000,
    ),
    "aarch64": _Machine(
        0xC00000B7,
        220,
        (
            221,
            281,
            198,
            203,
            202,
            200,
            201,
            199,
            242,
            117,
            270,
            271,
            97,
            268,
            40,
            39,
            41,
            51,
            280,
            241,
            217,
            218,
            219,
            282,
            105,
            273,
            129,
            130,
            92,
            265,
            *_NEW,
        ),
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def supported() -> bool:
    """Whether this machine is one whose calls are known here."""
    return platform.machine() in _MACHINES


def forbid() -> bool:
    """Put the filter on this process for good. False where machine or kernel has none."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    code = _compile(machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    done: int = libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0)
    return done == 0


def _compile(machine: _Machine) -> bytes:
    refuse = _ERRNO | errno.EPERM
    steps = [
        _step(_LOAD, _MACHINE_AT),
        _step(_EQUAL, machine.audit, yes=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
    ]
    if machine.second_numbering_from:
        steps += [_step(_AT_LEAST, machine.second_numbering_from, no=1), _step(_RETURN, _KILL)]
    # The C library falls back to `clone`, whose flags a filter can read.
    steps += [_step(_EQUAL, _CLONE3, no=1), _step(_RETURN, _ERRNO | errno.ENOSYS)]
    for number in machine.forbidden:
        steps += [_step(_EQUAL, number, no=1), _step(_RETURN, refuse)]
    steps += [
        _step(_EQUAL, machine.clone, no=3),
        _step(_LOAD, _FIRST_ARGUMENT_AT),
        _step(_HAS_BITS, _CLONE_THREAD, yes=1),
        _step(_RETURN, refuse),
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(steps)


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
