"""Which system calls a worker may make: one list for both launchers, as a program for bubblewrap and as a profile for container engines.

Allowed is what was known when `calls.txt` was made, without `_REFUSED`. A call that is newer does not exist inside (`ENOSYS`), so that
programs do it in the old way.
"""

from __future__ import annotations

import json
import platform
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).with_name("calls.txt")

_REFUSED_BY_KIND = """
    io_uring_enter io_uring_register io_uring_setup
    add_key bpf keyctl lookup_dcookie perf_event_open request_key userfaultfd vhangup
    get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node
    kcmp open_by_handle_at pidfd_getfd process_madvise
    acct chroot clock_adjtime clock_settime delete_module fanotify_init finit_module init_module ioperm iopl kexec_file_load kexec_load
    fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root quotactl quotactl_fd reboot setdomainname
    sethostname setns settimeofday swapoff swapon syslog umount2 unshare
    _sysctl afs_syscall create_module get_kernel_syms getpmsg modify_ldt nfsservctl putpmsg query_module security sysfs tuxcall uselib
    ustat vserver
"""
"""By line: what goes round a filter (io_uring opens sockets without the call `socket`); large parts of the kernel that few programs
need, and many exploits; memory by node, which decides for others too; other processes and their files; what only capabilities allow
anyway; what is left from kernels of long ago."""

_REFUSED = frozenset(_REFUSED_BY_KIND.split())

_ABSENT = frozenset({"clone3"})
"""Its flags are in memory, where no filter sees them; libraries then take `clone`."""


@dataclass(frozen=True)
class _Argument:
    """That the lower half of one is `value`, in the bits of `mask`. The kernel takes no more than that half of any that is looked at."""

    index: int
    value: int
    mask: int = 0xFFFFFFFF


_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_ROUTE = 0
_MOVE_EXT = 0x660F
"""EXT4_IOC_MOVE_EXT, without the bits for size and direction."""
_NEW_NAMESPACES = 0x7E020000

_ONLY_IF: dict[str, list[list[_Argument]]] = {
    # No network namespace parts the others: AF_VSOCK leads to the hypervisor, and from turn to turn.
    # The interfaces are asked for by netlink.
    "socket": [
        [_Argument(0, _UNIX)],
        [_Argument(0, _INET)],
        [_Argument(0, _INET6)],
        [_Argument(0, _NETLINK), _Argument(2, _ROUTE)],
    ],
    "socketpair": [[_Argument(0, _UNIX)]],
    "clone": [[_Argument(0, 0, _NEW_NAMESPACES)]],
    # That one changes what is in a file, and none of its times, by which it is told who was written to (listing.py). It is another one
    # that differs in any bit: engines compare one argument with one value.
    "ioctl": [[_Argument(1, ~_MOVE_EXT & 1 << bit, 1 << bit)] for bit in range(16)],
    # Linux as it is, as 2.6 and as a 32-bit machine; the last only asks.
    "personality": [[_Argument(0, each)] for each in (0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)],
}
"""Allowed where one of the lists holds as a whole."""

# The instructions of classic BPF, and where seccomp has what.
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38
_MACHINES = {"x86_64": (1, 0xC000003E, "SCMP_ARCH_X86_64"), "aarch64": (2, 0xC00000B7, "SCMP_ARCH_AARCH64")}
"""Column of `calls.txt`, name for the kernel, name for engines."""


@cache
def program(machine: str = platform.machine()) -> bytes:
    """For `bwrap --seccomp`; empty for a machine that has no such table.

    Programs of another architecture are killed: their calls have other numbers.
    """
    if machine not in _MACHINES:
        return b""
    column, known_as, _ = _MACHINES[machine]
    numbers = {name: number for name, *columns in _calls() if (number := columns[column - 1]) is not None}
    told = [_step(_LOAD, _MACHINE_AT), _step(_EQUAL, known_as, 1, 0), _step(_RETURN, _KILL), _step(_LOAD, _NUMBER_AT)]
    # Also the x32 calls of x86-64, all of which are above.
    told += [_step(_AT_LEAST, max(numbers.values()) + 1, 0, 1), _step(_RETURN, _ERROR | _ENOSYS)]
    for name, number in sorted(numbers.items(), key=lambda item: item[1]):
        if name in _ABSENT:
            told += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ERROR | _ENOSYS)]
        elif name in _REFUSED:
            told += [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ERROR | _EPERM)]
        elif name in _ONLY_IF:
            judged = [step for every in _ONLY_IF[name] for step in _allowed_if(every)] + [_step(_RETURN, _ERROR | _EPERM)]
            told += [_step(_EQUAL, number, 0, len(judged)), *judged]
    return b"".join([*told, _step(_RETURN, _ALLOW)])


@cache
def profile() -> str:
    """For the `seccomp` option of a container, as JSON. One that its engine's library does not know yet is refused."""
    names = [name for name, *_ in _calls()]
    free = [name for name in names if name not in {*_REFUSED, *_ABSENT, *_ONLY_IF}]
    rules: list[dict[str, object]] = [{"names": free, "action": "SCMP_ACT_ALLOW"}]
    for name, alternatives in _ONLY_IF.items():
        rules += [{"names": [name], "action": "SCMP_ACT_ALLOW", "args": [_rule(each) for each in every]} for every in alternatives]
    rules.append({"names": sorted(_ABSENT), "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    # Without other architectures of the same processor.
    machines = [{"architecture": name} for *_, name in _MACHINES.values()]
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "archMap": machines, "syscalls": rules})


def _calls() -> list[tuple[str, int | None, int | None]]:
    rows = [line.split() for line in _TABLE.read_text(encoding="ascii").splitlines() if not line.startswith("#")]
    return [(name, _number(x86), _number(arm)) for name, x86, arm in rows]


def _number(told: str) -> int | None:
    return None if told == "-" else int(told)


def _allowed_if(every: list[_Argument]) -> list[bytes]:
    """Allows, or goes on behind."""
    steps: list[bytes] = [_step(_RETURN, _ALLOW)]
    for argument in reversed(every):
        steps.insert(0, _step(_EQUAL, argument.value, 0, len(steps)))
        if argument.mask != 0xFFFFFFFF:
            steps.insert(0, _step(_AND, argument.mask))
        # Both processors have the lower half first.
        steps.insert(0, _step(_LOAD, _ARGUMENTS_AT + 8 * argument.index))
    return steps


def _rule(argument: _Argument) -> dict[str, object]:
    if argument.mask == 0xFFFFFFFF:
        return {"index": argument.index, "value": argument.value, "op": "SCMP_CMP_EQ"}
    return {"index": argument.index, "value": argument.mask, "valueTwo": argument.value, "op": "SCMP_CMP_MASKED_EQ"}


def _step(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_so, if_not, value)
