"""What a Swarm cannot do for a container, its first process does itself, while it is root and nobody else is there.

It keeps its uid, 0, so that the worker's user can neither read it nor send it signals, and of root's powers only those to
become the worker's user, to connect to its socket, to count its files and to end what it runs.

The container's network is left to one socket, on which the carrier listens. The carrier and all that it starts are in another network,
which has loopback alone: no rule for a user would hold there, since who binds to a device, or speaks to a group, asks no route.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
_CAP_DAC_OVERRIDE, _CAP_KILL, _CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP = 1, 5, 6, 7, 8
_KEPT = 1 << _CAP_DAC_OVERRIDE | 1 << _CAP_KILL | 1 << _CAP_SETGID | 1 << _CAP_SETUID
_TO_DROP = 1 << _CAP_SETPCAP
"""What empties the row of those that may be."""
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _STEP_BYTES = 22, 2, 8
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION = 0x20080522
_CLONE_NEWNET = 0x40000000
_GET_FLAGS, _SET_FLAGS, _IFF_UP, _INTERFACE = 0x8913, 0x8914, 0x1, "=16sh22x"

_libc = ctypes.CDLL(None, use_errno=True)


def raise_wall(uid: int, given: Sequence[str]) -> None:
    """Make the directories `given` the worker's. From now on nothing here has a network but loopback, other than by sockets that are open,
    and no program that is started from here gains anything by it. Before any thread. Errors: OSError."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    for path in given:
        os.chown(path, uid, uid)
        Path(path).chmod(0o700)
    _leave_network()
    # What counts the files is root's, and may look everywhere. The kernel adds nothing to these once the row below is empty.
    _set_capabilities(_capabilities(_KEPT | _TO_DROP, 1 << _CAP_DAC_OVERRIDE))
    for capability in range(_LAST_CAPABILITY + 1):
        # Those that the kernel does not know end the row.
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    _set_capabilities(_capabilities(_KEPT, 1 << _CAP_DAC_OVERRIDE))


def confined(program: bytes) -> Callable[[], None]:
    """To be called in a new process of the worker's user, between fork and exec: from then on it can get no capability, and only such
    system calls may be made as `program` allows, which are instructions of classic BPF; none: all. All that is needed for it is made
    before the fork. Errors of what it returns: OSError."""
    none = _capabilities(0, 0)
    steps = ctypes.create_string_buffer(program, len(program))
    told = ctypes.create_string_buffer(struct.pack("@HP", len(program) // _STEP_BYTES, ctypes.addressof(steps)))

    def confine(kept: object = steps) -> None:
        _set_capabilities(none)
        if program and _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, told, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no filter for system calls")

    return confine


def _leave_network() -> None:
    """For a new one, in which loopback is up."""
    if _libc.unshare(_CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"no network of its own for the worker: {os.strerror(code)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as kernel:
        _, flags = struct.unpack(_INTERFACE, fcntl.ioctl(kernel, _GET_FLAGS, struct.pack(_INTERFACE, b"lo", 0)))
        fcntl.ioctl(kernel, _SET_FLAGS, struct.pack(_INTERFACE, b"lo", flags | _IFF_UP))


def _capabilities(kept: int, inherited: int) -> tuple[Any, Any]:
    """As `capset` takes them."""
    low, high = 0xFFFFFFFF, 32
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0))
    told = [kept & low, kept & low, inherited & low, kept >> high, kept >> high, inherited >> high]
    return header, ctypes.create_string_buffer(struct.pack("=6I", *told))


def _set_capabilities(told: tuple[Any, Any]) -> None:
    if _libc.capset(*told) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")
