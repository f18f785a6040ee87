# A script of attacks, each as short as an attacker would have it.
# ruff: noqa: PTH113, PTH114, PTH101, PTH108, PTH109, PTH110, PTH118, PTH123, PTH207, PTH208, SIM115, BLE001
"""Runs as a hostile agent would inside a worker, and prints as JSON what came of each attack. Standard library only.

What came of it is `DONE`, `refused` (a program or a call said no), the name of the error (`EROFS`), or of the signal that ended the
attacker. Each attack has the one that shows that the wall held, for both launchers or for `process` and `docker`; any other, also a
misspelt attack's, is a failure. `OUTSIDE` names attacks that succeed without a wall. Of those whose result is a look at something, and not
an error, `SEEN_BY` names the harmless deed by the same look, which succeeds: else nobody would know that it can see.

Argument: a file with JSON, the names of what the test planted (class Planted).
"""

from __future__ import annotations

import ctypes
import errno
import glob
import json
import mmap
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

libc = ctypes.CDLL(None, use_errno=True)
DEVICES = {
    "console",
    "core",
    "fd",
    "full",
    "mqueue",
    "null",
    "ptmx",
    "pts",
    "random",
    "shm",
    "stderr",
    "stdin",
    "stdout",
    "tty",
    "urandom",
    "zero",
}


@dataclass(frozen=True)
class Planted:
    """What is there outside, to be reached by none of the attacks."""

    file: str
    slot: str
    door: str
    """The directory of another worker's doors."""
    pid: int
    port: int
    socket: str
    abstract: str
    spawner: str
    """The socket of the spawner."""
    key: str
    """The description of a key in the kernel, in the session keyring."""
    secrets: tuple[str, ...]
    """Backwards, so that who searches does not find what it searches for in itself."""
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


def connects_in(folder: str, name: str) -> bool:
    """To a unix socket whose path may be too long for its address."""
    return connects(socket.AF_UNIX, f"/proc/self/fd/{os.open(folder, os.O_PATH)}/{name}")


def call(name: str, *args: object) -> bool:
    if getattr(libc, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), name)
    return True


def succeeds(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, timeout=10, check=False).returncode == 0


def raw_socket(family: int, kind: int, protocol: int) -> bool:
    socket.socket(family, kind, protocol).close()
    return True


def sends(address: tuple[str, int]) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"\0" * 12, address)
    return True


# The numbers on x86-64 and on ARM: most have no function in the C library.
NUMBERS = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "finit_module": (313, 273),
    "init_module": (175, 105),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "settimeofday": (164, 170),
    "userfaultfd": (323, 282),
}


def system_call(name: str, *args: object) -> bool:
    if libc.syscall(NUMBERS[name][platform.machine() == "aarch64"], *args) < 0:
        raise OSError(ctypes.get_errno(), name)
    return True


def calls_in_32_bits() -> bool:
    """`getpid`, whose number there is `writev` here."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\0\0\0\xcd\x80\xc3")
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))() == os.getpid()


def takes_a_descriptor(pid: int) -> bool:
    process = libc.syscall(NUMBERS["pidfd_open"][0], pid, 0)
    if process < 0:
        raise OSError(ctypes.get_errno(), "pidfd_open")
    return system_call("pidfd_getfd", process, 0, 0)


def reads_memory(pid: int, at: ctypes.Array[ctypes.c_char]) -> bool:
    """What a process has where this one has a buffer with "own"."""
    target = ctypes.create_string_buffer(4)
    local, remote = ((ctypes.c_ulong * 2)(ctypes.addressof(each), 4) for each in (target, at))
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    return system_call("process_vm_readv", pid, local, one, remote, one, none) and (pid != os.getpid() or target.value == b"own")


def finds_key(description: str) -> bool:
    """A session's keyring is handed down to all that is started in it, whatever its user and namespaces."""
    search, session = 10, -3
    return system_call("keyctl", search, session, b"user", description.encode(), 0)


