# A script of attacks, each as short as an attacker would have it.
# ruff: noqa: PTH123, PTH207, PTH118, PTH109, PTH208, PTH110, SIM115, BLE001
"""Runs inside a worker's sandbox, as a hostile agent would, and prints as JSON what it achieved. Standard library only.

Arguments: a file of the host with a canary, another session's workspace, the pid of a process of the host.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import signal
import socket
import subprocess
import sys

HOST_FILE, OTHER_SLOT, HOST_PID = sys.argv[1], sys.argv[2], int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
WORKER = os.getppid()


def reads(path):
    with open(path, "rb") as file:
        return len(file.read(64)) > 0


def connects():
    with socket.create_connection(("1.1.1.1", 53), timeout=2):
        return True


def succeeds(*argv):
    return subprocess.run(argv, capture_output=True, timeout=10).returncode == 0


def call(name, *args):
    return getattr(libc, name)(*args) == 0


def escapes_through_proc():
    return any(reads(path) for path in glob.glob(f"/proc/[0-9]*/root{HOST_FILE}") + glob.glob(f"/proc/[0-9]*/cwd/..{HOST_FILE}"))


def raw_socket():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return True


def abstract_socket_of_the_host():
    with open("/proc/net/unix") as sockets:
        return any("@" in line for line in sockets.read().splitlines()[1:])


def suid_copy():
    path = os.path.join(os.getcwd(), "suid")
    with open("/usr/bin/id", "rb") as source, open(path, "wb") as target:
        target.write(source.read())
    os.chown(path, 0, 0)
    return True


ATTACKS = {
    "connect to the internet": connects,
    "resolve a name": lambda: bool(socket.getaddrinfo("example.org", 443)),
    "open a raw socket": raw_socket,
    "see abstract sockets of the host": abstract_socket_of_the_host,
    "read /etc/shadow": lambda: reads("/etc/shadow"),
    "read the server's files": lambda: reads(HOST_FILE),
    "read the server's files through /proc": escapes_through_proc,
    "list another session's slot": lambda: bool(os.listdir(OTHER_SLOT)),
    "list root's home": lambda: reads("/root/.profile") or reads("/root/.ssh/id_rsa"),
    "signal a process of the host": lambda: os.kill(HOST_PID, 0) is None,
    "signal pid 1 to death": lambda: os.kill(1, signal.SIGKILL) is None and not os.path.exists("/proc/1"),
    "mount a file system": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "remount the system writable": lambda: call("mount", b"none", b"/usr", None, 32 | 4096, None),
    "unmount the system": lambda: call("umount2", b"/usr", 2),
    "make a user namespace": lambda: call("unshare", 0x10000000),
    "make a mount namespace": lambda: call("unshare", 0x00020000),
    "become root": lambda: call("setuid", 0) or call("setresuid", 0, 0, 0),
    "own a set-user-id program": suid_copy,
    "run su": lambda: succeeds("su", "root", "-c", "true") or succeeds("sudo", "-n", "true"),
    "write to /usr": lambda: open("/usr/owned", "w") is not None,
    "write to the root directory": lambda: open("/owned", "w") is not None,
    "write to /etc": lambda: open("/etc/passwd", "a") is not None,
    "change a kernel setting": lambda: open("/proc/sys/kernel/core_pattern", "w") is not None,
    "raise the limit of user namespaces": lambda: (
        open("/proc/sys/user/max_user_namespaces", "w").write("99") > 0 and call("unshare", 0x10000000)
    ),
    "make a device": lambda: os.mknod("disk", 0o60600, os.makedev(254, 0)) is None,
    "change the root": lambda: call("chroot", b"/tmp"),
    "trace the worker": lambda: call("ptrace", 16, WORKER, None, None),
    "read the worker's memory": lambda: reads(f"/proc/{WORKER}/mem"),
    "read the worker's environment": lambda: reads(f"/proc/{WORKER}/environ"),
    "list the worker's descriptors": lambda: bool(os.listdir(f"/proc/{WORKER}/fd")),
    "enter the worker's namespaces": lambda: call("setns", os.open(f"/proc/{WORKER}/ns/user", os.O_RDONLY), 0),
    "inject a keystroke": lambda: open("/dev/tty", "w") is not None,
    "read the disk": lambda: reads("/dev/vda") or reads("/dev/sda"),
    "read the kernel's log": lambda: reads("/dev/kmsg"),
}


def outcome(attack):
    try:
        return "DONE" if attack() else "refused"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    worker = open(f"/proc/{WORKER}/cmdline").read()
    print(json.dumps({"worker": worker, "uid": os.getuid(), **{name: outcome(attack) for name, attack in ATTACKS.items()}}))
