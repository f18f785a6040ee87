"""Keeps one worker; a small process between it and whichever server is there. Standard library only (and server.sandbox.listing, which
imports no more), run as a plain script.

It takes the slot's lock, so that there is one worker however many servers start one, and holds it until everything that the worker
started is dead; then it records how the worker ended. It outlives the server. SIGTERM kills the worker. Its job is one JSON object on
standard input (see `Job`); the secret goes from the slot to the worker's standard input and nowhere else.

Every start of a worker waits for this one, so it imports little: no pathlib, no subprocess, no dataclasses (60 ms together).
"""
# ruff: noqa: PTH104, PTH110, PTH116, PTH120, PTH123, PTH208

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import sys
import time

_PR_SET_CHILD_SUBREAPER = 36
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1
_EARLY_TO_GO = "500"
CALLS = 20
"""The descriptor from which the sandbox reads which system calls it allows; none that this process has."""
_SCRATCH_SECONDS = 0.5
_LOCK_TRIES = 200
_LOCK_PAUSE_SECONDS = 0.01

_stopping: list[int] = []


class Job:
    """What to keep.

    `argv` and `env` start the worker, sandbox included; `owner` (uid and gid, or None) is given the workspace and the run directory;
    `config` is the worker's configuration without its secret; `memory` is how many bytes each process may take, 0 for no limit;
    `calls` (hexadecimal) is what can be read from descriptor CALLS; `scratch` are places inside the sandbox that are file systems in
    memory, in which there may be `files` files.
    """

    def __init__(
        self,
        *,
        slot: str,
        argv: list[str],
        env: dict[str, str],
        owner: list[int] | None,
        config: dict[str, object],
        memory: int,
        calls: str,
        scratch: list[str],
        files: int,
    ) -> None:
        self.scratch = scratch
        self.files = files
        self.memory = memory
        self.calls = bytes.fromhex(calls)
        self.slot = slot
        self.argv = argv
        self.env = env
        self.owner = owner
        self.config = config


def main() -> None:
    """Run the worker of a slot, unless it ran before or runs already."""
    job = Job(**json.load(sys.stdin))
    os.chdir(job.slot)
    if not _take_lock() or os.path.exists("pid") or os.path.exists("exit"):
        return
    _restrain(job)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if job.owner:
        give("workspace", *job.owner)
        give("run", *job.owner)
    _list()
    # The server that reads the pid may send a signal at once, also before there is a worker.
    signal.signal(signal.SIGTERM, _stop)
    _record("pid", f"{os.getpid()} {_status(os.getpid())[1]}")
    worker = _spawn(job)
    scratch = _Scratch(job)
    code = _wait(worker)
    _record("exit", json.dumps({"code": code, "stopped": bool(_stopping), "oom_killed": scratch.is_full}))


class _Scratch:
    """Ends the worker when there are too many files in its memory: they are the kernel's, so no limit of a process counts them, and
    killing processes frees none as long as one is left.

    Looks by a timer's signal.
    """

    def __init__(self, job: Job) -> None:
        self.is_full = False
        self._job = job
        self._places: list[int] = []
        if job.scratch:
            signal.signal(signal.SIGALRM, self._look)
            signal.setitimer(signal.ITIMER_REAL, _SCRATCH_SECONDS, _SCRATCH_SECONDS)

    def _look(self, _number: int, _frame: object) -> None:
        if not self._places:
            self._places = _found_inside(self._job.scratch)
        looked = [os.fstatvfs(place) for place in self._places]
        if sum(each.f_files - each.f_ffree for each in looked) > self._job.files and not self.is_full:
            self.is_full = True
            with open("output.log", "a") as log:
                log.write(f"more than {self._job.files} files in {', '.join(self._job.scratch)}, which are memory\n")
            _kill_all()


def _found_inside(places: list[str]) -> list[int]:
    """The places as processes inside the sandbox have them, opened; none while it is being built."""
    for pid in _descendants():
        opened: list[int] = []
        try:
            how = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            opened += (os.open(f"/proc/{pid}/root{place}", how) for place in places)
            # Each is a file system of its own only behind the inner wall.
            others = {os.stat("/").st_dev, os.stat(f"/proc/{pid}/root").st_dev}
            if len(others | {os.fstat(each).st_dev for each in opened}) == len(places) + 2:
                return opened
        except OSError:
            pass  # it ended, or is not there yet
        for each in opened:
            os.close(each)
    return []