def runs_as(uid: int, *argv: str) -> bool:
    """Whether a program that waits for its input, as `su` for a password, does so as that user."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
        with open(f"/proc/{program.pid}/status") as status:
            effective = status.read().split("\nUid:")[1].split()[1]
        program.kill()
    return effective == str(uid)


def has_capabilities(status: str) -> bool:
    sets = [line.split()[1] for line in status.splitlines() if line.startswith("Cap")]
    return len(sets) != 5 or any(int(each, 16) for each in sets)


def status_with_a_capability() -> str:
    return content("/proc/self/status").replace("\nCapEff:\t0", "\nCapEff:\t8")


def content(path: str) -> str:
    with open(path) as file:
        return file.read()


def reads_input_of(pid: int) -> bool:
    """What it was told when it started, or whatever will be told."""
    descriptor = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return bool(os.read(descriptor, 64))
    finally:
        os.close(descriptor)


def finds(secrets: tuple[str, ...]) -> bool:
    wanted = [secret[::-1].encode() for secret in secrets]
    places = ["/workspace", "/run", "/tmp", "/home", "/etc", "/var", "/root", "/srv", "/mnt", "/dev/shm"]
    files = (os.path.join(folder, name) for place in places for folder, _, names in os.walk(place) for name in names)
    for path in chain(glob.glob("/proc/[0-9]*/environ"), glob.glob("/proc/[0-9]*/cmdline"), files):
        try:
            if os.path.islink(path) or (path[:6] != "/proc/" and not os.path.isfile(path)):
                continue
            with open(path, "rb") as file:
                content = file.read(4 * 1024**2)
        except OSError:
            continue
        if any(each in content for each in wanted):
            return True
    return False


def finds_in_a_file() -> bool:
    secret = os.urandom(16).hex()
    with open("secret", "w") as file:
        file.write(secret)
    return finds((secret[::-1],))


def finds_in_an_environment() -> bool:
    secret = os.urandom(16).hex()
    return with_a_child(lambda _: finds((secret[::-1],)), "cat", SECRET=secret)


def with_a_child(look: Callable[[int], bool], *argv: str, **environment: str) -> bool:
    """What can be seen of a child that repeats what it is told."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env={**os.environ, **environment}, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            # Before it answers, its program may not be there yet, and what it was given neither.
            os.write(child.stdin.fileno(), b"here")
            os.read(child.stdout.fileno(), 4)
            return look(child.pid)
        finally:
            child.kill()


def reads_input_of_its_child() -> bool:
    reading, writing = os.pipe()
    os.write(writing, b"told")
    with subprocess.Popen(["sleep", "9"], stdin=reading) as child:
        try:
            return reads_input_of(child.pid)
        finally:
            child.kill()


def strange_mounts(table: str) -> bool:
    """Whether more of the machine's disks can be written than the slot's own directories."""
    mounts = [line.split() for line in table.splitlines()]
    disks = [each for each in mounts if each[each.index("-") + 1] not in {"tmpfs", "devtmpfs", "proc", "sysfs", "devpts", "mqueue"}]
    writable = {each[4] for each in disks if "rw" in each[5].split(",")}
    return writable != {"/workspace", "/run/treadle"}


def writes_to_one(pattern: str) -> bool:
    """The first that can be written of what the pattern names."""
    error = OSError(errno.ENOENT, pattern)
    for path in glob.glob(pattern, recursive=True):
        try:
            return writes(path)
        except OSError as refused:
            error = refused
    raise error


def raises_the_limit() -> bool:
    """The one that there is: of each process, or of all together."""
    if resource.getrlimit(resource.RLIMIT_DATA)[1] == resource.RLIM_INFINITY:
        return writes_to_one("/sys/fs/cgroup/**/memory.*max*")
    resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))
    return True


