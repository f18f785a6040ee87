"""The last resort of `collect`: a shim that was killed itself could not clean up."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from server.kernel.errors import WorkerLost
from server.workers.slot import Slot

_LIMIT_SECONDS = 10.0
_PAUSE_SECONDS = 0.005


def sweep(slot: Slot, leader: int, start: int) -> None:
    """Kill what a dead shim left behind, and wait until it is gone. Blocks. Errors: WorkerLost when something does not die within 10 s.

    That is its session, and everything that has the slot's workspace mounted: a process that does not see it cannot write there.
    Without a sandbox nothing is mounted, and a command of the agent that made its own session is not found.
    """
    deadline = time.monotonic() + _LIMIT_SECONDS
    while members := [*_session(leader, start), *_inside(slot)]:
        if time.monotonic() > deadline:
            raise WorkerLost(f"processes {members} of a lost worker do not die")
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)


def _session(leader: int, start: int) -> list[int]:
    """Living members of the session. A leader with another start time means that it is over: a pid that names a session is not reused."""
    members = []
    for process in _processes():
        try:
            fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        state, session, started = fields[0], int(fields[3]), int(fields[19])
        if int(process.name) == leader and started != start:
            return []
        if session == leader and state != b"Z":
            members.append(int(process.name))
    return members


def _inside(slot: Slot) -> list[int]:
    """Processes of a sandbox that shows the slot's workspace; the slot's name is unique."""
    mark = f"/{slot.path.name}/{slot.workspace.name} ".encode()
    members = []
    for process in _processes():
        with contextlib.suppress(OSError):
            if mark in (process / "mountinfo").read_bytes():
                members.append(int(process.name))
    return members


def _processes() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
