"""Launcher `process`: workers as processes on this machine, behind bubblewrap."""

from __future__ import annotations

import asyncio
import compileall
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from server.adapters import installed
from server.config import Settings
from server.kernel.errors import LaunchFailed, WorkerLost
from server.kernel.ports.launcher import Assignment, Capability, WorkerExit, WorkerId, WorkerSpec
from server.sandbox.bubblewrap import SCRATCH_BYTES, SCRATCH_FILES, Sandbox
from server.sandbox.calls import program
from server.sandbox.mount import Mount
from server.sandbox.probe import Unavailable, probe
from server.sandbox.runtime import python_mounts
from server.setting_forms import SOCKET_BYTES
from server.workers import shim
from server.workers.inside import ENVIRONMENT, MODELS, RUN, WORKSPACE, configuration
from server.workers.liveness import ProcessWatch
from server.workers.local import POLL_SECONDS, LocalLauncher, prepare_root
from server.workers.slot import EGRESS_SOCKET_NAME, MODEL_SOCKET_NAME, SOCKET_NAME, Slot, slot_of
from server.workers.sweep import sweep

_KILL_SECONDS = 10.0
_MAX_PROCESSES = 1024
_BUNDLED_RECORDING = re.compile(r"[a-z0-9-]*")
# -I: neither the workspace, which is the current directory, nor the environment adds to where modules come from.
_WORKER = [sys.executable, "-I", "-B", "-m", "worker"]