def in_a_child(deed: Callable[[], bool]) -> bool:
    """For what may end the attacker."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if deed() else 1)
        except MemoryError:
            os._exit(2)
        except BaseException:
            os._exit(3)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        raise Ended(os.WTERMSIG(status))
    if os.WEXITSTATUS(status) == 2:
        raise MemoryError
    return os.WEXITSTATUS(status) == 0


class Ended(Exception):
    """The attacker was ended by a signal."""


def set_user_id(whose: int | None = None) -> Callable[[Planted], bool]:
    def attack(_: Planted) -> bool:
        owner = os.getuid() if whose is None else whose
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


def kills(pid: int) -> bool:
    os.kill(pid, signal.SIGKILL)
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}") or content(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


def strange_devices(names: list[str]) -> bool:
    return bool(set(names) - DEVICES)


def host_file_through_proc(planted: Planted) -> bool:
    roots = [*glob.glob("/proc/[0-9]*/root"), *glob.glob("/proc/[0-9]*/cwd")]
    found = [os.path.exists(f"{root}{planted.file}") for root in roots if "/self/" not in root]
    return any(found)


Attack = Callable[[Planted], bool]
ATTACKS: dict[str, tuple[Attack, set[str]]] = {
    "connect to a listener of the host": (lambda p: connects(socket.AF_INET, ("127.0.0.1", p.port)), {"ECONNREFUSED"}),
    "connect to the internet": (lambda _: connects(socket.AF_INET, ("1.1.1.1", 53)), {"ENETUNREACH"}),
    "connect to the internet by IPv6": (
        lambda _: connects(socket.AF_INET6, ("2606:4700:4700::1111", 53)),
        {"ENETUNREACH"},
        {"EADDRNOTAVAIL"},
    ),
    "connect to the metadata address": (lambda _: connects(socket.AF_INET, ("169.254.169.254", 80)), {"ENETUNREACH"}),
    "connect to the host by the bridge": (lambda _: connects(socket.AF_INET, ("172.17.0.1", 22)), {"ENETUNREACH"}),
    "ask a name server": (lambda _: sends(("8.8.8.8", 53)), {"ENETUNREACH"}),
    "resolve a name": (lambda _: bool(socket.getaddrinfo("example.com", 80)), {"EAI_AGAIN"}),
    "connect to an abstract socket of the host": (lambda p: connects(socket.AF_UNIX, "\0" + p.abstract), {"ECONNREFUSED"}),
    "connect to a unix socket of the host": (lambda p: connects(socket.AF_UNIX, p.socket), {"ENOENT"}),
    "connect to the engine's socket": (lambda _: connects(socket.AF_UNIX, "/var/run/docker.sock"), {"ENOENT"}),
    "connect to the engine's runtime": (lambda _: connects(socket.AF_UNIX, "/run/containerd/containerd.sock"), {"ENOENT"}),
    "connect to the spawner's socket": (lambda p: connects(socket.AF_UNIX, p.spawner), {"ENOENT"}),
    "open a raw socket": (lambda _: raw_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), {"EPERM"}),
    "open a packet socket": (lambda _: raw_socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300), {"EPERM"}),
    "open a socket to the hypervisor": (lambda _: raw_socket(40, socket.SOCK_STREAM, 0), {"EPERM"}),
    "open a socket to the kernel's ciphers": (lambda _: raw_socket(38, socket.SOCK_SEQPACKET, 0), {"EPERM"}),
    "open a socket to the kernel's audit": (lambda _: raw_socket(socket.AF_NETLINK, socket.SOCK_RAW, 9), {"EPERM"}),
    "queue system calls (io_uring)": (lambda _: system_call("io_uring_setup", 1, ctypes.create_string_buffer(120)), {"EPERM"}),
    "call as a program of 32 bits": (lambda _: in_a_child(calls_in_32_bits), {"SIGSYS"}),
    "read /etc/shadow": (lambda _: reads("/etc/shadow"), {"ENOENT"}, {"EACCES"}),
    "read the server's files": (lambda p: reads(p.file), {"ENOENT"}),
    "read the server's files through /proc": (host_file_through_proc, {"refused"}),
    "find a planted key or the turn's secret": (lambda p: finds(p.secrets), {"refused"}),
    "read what the worker is told": (lambda _: reads_input_of(1), {"EACCES"}, {"refused"}),
    "find another disk that can be written": (lambda _: strange_mounts(content("/proc/self/mountinfo")), {"refused"}),
    "connect to another session's door to the network": (lambda p: connects_in(p.door, "egress.sock"), {"ENOENT"}),
    "list another session's slot": (lambda p: bool(os.listdir(p.slot)), {"ENOENT"}),
    "signal a process of the host": (lambda p: os.kill(p.pid, 0) is None, {"ESRCH"}),
    "signal pid 1 to death": (lambda _: kills(1), {"refused"}),
    "mount a file system": (lambda _: call("mount", b"none", b"/tmp", b"tmpfs", 0, None), {"EPERM"}),
    "remount the system writable": (lambda _: call("mount", b"none", b"/usr", None, 32 | 4096, None), {"EPERM"}),
    "unmount the system": (lambda _: call("umount2", b"/usr", 2), {"EPERM"}),
    "make a user namespace": (lambda _: call("unshare", 0x10000000), {"EPERM"}),
    "enter a namespace of pid 1": (lambda _: call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0), {"EPERM"}),
    "make a mount namespace": (lambda _: call("unshare", 0x00020000), {"EPERM"}),
    "become root": (lambda _: call("setuid", 0), {"EINVAL"}, {"EPERM"}),
    "own a set-user-id program": (set_user_id(0), {"EINVAL"}, {"EPERM"}),
    "run su": (lambda _: succeeds("su", "root", "-c", "true"), {"refused"}),
    "have a set-user-id program take effect": (lambda _: runs_as(0, "su", "root"), {"refused"}),
    "have a capability": (lambda _: has_capabilities(content("/proc/self/status")), {"refused"}),
    "find a key of the host's session in the kernel": (lambda p: finds_key(p.key), {"EPERM"}),
    "load a program into the kernel": (lambda _: system_call("bpf", 5, ctypes.create_string_buffer(128), 128), {"EPERM"}),
    "load a module": (lambda _: system_call("init_module", b"", 0, b""), {"EPERM"}),
    "load another kernel": (lambda _: system_call("kexec_load", 0, 0, None, 0), {"EPERM"}),
    "watch the kernel": (
        lambda _: system_call("perf_event_open", ctypes.create_string_buffer(128), -1, 0, -1, 0),
        {"EPERM"},
    ),
    "handle page faults": (lambda _: system_call("userfaultfd", 0), {"EPERM"}),
    "open a file by its handle": (lambda _: system_call("open_by_handle_at", -100, (ctypes.c_uint32 * 4)(8, 1, 2, 0), 0), {"EPERM"}),
    "swap the root": (lambda _: system_call("pivot_root", b"/tmp", b"/tmp"), {"EPERM"}),
    "set the clock": (lambda _: system_call("settimeofday", ctypes.create_string_buffer(16), None), {"EPERM"}),
    "rename the machine": (lambda _: call("sethostname", b"owned", 5), {"EPERM"}),
    "write to /usr": (lambda _: writes("/usr/owned"), {"EROFS"}),
    "write to the root directory": (lambda _: writes("/owned"), {"EROFS"}),
    "write to /etc": (lambda _: writes("/etc/owned"), {"EROFS"}),
    "add a user": (lambda _: writes("/etc/passwd"), {"EACCES", "EROFS"}),
    "write to /dev": (lambda _: writes("/dev/owned"), {"EROFS"}, {"EACCES"}),
    "change a kernel setting": (lambda _: writes("/proc/sys/kernel/core_pattern"), {"EACCES", "EROFS"}),
    "raise the limit of user namespaces": (lambda _: writes("/proc/sys/user/max_user_namespaces"), {"EACCES", "EROFS"}),
    "call the host's kernel by sysrq": (lambda _: writes("/proc/sysrq-trigger"), {"EACCES", "EROFS", "ENOENT"}),
    "move to another control group": (lambda _: writes_to_one("/sys/fs/cgroup/**/cgroup.procs"), {"ENOENT"}, {"EACCES"}),
    "have the host run a program when a group is empty": (lambda _: writes_to_one("/sys/fs/cgroup/*/release_agent"), {"ENOENT"}),
    "have the host run a program for a device": (lambda _: writes("/sys/kernel/uevent_helper"), {"ENOENT"}, {"EROFS", "ENOENT"}),
    "make a device": (lambda _: os.mknod("disk", 0o60600, os.makedev(254, 0)) is None, {"EPERM"}),
    "find devices of the host": (lambda _: strange_devices(os.listdir("/dev")), {"refused"}),
    "read the host's memory": (lambda _: reads("/dev/mem"), {"ENOENT"}),
    "read the kernel's memory": (lambda _: reads("/proc/kcore"), {"EACCES", "ENOENT"}),
    "change the root": (lambda _: call("chroot", b"/tmp"), {"EPERM"}),
    "trace the worker": (lambda p: call("ptrace", 16, p.parent, None, None), {"EPERM"}),
    "read the worker's memory": (lambda p: reads(f"/proc/{p.parent}/mem"), {"EACCES"}),
    "read the worker's memory by a call": (
        lambda p: reads_memory(p.parent, ctypes.create_string_buffer(b"own")),
        {"EPERM"},
    ),
    "take a descriptor of the worker": (lambda p: takes_a_descriptor(p.parent), {"EPERM"}),
    "compare itself with the worker": (lambda p: system_call("kcmp", os.getpid(), p.parent, 1, 0, 0), {"EPERM"}),
    "read the worker's environment": (lambda p: reads(f"/proc/{p.parent}/environ"), {"EACCES"}),
    "list the worker's descriptors": (lambda p: bool(os.listdir(f"/proc/{p.parent}/fd")), {"EACCES"}),
    "enter the worker's namespaces": (lambda p: os.open(f"/proc/{p.parent}/ns/user", os.O_RDONLY) > 0, {"EACCES"}),
    "inject a keystroke": (lambda _: writes("/dev/tty"), {"ENXIO"}),
    "read the kernel's log": (lambda _: reads("/dev/kmsg"), {"ENOENT"}),
    "fill the memory with files": (lambda _: fills("/dev/shm/full", 65 * 1024**2), {"ENOSPC"}),
    "fill the memory with files in /tmp": (lambda _: fills("/tmp/treadle-full", 513 * 1024**2), {"ENOSPC"}),
    "take more memory than allowed": (
        lambda _: in_a_child(lambda: len(bytearray(b"x" * 1100 * 1024**2)) > 0),
        {"MemoryError"},
        {"SIGKILL"},
    ),
    "raise the limit of memory": (lambda _: raises_the_limit(), {"ValueError"}, {"EACCES"}),
    "make more processes than allowed": (lambda _: forks(1500), {"EAGAIN"}),
}
OUTSIDE = (
    "connect to a listener of the host",
    "connect to an abstract socket of the host",
    "connect to a unix socket of the host",
    "connect to the spawner's socket",
    "read the server's files",
    "read the server's files through /proc",
    "list another session's slot",
    "find a key of the host's session in the kernel",
    "signal a process of the host",
    "find a planted key or the turn's secret",
    "find another disk that can be written",
    "connect to another session's door to the network",
)
SEEN_BY = {
    "find a planted key or the turn's secret": "find a secret of its own in an environment",
    "read what the worker is told": "read what its own child is told",
    "find another disk that can be written": "see a disk more",
    "signal pid 1 to death": "see its own child die",
    "run su": "have su",
    "have a set-user-id program take effect": "see as whom a program runs",
    "have a capability": "see a capability",
    "find devices of the host": "see a device more",
    "read the server's files through /proc": "read a file through /proc",
}
CONTROLS: dict[str, Attack] = {
    "ask for its interfaces": lambda _: raw_socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "make a pair of sockets": lambda _: all(socket.socketpair()),
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
    "own a set-user-id program of its own": set_user_id(),
    "run a program": lambda _: succeeds("true"),
    "find a secret of its own in a file": lambda _: finds_in_a_file(),
    "find a secret of its own in an environment": lambda _: finds_in_an_environment(),
    "read what its own child is told": lambda _: reads_input_of_its_child(),
    "see a disk more": lambda _: strange_mounts(content("/proc/self/mountinfo") + "9 9 8:1 / /host rw - ext4 /dev/sda1 rw\n"),
    "see its own child die": lambda _: with_a_child(kills, "cat"),
    "have su": lambda _: os.access("/bin/su", os.X_OK),
    "see as whom a program runs": lambda _: runs_as(os.getuid(), "cat"),
    "see a capability": lambda _: has_capabilities(status_with_a_capability()),
    "see a device more": lambda _: strange_devices([*os.listdir("/dev"), "sda"]),
    "write to a device": lambda _: writes("/dev/null"),
    "read its own memory by a call": lambda _: reads_memory(os.getpid(), ctypes.create_string_buffer(b"own")),
    "read its own memory's map": lambda _: reads("/proc/self/maps"),
    "write files into memory": lambda _: fills("/dev/shm/some", 32 * 1024**2),
    "be the first to be killed when memory runs out": lambda _: open("/proc/self/oom_score_adj").read() == "1000\n",
    "take some memory": lambda _: len(bytearray(128 * 1024**2)) > 0,
    "make some processes": lambda _: forks(20),
}


def outcome(attack: Attack, planted: Planted) -> str:
    try:
        return "DONE" if attack(planted) else "refused"
    except socket.gaierror as error:
        return "EAI_AGAIN" if error.errno == socket.EAI_AGAIN else repr(error)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))
    except Ended as ended:
        return signal.Signals(ended.args[0]).name
    except BaseException as error:
        return type(error).__name__


def main() -> None:
    parent = os.getppid()
    with open(sys.argv[1]) as told_us:
        planted = Planted(**json.load(told_us), parent=parent)
    chosen = {name: attack for name, (attack, *_) in ATTACKS.items()} | CONTROLS
    if sys.argv[2:] == ["outside"]:
        chosen = {name: chosen[name] for name in OUTSIDE}
    with open(f"/proc/{parent}/cmdline") as cmdline:
        told: dict[str, object] = {"worker": cmdline.read(), "uid": os.getuid()}
    print(json.dumps(told | {name: outcome(attack, planted) for name, attack in chosen.items()}))


if __name__ == "__main__":
    main()
