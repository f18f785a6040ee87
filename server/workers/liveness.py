"""Knowing that a worker is gone, also when its process is nobody's child."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Protocol


class Watch(Protocol):
    """Knows whether a worker has ended: the process, and all that it started."""

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as is known."""
        ...

    async def ended(self) -> None:
        """Wait for its end."""
        ...

    def close(self) -> None:
        """Stop watching. Repeatable."""
        ...


class ProcessWatch:
    """One process, by pid and start time, so that a reused pid is not mistaken for it."""

    def __init__(self, pid: int, start: int) -> None:
        self.pid = pid
        self._ended = asyncio.Event()
        self._pidfd = _open(pid, start)
        if self._pidfd is None:
            self._ended.set()
        else:
            asyncio.get_running_loop().add_reader(self._pidfd, self._end)

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return not self._ended.is_set()

    async def ended(self) -> None:
        """Wait for its end."""
        await self._ended.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Stop watching."""
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _end(self) -> None:
        self.close()
        # Reaped here when it is a child of this server; otherwise it is somebody else's to reap.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        self._ended.set()


def _open(pid: int, start: int) -> int | None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if int(fields[19]) == start:
            return pidfd
    os.close(pidfd)
    return None
