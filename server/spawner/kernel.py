"""What the kernel says of a container, where this process can see its processes: at once, and also while the engine is away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from server.spawner.engine import State

_PROC = Path("/proc")


class FirstProcess:
    """A container's first process, by pidfd: when it has ended so have all others of its pid namespace, and nobody writes there any more.
    Close it; it closes itself at the end."""

    def __init__(self, pidfd: int, counter: Path | None, ended: Callable[[], None]) -> None:
        """`counter`: the file in which the kernel counts what it killed of the container for the lack of memory."""
        self._pidfd = pidfd
        self._counter = counter
        self._tell = ended
        self._over = asyncio.Event()
        self.starved: bool | None = None
        """Whether anything in it was killed for the lack of memory; None where the kernel did not say, or is not asked yet."""
        asyncio.get_running_loop().add_reader(pidfd, self._end)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return not self._over.is_set()

    async def ended(self) -> None:
        """Wait for its end."""
        await self._over.wait()

    def kill(self) -> bool:
        """End all of the container's processes; False where this user may not."""
        self.look()
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass  # the end is about to be told
            except PermissionError:
                return False
        return True

    def look(self) -> None:
        """Read the counter, which goes with the container."""
        if self._counter is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                counts = dict(line.split()[:2] for line in self._counter.read_text().splitlines())
                self.starved = int(counts["oom_kill"]) > 0 if "oom_kill" in counts else None

    def close(self) -> None:
        """Stop watching. Repeatable."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _end(self) -> None:
        # First: the engine deletes the container's control groups when it has learnt of the end, a moment after us.
        self.look()
        self.close()
        self._over.set()
        self._tell()


def first_process(state: State, ended: Callable[[], None]) -> FirstProcess | None:
    """Of a container that runs. None where it cannot be seen from here (another pid namespace, a virtual machine), or is gone."""
    if not state.running or state.pid <= 0 or not state.id:
        return None
    try:
        pidfd = os.pidfd_open(state.pid)
    except OSError:
        return None
    # The number may be another process's by now, or mean another one here: its control group names the container. Looked at while it is
    # held, so that it cannot change any more.
    groups = _groups(state.pid)
    if not any(state.id in path for path in groups.values()):
        os.close(pidfd)
        return None
    return FirstProcess(pidfd, _counter(groups), ended)


def _groups(pid: int) -> dict[str, str]:
    """Control groups of a process, by controller; version 2 has the name ''."""
    found = {}
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                found[controller] = path
    return found


def _counter(groups: dict[str, str]) -> Path | None:
    """Where the kernel counts kills for the lack of memory, if it can be seen from here."""
    for controller, kind, name in (("memory", "cgroup", "memory.oom_control"), ("", "cgroup2", "memory.events")):
        if (group := groups.get(controller)) is None:
            continue
        for root, mounted in _mounts(kind, controller):
            inside = group if root == "/" else group.removeprefix(root) if group.startswith(root + "/") else None
            if inside is not None and (file := Path(mounted + inside) / name).exists():
                return file
    return None


def _mounts(kind: str, controller: str) -> list[tuple[str, str]]:
    """(what of the hierarchy is mounted, where) of control groups of this kind with this controller."""
    found = []
    with contextlib.suppress(OSError):
        for line in (_PROC / "self" / "mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            fields, (type_, _, options, *_) = before.split(), after.split()
            if type_ == kind and (not controller or controller in options.split(",")):
                found.append((fields[3], fields[4]))
    return found
