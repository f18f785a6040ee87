"""Keeps one worker; a small process between it and whichever server is there. Standard library only, run as a plain script.

It takes the slot's lock, so that there is one worker however many servers start one, and holds it until everything that the worker
started is dead; then it records how the worker ended. It outlives the server. SIGTERM kills the worker. Its job is one JSON object on
standard input (see `_Job`); the secret goes from the slot to the worker's standard input and nowhere else.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_LOCK_TRIES = 200
_LOCK_PAUSE_SECONDS = 0.01


@dataclass(frozen=True)
class _Job:
    slot: str
    argv: list[str]
    """The worker's command line, sandbox included."""
    env: dict[str, str]
    owner: list[int] | None
    """Uid and gid that the workspace and the run directory are given to."""
    config: dict[str, Any]
    """The worker's configuration without its secret."""


def main() -> None:
    """Run the worker of a slot, unless it ran before or runs already."""
    job = _Job(**json.load(sys.stdin))
    os.chdir(job.slot)
    if not _take_lock() or Path("pid").exists() or Path("exit").exists():
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if job.owner:
        _give("workspace", *job.owner)
        _give("run", *job.owner)
    # The server that reads the pid may send a signal at once, also before there is a worker.
    signal.signal(signal.SIGTERM, _stop)
    _record("pid", f"{os.getpid()} {_status(os.getpid())[1]}")
    code = _run(job)
    _record("exit", json.dumps({"code": code}))


_stopping: list[int] = []


def _stop(number: int, _frame: object) -> None:
    _stopping.append(number)
    _kill_all()


def _take_lock() -> bool:
    """The lock stays open, and with it locked, until this process ends."""
    lock = os.open("lock", os.O_RDWR | os.O_CLOEXEC)
    for _ in range(_LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A slot that was deleted meanwhile is nobody's.
            return os.fstat(lock).st_nlink > 0
        if Path("pid").exists():
            return False
        time.sleep(_LOCK_PAUSE_SECONDS)
    return False


def _run(job: _Job) -> int:
    secret = Path("secret").read_text()
    with Path("output.log").open("ab") as log:
        worker = subprocess.Popen(job.argv, stdin=subprocess.PIPE, stdout=log, stderr=log, env=job.env)
    if _stopping:
        _kill_all()
    assert worker.stdin is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError), worker.stdin as stdin:
        stdin.write(json.dumps({**job.config, "secret": secret}).encode() + b"\n")
    code, ended = 0, False
    # This process is the parent of every orphan below it, so no child means that nothing is left that could write.
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == worker.pid:
                code, ended = os.waitstatus_to_exitcode(status), True
            if ended:
                _kill_all()
    return code if code >= 0 else 128 - code


def _kill_all() -> None:
    """SIGKILL every descendant. One that is born meanwhile is found when its killed parent is reaped."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(_status(int(entry))[0], []).append(int(entry))
    line = [os.getpid()]
    while line:
        for child in children.get(line.pop(), []):
            line.append(child)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def _status(pid: int) -> tuple[int, int]:
    """Parent and start time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[1]), int(fields[19])


def _give(directory: str, uid: int, gid: int) -> None:
    for _, directories, files, handle in os.fwalk(directory, follow_symlinks=False):
        os.fchown(handle, uid, gid)
        for name in (*directories, *files):
            os.chown(name, uid, gid, dir_fd=handle, follow_symlinks=False)


def _record(name: str, content: str) -> None:
    draft = Path(f".{name}.shim")
    draft.write_text(content)
    draft.rename(name)


if __name__ == "__main__":
    main()
