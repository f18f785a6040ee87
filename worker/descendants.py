"""Everything that this process started, also what tried to get away by forking twice."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


def hide_memory() -> None:
    """Make this process's memory and environment unreadable for its own uid: what it runs is not trusted. Errors: OSError."""
    _prctl(_PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none is lost from sight. Errors: OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_tree(pid: int) -> None:
    """SIGKILL a child of this process and everything below it. The child is left to whoever waits for it; one that was reaped already
    must not be named."""
    for each in [pid, *_descendants(pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def kill_descendants() -> int:
    """SIGKILL all descendants until none is left, and reap them; returns how many. Nothing else may wait for them."""
    killed: set[int] = set()
    while alive := _descendants(os.getpid()):
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= alive
        _reap()
    return len(killed)


def _reap() -> None:
    # Blocks only for children that were just killed.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, 0)
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _descendants(pid: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    line = [pid]
    while line:
        for child in children.get(line.pop(), []):
            if child not in found:
                found.add(child)
                line.append(child)
    return found


def _parent(process: Path) -> int | None:
    try:
        # The name may hold anything, so the fields are counted from its closing parenthesis.
        fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return int(fields[1])


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl", str(option))
