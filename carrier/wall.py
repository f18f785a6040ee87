"""What a Swarm cannot do for a container, its first process does itself, while it is root and nobody else is there.

It keeps its uid, 0, so that the worker's user can neither read it nor send it signals, and of root's powers only those to
become the worker's user, to connect to its socket and to end what it runs.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
_CAP_DAC_OVERRIDE, _CAP_KILL, _CAP_SETGID, _CAP_SETUID = 1, 5, 6, 7
_KEPT = 1 << _CAP_DAC_OVERRIDE | 1 << _CAP_KILL | 1 << _CAP_SETGID | 1 << _CAP_SETUID
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _STEP_BYTES = 22, 2, 8
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION = 0x20080522
_RTM_NEWRULE, _FLAGS = 32, 0x1 | 0x4 | 0x200 | 0x400
_FR_ACT_UNREACHABLE = 7
_FRA_PRIORITY, _FRA_UID_RANGE = 6, 20
_BEFORE_ALL_ROUTES = 10
_EEXIST = 17
_ERROR = 2

_libc = ctypes.CDLL(None, use_errno=True)


def raise_wall(uid: int, given: Sequence[str]) -> None:
    """Make the directories `given` the worker's. From now on its user has no network but loopback, and no program that is started from here
    gains anything by it. Errors: OSError."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    for path in given:
        os.chown(path, uid, uid)
        Path(path).chmod(0o700)
    for family in (socket.AF_INET, socket.AF_INET6):
        _forbid_routes(family, uid)
    for capability in range(_LAST_CAPABILITY + 1):
        # Those that the kernel does not know end the row.
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    _keep_capabilities(_KEPT)


def filtered(program: bytes) -> Callable[[], None]:
    """To be called in a new process, between fork and exec: from then on only such system calls may be made as `program` allows, which are
    instructions of classic BPF. All that is needed for it is made before the fork. Errors of what it returns: OSError."""
    steps = ctypes.create_string_buffer(program, len(program))
    told = ctypes.create_string_buffer(struct.pack("@HP", len(program) // _STEP_BYTES, ctypes.addressof(steps)))

    def filter_calls(kept: object = steps) -> None:
        if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, told, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no filter for system calls")

    return filter_calls


def _forbid_routes(family: int, uid: int) -> None:
    """A rule of routing: for this user nothing but this machine's own addresses can be reached, and nobody gets an answer from it."""
    rule = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, _FR_ACT_UNREACHABLE, 0)
    rule += _attribute(_FRA_PRIORITY, struct.pack("=I", _BEFORE_ALL_ROUTES)) + _attribute(_FRA_UID_RANGE, struct.pack("=II", uid, uid))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as kernel:
        kernel.bind((0, 0))
        kernel.send(struct.pack("=IHHII", 16 + len(rule), _RTM_NEWRULE, _FLAGS, 1, 0) + rule)
        answer = kernel.recv(4096)
    kind, code = struct.unpack_from("=H", answer, 4)[0], -struct.unpack_from("=i", answer, 16)[0]
    if kind != _ERROR or code not in {0, _EEXIST}:
        raise OSError(code, f"no rule of routing can be made: {os.strerror(code)}")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value


def _keep_capabilities(kept: int) -> None:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0))
    low, high = kept & 0xFFFFFFFF, kept >> 32
    data = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0))
    if _libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")
