"""Launcher `docker`: a sealed container for each worker, made by the spawner, which alone speaks to the engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from server.config import Settings
from server.kernel.errors import WorkerLost
from server.kernel.ports.launcher import Assignment, Capability, WorkerExit, WorkerId, WorkerSpec
from server.refusal import StartRefused
from server.workers.liveness import Watch
from server.workers.local import LocalLauncher, prepare_root
from server.workers.pool import Pool
from server.workers.slot import Slot, slot_of
from server.workers.spawner import ContainerWatch, SpawnerClient
from treadle.spawner.v1 import spawner_service_pb2 as wire

_DESCRIBE_SECONDS = 10.0


class SpawnerUnfit(StartRefused):
    """There is no spawner, or not the one that the settings need; the message says what to do."""


class DockerLauncher(LocalLauncher):
    """See the port Launcher."""

    def __init__(self, settings: Settings, spawner: SpawnerClient, found: wire.DescribeResponse) -> None:
        super().__init__(settings.slots_dir, start_seconds=settings.worker_start_seconds, owner=(found.uid, found.gid))
        self._spawner = spawner
        self.pool = Pool(
            self._root,
            spawner,
            settings.pool_sizes,
            owner=found.uid,
            start_seconds=settings.worker_start_seconds,
            orphan_seconds=settings.worker_orphan_seconds,
            worker_seconds=found.worker_seconds,
        )
        self.capability = Capability("docker", sandboxed=True, detail=found.detail, providers=tuple(found.providers))

    async def workspace(self, spec: WorkerSpec) -> Path:
        """See Launcher. Where a worker waits, it is built around it."""
        slot = slot_of(self._root, spec.worker)
        if not slot.path.exists():
            await self.pool.claim(spec, slot)
        return await super().workspace(spec)

    async def collect(self, worker: WorkerId) -> WorkerExit:
        """See Launcher."""
        slot = slot_of(self._root, worker)
        if not slot.path.is_dir():
            return WorkerExit(code=None)
        await self._spawner.kill(slot.path.name)
        return await asyncio.to_thread(slot.exit) or WorkerExit(code=None)

    async def remove(self, worker: WorkerId) -> None:
        """See Launcher."""
        await self.collect(worker)
        # Before the slot: by its files a container is found again.
        slot = slot_of(self._root, worker)
        await self._spawner.remove(slot.path.name)
        await asyncio.to_thread(slot.delete)

    def admit(self, assignment: Assignment) -> None:
        """Any: the container is the wall, and its image holds the one agent that it was made for."""

    async def _started(self, slot: Slot, worker: WorkerId) -> bool:
        spec = await asyncio.to_thread(slot.spec)
        if spec is None or not spec.provider:
            raise WorkerLost(f"what worker {worker} is for is not known; it was prepared by an earlier version")
        outcome = await self._spawner.start(slot.path.name, spec, seconds=self._start_seconds)
        if outcome == wire.START_OUTCOME_ENDED:
            raise WorkerLost(f"worker {worker} has ended")
        return outcome == wire.START_OUTCOME_STARTED

    async def _watch(self, slot: Slot) -> Watch:
        return ContainerWatch(self._spawner, slot.path.name)


@asynccontextmanager
async def open_docker_launcher(settings: Settings) -> AsyncIterator[DockerLauncher]:
    """The entry point `docker`. Workers are left alone when it closes: the next server finds them. Errors: SpawnerUnfit."""
    await asyncio.to_thread(prepare_root, settings.slots_dir)
    spawner = SpawnerClient(settings.spawner_address)
    try:
        launcher = DockerLauncher(settings, spawner, await _described(spawner, settings))
        keeping = asyncio.create_task(launcher.pool.keep(), name="pool of workers")
        try:
            yield launcher
        finally:
            keeping.cancel()
            # The next server ends what this one could not.
            with suppress(asyncio.CancelledError, TimeoutError, WorkerLost):
                await keeping
    finally:
        await spawner.close()


async def _described(spawner: SpawnerClient, settings: Settings) -> wire.DescribeResponse:
    socket = settings.spawner_address
    if socket.exists() and not os.access(socket, os.R_OK | os.W_OK):
        raise SpawnerUnfit(
            f"the spawner's socket {socket} may not be used by this user; run the server and the spawner both as root, or both "
            "as one user in the group docker"
        )
    try:
        found = await spawner.describe(seconds=_DESCRIBE_SECONDS)
    except TimeoutError as error:
        raise SpawnerUnfit(
            f"no spawner answers at {socket} ({error}); start `python -m server.spawner` beside the server, as the same user (root, or one "
            "in the group docker), with the same TREADLE_DATA_DIR, TREADLE_WORKER_ROOT and TREADLE_SPAWNER_SOCKET"
        ) from None
    wanted = {"TREADLE_DEFAULT_PROVIDER": [settings.default_provider] * bool(settings.default_provider)}
    wanted["TREADLE_WORKER_POOL"] = [*settings.pool_sizes]
    for setting, providers in wanted.items():
        for provider in providers:
            if provider not in found.providers:
                there = ", ".join(found.providers)
                raise SpawnerUnfit(f"{setting}: the spawner has no image for {provider!r}; it has: {there} (`make images`)")
    return found
