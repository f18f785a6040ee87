# A script of attacks, each as short as an attacker would have it.
# ruff: noqa: PTH101, PTH108, PTH109, PTH110, PTH118, PTH123, PTH207, PTH208, SIM115, BLE001
"""Runs as a hostile agent would inside a worker's sandbox, and prints as JSON what came of each attack. Standard library only.

What came of it is `DONE`, `refused` (a program or a call said no), or the name of the error: `EROFS`. Each attack has the one that shows
that the wall held; any other, also a misspelt attack's, is a failure. `OUTSIDE` names attacks that succeed without a sandbox.

Arguments: JSON with the names of what the test planted (class Planted).
"""

from __future__ import annotations

import ctypes
import errno
import glob
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

libc = ctypes.CDLL(None, use_errno=True)
DEVICES = {"console", "core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}


@dataclass(frozen=True)
class Planted:
    """What is there outside, to be reached by none of the attacks."""

    file: str
    slot: str
    pid: int
    port: int
    socket: str
    abstract: str
    parent: int = 0
    """The worker's pid, as seen from the agent; not planted."""


def reads(path: str) -> bool:
    with open(path, "rb") as file:
        return len(file.read(64)) > 0


def writes(path: str) -> bool:
    with open(path, "a") as file:
        file.write("x")
    return True


def connects(family: int, address: object) -> bool:
    with socket.socket(family) as made:
        made.settimeout(3)
        made.connect(address)
    return True


def call(name: str, *args: object) -> bool:
    if getattr(libc, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), name)
    return True


def succeeds(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, timeout=10, check=False).returncode == 0


def raw_socket() -> bool:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return True


def set_user_id(owner: int) -> Callable[[Planted], bool]:
    def attack(_: Planted) -> bool:
        path = os.path.join(os.getcwd(), f"suid-{owner}")
        with open("/usr/bin/id", "rb") as source, open(path, "wb") as target:
            target.write(source.read())
        os.chown(path, owner, owner)
        os.chmod(path, 0o4755)
        return True

    return attack


def fills(path: str, size: int) -> bool:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
        os.unlink(path)
    return True


def forks(count: int) -> bool:
    children = []
    try:
        for _ in range(count):
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
    return True


def kills_its_child() -> bool:
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def own_connection(family: int, address: object) -> bool:
    with socket.socket(family) as listening:
        listening.bind(address)
        listening.listen()
        return connects(family, listening.getsockname())


def kills_pid_1() -> bool:
    os.kill(1, signal.SIGKILL)
    return not os.path.exists("/proc/1")


def strange_devices() -> bool:
    return bool(set(os.listdir("/dev")) - DEVICES)


def host_file_through_proc(planted: Planted) -> bool:
    roots = [*glob.glob("/proc/[0-9]*/root"), *glob.glob("/proc/[0-9]*/cwd")]
    found = [os.path.exists(f"{root}{planted.file}") for root in roots if "/self/" not in root]
    return any(found)


