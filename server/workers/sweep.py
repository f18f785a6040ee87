"""The last resort of `collect`: a shim that was killed itself could not clean up."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from server.kernel.errors import WorkerLost

_LIMIT_SECONDS = 10.0
_PAUSE_SECONDS = 0.005


def sweep_session(leader: int, start: int) -> None:
    """Kill what is left of a dead shim's session, and wait until it is gone. Blocks.

    The sandbox's own processes are of that session and end only after everything inside did. `start` is the leader's start time: a
    process of that pid with another one means that the session is over, since a pid is not given anew while it names a session.
    Errors: WorkerLost when something does not die within 10 s.
    """
    deadline = time.monotonic() + _LIMIT_SECONDS
    while members := _members(leader, start):
        if time.monotonic() > deadline:
            raise WorkerLost(f"processes {members} of a lost worker do not die")
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)


def _members(leader: int, start: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        state, session, started = fields[0], int(fields[3]), int(fields[19])
        if int(entry.name) == leader and started != start:
            return []
        if session == leader and state != b"Z":
            members.append(int(entry.name))
    return members