class ProcessLauncher(LocalLauncher):
    """See the port Launcher."""

    def __init__(self, settings: Settings, wall: Sandbox | Unavailable) -> None:
        super().__init__(settings.slots_dir, start_seconds=settings.worker_start_seconds)
        self._owner = (wall.uid, wall.gid) if isinstance(wall, Sandbox) else (os.geteuid(), os.getegid())
        self._orphan_seconds = settings.worker_orphan_seconds
        self._unsandboxed = settings.unsandboxed
        self._memory = settings.worker_memory_mib * 1024 * 1024
        self._wall = wall
        self.capability = _capability(wall, unsandboxed=settings.unsandboxed)

    async def collect(self, worker: WorkerId) -> WorkerExit:
        """See Launcher."""
        slot = slot_of(self._root, worker)
        if not slot.path.is_dir():
            return WorkerExit(code=None)
        while True:
            process = slot.process()
            if process is not None:
                await _end(ProcessWatch(*process))
            # Closing the slot also stops a shim that was started by a server that died, and did not come to work yet.
            if await asyncio.to_thread(slot.close):
                exit_ = slot.exit() or WorkerExit(code=None)
                if process is not None and exit_.code is None:
                    await asyncio.to_thread(sweep, slot, *process)
                return exit_
            await asyncio.sleep(POLL_SECONDS)

    async def remove(self, worker: WorkerId) -> None:
        """See Launcher."""
        await self.collect(worker)
        await asyncio.to_thread(slot_of(self._root, worker).delete)

    def admit(self, assignment: Assignment) -> None:
        """Errors: LaunchFailed when this agent may not run here."""
        if isinstance(self._wall, Sandbox) or self._unsandboxed:
            return
        if assignment.provider != "replay" or not _BUNDLED_RECORDING.fullmatch(assignment.model):
            raise LaunchFailed(f"only the bundled recordings of replay may run without a sandbox: {self._wall.reason}; {self._wall.remedy}")

    async def _prepare(self, slot: Slot, spec: WorkerSpec) -> None:
        await asyncio.to_thread(slot.make)

    def _user(self, slot: Slot) -> tuple[int, int]:
        return self._owner

    async def _seal(self, slot: Slot) -> None:
        if os.geteuid() == 0:
            os.chown(slot.run, 0, 0, follow_symlinks=False)
            slot.run.chmod(0o755)

    async def _started(self, slot: Slot, worker: WorkerId) -> bool:
        if slot.was_started:
            if slot.process() is None:
                raise WorkerLost(f"worker {worker} ended with this machine")
            return False
        self._start(slot)
        return True

    async def _watch(self, slot: Slot) -> ProcessWatch:
        # A shim of another server may be the one that writes it: there is nothing to wait on but the file.
        while (process := slot.process()) is None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        return ProcessWatch(*process)

    def _start(self, slot: Slot) -> None:
        """Start the slot's shim in a session of its own. It outlives this server, and does nothing if another one was faster."""
        reading, writing = os.pipe()
        null = os.open(os.devnull, os.O_WRONLY)
        command = [sys.executable, "-I", "-S", shim.__file__]
        actions = [(os.POSIX_SPAWN_DUP2, reading, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
        try:
            os.posix_spawn(command[0], command, {}, file_actions=actions, setsid=True)
            # Fits into the pipe, which holds 64 KiB.
            os.write(writing, json.dumps(self._job(slot)).encode())
        except OSError as error:
            raise LaunchFailed(f"no process can be started: {error}") from error
        finally:
            for descriptor in (reading, writing, null):
                os.close(descriptor)

    def _job(self, slot: Slot) -> dict[str, object]:
        kept = {"slot": str(slot.path), "memory": self._memory, "files": SCRATCH_FILES}
        if not isinstance(self._wall, Sandbox):
            config = configuration(orphan_seconds=self._orphan_seconds, max_processes=0)
            config["workspace"] = str(slot.workspace)
            # Relative to the workspace: a socket's path has at most 107 bytes, and the slot may be deep down.
            config["socket"] = str(Path("..", slot.run.name, SOCKET_NAME))
            # Short enough also with the longer name of the socket beside it.
            config["models"] = str(Path(_short(slot.models / EGRESS_SOCKET_NAME)).with_name(MODEL_SOCKET_NAME))
            env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(slot.run), **ENVIRONMENT}
            return {"argv": _WORKER, "env": env, "owner": None, "config": config, "calls": "", "scratch": [], **kept}
        mounts = [
            *python_mounts("worker", "carrier", "treadle"),
            Mount(slot.workspace, WORKSPACE, writable=True),
            Mount(slot.run, RUN, writable=True),
            Mount(slot.models, MODELS),
        ]
        argv = self._wall.wrap(_WORKER, mounts=mounts, env=ENVIRONMENT, cwd=str(WORKSPACE), calls=shim.CALLS)
        config = configuration(orphan_seconds=self._orphan_seconds, max_processes=_process_limit())
        owner = [self._wall.uid, self._wall.gid]
        walls = {"calls": program().hex(), "scratch": [*SCRATCH_BYTES]}
        return {"argv": argv, "env": {}, "owner": owner, "config": config, **walls, **kept}


@asynccontextmanager
async def open_process_launcher(settings: Settings) -> AsyncIterator[ProcessLauncher]:
    """The entry point `process`. Workers are left alone when it closes: the next server finds them."""
    wall = await asyncio.to_thread(probe)
    await asyncio.to_thread(prepare_root, settings.slots_dir)
    await asyncio.to_thread(_compile)
    yield ProcessLauncher(settings, wall)


def _compile() -> None:
    """Workers cannot write there themselves, and would compile their own source at every start."""
    for mount in python_mounts("worker", "carrier", "treadle"):
        if mount.source.name in ("worker", "treadle"):
            compileall.compile_dir(mount.source, quiet=2)


def _capability(wall: Sandbox | Unavailable, *, unsandboxed: bool) -> Capability:
    agents = installed("provider")
    if isinstance(wall, Sandbox):
        detail = f"bubblewrap ({wall.bwrap}), no network, uid {wall.uid}; probed by running it"
        return Capability("process", sandboxed=True, detail=detail, providers=agents)
    allowed = "every agent runs" if unsandboxed else "only bundled recordings of replay run"
    return Capability("process", sandboxed=False, detail=f"{wall.reason}; {allowed}", providers=agents, remedy=wall.remedy)


def _short(socket: Path) -> str:
    """The path, or where it is too long for a socket's address, the same seen from the workspace, which is the current directory."""
    path = str(socket.absolute())
    return path if len(os.fsencode(path)) <= SOCKET_BYTES else str(Path("..", socket.parent.name, socket.name))


def _process_limit() -> int:
    """Processes and threads inside one sandbox. Before Linux 5.14 the kernel counts a user's over all namespaces: then no limit."""
    major, minor = (int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    return _MAX_PROCESSES if (major, minor) >= (5, 14) else 0


async def _end(watch: ProcessWatch) -> None:
    """Have the shim kill everything and wait for its end; the shim itself is killed when it does not do its work."""
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            watch.signal(number)
            try:
                async with asyncio.timeout(_KILL_SECONDS):
                    await watch.ended()
            except TimeoutError:
                continue
            return
    finally:
        watch.close()