def _restrain(job: Job) -> None:
    """What every process of the worker inherits.

    RLIMIT_DATA counts private writable memory. Not RLIMIT_AS: runtimes of JavaScript reserve address space by the gigabyte and use
    little of it. And when the whole machine runs out of memory, the kernel takes it from here, and not from the database (from what
    the agent runs before all: worker/oom.py); only under a root with CAP_SYS_RESOURCE is the worker held to that.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if job.memory:
        resource.setrlimit(resource.RLIMIT_DATA, (job.memory, job.memory))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(_EARLY_TO_GO)
    # No namespace parts the keys of a login session (of Kerberos, of encrypted file systems) from all that is started in it.
    if keyctl := _KEYCTL.get(os.uname().machine):
        ctypes.CDLL(None).syscall(keyctl, _JOIN_SESSION_KEYRING, None)


def _stop(number: int, _frame: object) -> None:
    _stopping.append(number)
    _kill_all()


def _take_lock() -> bool:
    """The lock stays open, and with it locked, until this process ends."""
    lock = os.open("lock", os.O_RDWR | os.O_CLOEXEC)
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if os.path.exists("pid"):
                return False
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            # A slot that was deleted meanwhile is nobody's.
            return os.fstat(lock).st_nlink > 0
    return False


def _spawn(job: Job) -> int:
    """Start the worker and tell it its configuration; returns its pid."""
    with open("secret") as file:
        line = json.dumps({**job.config, "secret": file.read()}) + "\n"
    reading, writing = os.pipe()
    calls, telling = os.pipe()
    log = os.open("output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    actions = [(os.POSIX_SPAWN_DUP2, reading, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    if job.calls:
        actions.append((os.POSIX_SPAWN_DUP2, calls, CALLS))
    worker = os.posix_spawn(job.argv[0], job.argv, job.env, file_actions=actions)
    # The pipes hold more than that, so this does not wait; and these ends are open, so they cannot break.
    os.write(telling, job.calls)
    os.write(writing, line.encode())
    for descriptor in (reading, writing, calls, telling, log):
        os.close(descriptor)
    return worker


def _wait(worker: int) -> int:
    """Wait until everything is dead; returns the worker's exit code, 128 + n for signal n.

    This process is the parent of every orphan below it, so no child means that nothing is left that could write.
    """
    code, ended = 0, bool(_stopping)
    while True:
        if ended:
            _kill_all()
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return code if code >= 0 else 128 - code
        if pid == worker:
            code, ended = os.waitstatus_to_exitcode(status), True


def _kill_all() -> None:
    """SIGKILL every descendant. One that is born meanwhile is found when its killed parent is reaped."""
    for child in _descendants():
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(_status(int(entry))[0], []).append(int(entry))
            except OSError:
                continue  # it ended
    found = [os.getpid()]
    for parent in found:
        found += children.get(parent, [])
    return found[1:]


def _status(pid: int) -> tuple[int, int]:
    """Parent and start time of a process."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[1]), int(fields[19])


def give(directory: str, uid: int, gid: int) -> None:
    """All that is in it, too. Nobody writes there."""
    for _, directories, files, handle in os.fwalk(directory, follow_symlinks=False):
        os.fchown(handle, uid, gid)
        for name in (*directories, *files):
            os.chown(name, uid, gid, dir_fd=handle, follow_symlinks=False)


def _list() -> None:
    """How the workspace looks before anybody works in it, for the import. Without it, every file is read there."""
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
    from server.sandbox import listing

    try:
        _write("workspace.listing", listing.take("workspace"))
    except OSError:
        return  # a full disk


def _record(name: str, content: str) -> None:
    _write(name, content.encode())


def _write(name: str, content: bytes) -> None:
    draft = f".{name}.shim"
    with open(draft, "wb") as file:
        file.write(content)
    os.rename(draft, name)


if __name__ == "__main__":
    main()