Attack = Callable[[Planted], bool]
ATTACKS: dict[str, tuple[Attack, set[str]]] = {
    "connect to a listener of the host": (lambda p: connects(socket.AF_INET, ("127.0.0.1", p.port)), {"ECONNREFUSED"}),
    "connect to the internet": (lambda _: connects(socket.AF_INET, ("1.1.1.1", 53)), {"ENETUNREACH"}),
    "connect to an abstract socket of the host": (lambda p: connects(socket.AF_UNIX, "\0" + p.abstract), {"ECONNREFUSED"}),
    "connect to a unix socket of the host": (lambda p: connects(socket.AF_UNIX, p.socket), {"ENOENT"}),
    "open a raw socket": (lambda _: raw_socket(), {"EPERM"}),
    "read /etc/shadow": (lambda _: reads("/etc/shadow"), {"ENOENT"}),
    "read the server's files": (lambda p: reads(p.file), {"ENOENT"}),
    "read the server's files through /proc": (host_file_through_proc, {"refused"}),
    "list another session's slot": (lambda p: bool(os.listdir(p.slot)), {"ENOENT"}),
    "signal a process of the host": (lambda p: os.kill(p.pid, 0) is None, {"ESRCH"}),
    "signal pid 1 to death": (lambda _: kills_pid_1(), {"refused"}),
    "mount a file system": (lambda _: call("mount", b"none", b"/tmp", b"tmpfs", 0, None), {"EPERM"}),
    "remount the system writable": (lambda _: call("mount", b"none", b"/usr", None, 32 | 4096, None), {"EPERM"}),
    "unmount the system": (lambda _: call("umount2", b"/usr", 2), {"EPERM"}),
    "make a user namespace": (lambda _: call("unshare", 0x10000000), {"ENOSPC"}),
    "make a mount namespace": (lambda _: call("unshare", 0x00020000), {"EPERM"}),
    "become root": (lambda _: call("setuid", 0), {"EINVAL"}),
    "own a set-user-id program": (set_user_id(0), {"EINVAL"}),
    "run su": (lambda _: succeeds("su", "root", "-c", "true"), {"refused"}),
    "write to /usr": (lambda _: writes("/usr/owned"), {"EROFS"}),
    "write to the root directory": (lambda _: writes("/owned"), {"EROFS"}),
    "write to /etc": (lambda _: writes("/etc/owned"), {"EROFS"}),
    "add a user": (lambda _: writes("/etc/passwd"), {"EACCES", "EROFS"}),
    "write to /dev": (lambda _: writes("/dev/owned"), {"EROFS"}),
    "change a kernel setting": (lambda _: writes("/proc/sys/kernel/core_pattern"), {"EACCES", "EROFS"}),
    "raise the limit of user namespaces": (lambda _: writes("/proc/sys/user/max_user_namespaces"), {"EACCES", "EROFS"}),
    "make a device": (lambda _: os.mknod("disk", 0o60600, os.makedev(254, 0)) is None, {"EPERM"}),
    "find devices of the host": (lambda _: strange_devices(), {"refused"}),
    "change the root": (lambda _: call("chroot", b"/tmp"), {"EPERM"}),
    "trace the worker": (lambda p: call("ptrace", 16, p.parent, None, None), {"EPERM"}),
    "read the worker's memory": (lambda p: reads(f"/proc/{p.parent}/mem"), {"EACCES"}),
    "read the worker's environment": (lambda p: reads(f"/proc/{p.parent}/environ"), {"EACCES"}),
    "list the worker's descriptors": (lambda p: bool(os.listdir(f"/proc/{p.parent}/fd")), {"EACCES"}),
    "enter the worker's namespaces": (lambda p: os.open(f"/proc/{p.parent}/ns/user", os.O_RDONLY) > 0, {"EACCES"}),
    "inject a keystroke": (lambda _: writes("/dev/tty"), {"ENXIO"}),
    "read the kernel's log": (lambda _: reads("/dev/kmsg"), {"ENOENT"}),
    "fill the memory with files": (lambda _: fills("/dev/shm/full", 65 * 1024**2), {"ENOSPC"}),
    "fill the memory with files in /tmp": (lambda _: fills("/tmp/full", 513 * 1024**2), {"ENOSPC"}),
    "take more memory than allowed": (lambda _: len(bytearray(600 * 1024**2)) > 0, {"MemoryError"}),
    "raise the limit of memory": (lambda _: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1)) is None, {"ValueError"}),
    "make more processes than allowed": (lambda _: forks(1500), {"EAGAIN"}),
}
OUTSIDE = (
    "connect to a listener of the host",
    "connect to an abstract socket of the host",
    "connect to a unix socket of the host",
    "read the server's files",
    "read the server's files through /proc",
    "list another session's slot",
    "signal a process of the host",
)
CONTROLS: dict[str, Attack] = {
    "connect to a listener of its own": lambda _: own_connection(socket.AF_INET, ("127.0.0.1", 0)),
    "connect to an abstract socket of its own": lambda _: own_connection(socket.AF_UNIX, "\0treadle-own"),
    "connect to a unix socket of its own": lambda _: own_connection(socket.AF_UNIX, "/tmp/own.sock"),
    "read a file": lambda _: reads("/etc/passwd"),
    "read a file through /proc": lambda _: reads("/proc/self/root/etc/passwd"),
    "list its workspace": lambda _: bool(os.listdir(".")),
    "kill its own child": lambda _: kills_its_child(),
    "call the C library": lambda _: call("access", b"/", 0),
    "write to its workspace": lambda _: writes("own"),
    "write to /tmp": lambda _: writes("/tmp/own"),
    "write to its home": lambda _: writes(os.path.expanduser("~/own")),  # noqa: PTH111
    "own a set-user-id program of its own": set_user_id(10001),
    "run a program": lambda _: succeeds("true"),
    "write to a device": lambda _: writes("/dev/null"),
    "read its own memory's map": lambda _: reads("/proc/self/maps"),
    "write files into memory": lambda _: fills("/dev/shm/some", 32 * 1024**2),
    "be the first to be killed when memory runs out": lambda _: open("/proc/self/oom_score_adj").read() == "1000\n",
    "take some memory": lambda _: len(bytearray(128 * 1024**2)) > 0,
    "make some processes": lambda _: forks(20),
}


def outcome(attack: Attack, planted: Planted) -> str:
    try:
        return "DONE" if attack(planted) else "refused"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))
    except BaseException as error:
        return type(error).__name__


def main() -> None:
    parent = os.getppid()
    planted = Planted(**json.loads(sys.argv[1]), parent=parent)
    chosen = {name: attack for name, (attack, _) in ATTACKS.items()} | CONTROLS
    if sys.argv[2:] == ["outside"]:
        chosen = {name: chosen[name] for name in OUTSIDE}
    with open(f"/proc/{parent}/cmdline") as cmdline:
        told: dict[str, object] = {"worker": cmdline.read(), "uid": os.getuid()}
    print(json.dumps(told | {name: outcome(attack, planted) for name, attack in chosen.items()}))


if __name__ == "__main__":
    main()
