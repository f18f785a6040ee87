"""A process that may not be our child, watched without polling: by its pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Self


def open_private(path: Path) -> BinaryIO:
    """Open for appending a file that only our own user may open, also when it was there and others could."""
    file = open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115 - the caller's to close
    os.fchmod(file.fileno(), 0o600)
    return file


class WatchedProcess:
    """Waits for and signals exactly one process: a pidfd never means another process that got the same number."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        """Errors: ProcessLookupError when there is no such process."""
        self.pid = pid
        self._child = child
        self._fd = os.pidfd_open(pid)

    @classmethod
    async def spawn(
        cls, command: Sequence[str | Path], *, user: int | None, group: int | None, env: Mapping[str, str], cwd: Path, log: Path
    ) -> Self:
        """Start `command` in its own session, so that Ctrl-C in the terminal does not reach it; its output goes to `log`, which only we
        may read."""
        with open_private(log) as output:
            child = await asyncio.to_thread(
                subprocess.Popen,
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
                env=dict(env),
                cwd=cwd,
            )
        return cls(child.pid, child)

    def working_directory(self) -> Path | None:
        """None when it is gone, or not ours to look at."""
        return self._link("cwd")

    def executable(self) -> Path | None:
        """None as for `working_directory`."""
        return self._link("exe")

    def _link(self, name: str) -> Path | None:
        try:
            return Path(f"/proc/{self.pid}/{name}").readlink()
        except OSError:
            return None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that is gone already is no error."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    async def wait(self) -> int | None:
        """Until the process has ended. Its exit status if it was our child, else None."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._fd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._fd)
        return None if self._child is None else self._child.wait()

    async def stop(self, signals: Sequence[signal.Signals], *, seconds_each: float) -> None:
        """Send one signal after the other, each when the one before had no effect in time, and at last SIGKILL."""
        for number in (*signals, signal.SIGKILL):
            self.send(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds_each):
                    await self.wait()
                return
        raise TimeoutError(f"process {self.pid} survives SIGKILL")

    def close(self) -> None:
        """Stop watching; the process goes on."""
        os.close(self._fd)
        if self._child is not None and self._child.returncode is None:
            # It is left running on purpose; without this Popen warns when it is collected.
            self._child.returncode = 0
