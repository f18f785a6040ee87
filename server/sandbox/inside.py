"""Runs inside the sandbox, as a plain script, and tells as one line of JSON what it can do there. Judged by `probe`.

Arguments: a file of the host that must not be visible, a directory that must be writable.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_AF_VSOCK, _STREAM = 40, 1
# Numbers on x86-64 and on ARM; with arguments that are wrong where the call is allowed, so that it says another error.
_FORBIDDEN = [
    ("socket(AF_VSOCK)", (41, 198), (_AF_VSOCK, _STREAM, 0)),
    ("io_uring_setup", (425, 425), (0, None)),
    ("userfaultfd", (323, 282), (-1,)),
    ("keyctl", (250, 219), (-1,)),
    ("ioctl(EXT4_IOC_MOVE_EXT)", (16, 29), (-1, 0xC028660F)),
]


def _status(*names: str) -> str:
    fields = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return "|".join(fields[name] for name in names)


def _calls() -> list[str]:
    """Those that lead past the wall, or deep into the kernel, and are allowed. None of them does anything here."""
    libc = ctypes.CDLL(None, use_errno=True)
    arm = os.uname().machine == "aarch64"
    open_ones = []
    for name, numbers, arguments in _FORBIDDEN:
        ctypes.set_errno(0)
        made = libc.syscall(numbers[arm], *arguments)
        if made >= 0:
            os.close(made)
        # Of a kernel that has no such call or family at all, nothing is to be feared.
        if made >= 0 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT):
            open_ones.append(name)
    return open_ones


def _can_write(path: str) -> bool:
    try:
        with Path(path).open("w"):
            return True
    except OSError:
        return False


def _writable_places() -> dict[str, int]:
    """Every mounted directory in which a file can be made, and how large its file system is."""
    places = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4]
        # Of its own name: what somebody else has left there cannot be written, though another file can be made.
        made = f"{place}/.treadle-probe-{os.urandom(8).hex()}"
        if os.path.isdir(place) and _can_write(made):  # noqa: PTH112
            os.unlink(made)  # noqa: PTH108
            size = os.statvfs(place)
            places[place] = size.f_blocks * size.f_frsize
    return places


def _facts(hidden: str, writable: str) -> dict[str, object]:
    spaces = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    return {
        "uid": os.getuid(),
        "capabilities": _status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"),
        "seccomp": _status("Seccomp"),
        "calls": _calls(),
        "namespaces": {name: str(Path("/proc/self/ns", name).readlink()) for name in spaces},
        "interfaces": [name for _, name in socket.if_nameindex()],
        "processes": len([entry for entry in os.listdir("/proc") if entry.isdigit()]),  # noqa: PTH208
        "host_file_visible": Path(hidden).exists(),
        "writes_usr": _can_write("/usr/.treadle-probe"),
        "writes_root": _can_write("/.treadle-probe"),
        "root_is_read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        "writes_workspace": _can_write(writable + "/probe"),
        "writable_places": _writable_places(),
        "makes_user_namespace": ctypes.CDLL(None).unshare(_CLONE_NEWUSER) == 0,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_facts(sys.argv[1], sys.argv[2])))
