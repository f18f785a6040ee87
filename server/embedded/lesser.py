"""Runs a program as somebody lesser: `python lesser.py PARENT UID:GID PORTS PROGRAM ARGUMENT...`, by file and with nothing installed.

Gives up root for UID:GID (empty: stays who it is), keeps with PORTS=1 the one right to listen below port 1024, and ends with PARENT.
The program is opened before: the lesser one needs no right to where it is.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CAP_NET_BIND_SERVICE = 10
CAPABILITY_VERSION_3 = 0x20080522  # capget(2)


def main(parent: str, account: str, ports: str, program: str, *arguments: str) -> None:
    """See above."""
    libc = ctypes.CDLL(None, use_errno=True)
    executable = os.open(program, os.O_PATH | os.O_CLOEXEC)
    if account:
        uid, gid = map(int, account.split(":"))
        _must(libc.prctl(PR_SET_KEEPCAPS, int(ports), 0, 0, 0))
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        if int(ports):
            _keep_ports(libc)
    # Only now: a change of user undoes it. It lasts over execve(2). The parent may have died before.
    _must(libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0))
    if os.getppid() != int(parent):
        os._exit(1)
    os.execve(executable, [program, *arguments], {})  # noqa: S606 - that is the purpose


def _keep_ports(libc: ctypes.CDLL) -> None:
    only = 1 << CAP_NET_BIND_SERVICE
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _must(libc.capset(header, (ctypes.c_uint32 * 6)(only, only, only, 0, 0, 0)))
    _must(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0))


def _must(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main(*sys.argv[1:])
