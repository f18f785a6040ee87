"""Launcher `docker`: a sealed container for each worker, made by the spawner, which alone speaks to the engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from server.config import Settings
from server.kernel.errors import LaunchFailed, WorkerLost
from server.kernel.ports.launcher import Assignment, Capability, Occupied, WorkerExit, WorkerId, WorkerSpec
from server.refusal import StartRefused
from server.workers.client import WorkerLink
from server.workers.liveness import Watch
from server.workers.local import LocalLauncher
from server.workers.pool import Pool
from server.workers.presence import present
from server.workers.slot import Slot, slot_of
from server.workers.spawner import ContainerWatch, SpawnerClient
from treadle.spawner.v1 import spawner_service_pb2 as wire

_DESCRIBE_SECONDS = 10.0
_SAME_ROOT = (
    "it must be the same directory for the server and the spawner, and a spawner that is root must know whose server it works for "
    "(TREADLE_SERVER_USER)"
)


class SpawnerUnfit(StartRefused):
    """There is no spawner, or not the one that the settings need; the message says what to do."""


class DockerLauncher(LocalLauncher):
    """See the port Launcher."""

    def __init__(self, settings: Settings, spawner: SpawnerClient, found: wire.DescribeResponse) -> None:
        super().__init__(settings.slots_dir, start_seconds=settings.worker_start_seconds)
        self._spawner = spawner
        self.pool = Pool(
            self._root,
            spawner,
            settings.pool_sizes,
            refill_seconds=settings.worker_pool_refill_seconds,
            start_seconds=settings.worker_start_seconds,
            orphan_seconds=settings.worker_orphan_seconds,
            worker_seconds=found.worker_seconds,
        )
        self.capability = Capability("docker", sandboxed=True, detail=found.detail, providers=tuple(found.providers))

    @property
    def available(self) -> bool:
        """See Launcher."""
        return self._spawner.answers

    async def launch(self, worker: WorkerId) -> WorkerLink:
        """See Launcher. One that had waited, and ends before it hears of its turn, is no loss: another one is started."""
        slot = slot_of(self._root, worker)
        try:
            link = await super().launch(worker)
        except WorkerLost:
            if not slot.is_ready or slot.exit() is None:
                raise
            link = await super().launch(worker)
        await asyncio.to_thread(slot.used)
        return link

    async def collect(self, worker: WorkerId) -> WorkerExit:
        """See Launcher."""
        slot = slot_of(self._root, worker)
        if not slot.path.is_dir():
            return WorkerExit(code=None)
        await self._spawner.kill(slot.path.name)
        return await asyncio.to_thread(slot.exit) or WorkerExit(code=None)

    async def remove(self, worker: WorkerId) -> None:
        """See Launcher."""
        await self._spawner.remove(slot_of(self._root, worker).path.name)

    async def occupied(self, worker: WorkerId) -> Occupied:
        """See Launcher."""
        slot = slot_of(self._root, worker)
        # What is the worker's another user cannot look into.
        if (user := slot.user()) is not None and os.geteuid() not in (0, user[0]):
            return await self._spawner.occupied(slot.path.name)
        return await super().occupied(worker)

    def admit(self, assignment: Assignment) -> None:
        """Any: the container is the wall, and its image holds the one agent that it was made for."""

    async def _prepare(self, slot: Slot, spec: WorkerSpec) -> None:
        if not slot.path.is_dir():
            await self.pool.prepare(slot, spec.provider)
            if not slot.path.is_dir():
                raise LaunchFailed(f"the spawner has made a slot that is not seen in {self._root}: {_SAME_ROOT}")

    def _user(self, slot: Slot) -> tuple[int, int]:
        user = slot.user()
        if user is None:
            raise WorkerLost(f"slot {slot.path.name} is gone, or was made by an earlier version")
        return user

    async def _seal(self, slot: Slot) -> None:
        # Of one that waited, the spawner has done it with the start.
        if slot.run.stat().st_uid == self._user(slot)[0] != os.geteuid():
            await self._spawner.seal(slot.path.name)

    async def _started(self, slot: Slot, worker: WorkerId) -> bool:
        spec = await asyncio.to_thread(slot.spec)
        if spec is None or not spec.provider:
            raise WorkerLost(f"what worker {worker} is for is not known; it was prepared by an earlier version")
        answer = await self._spawner.start(slot.path.name, spec, furnished=True, unused=slot.is_ready, seconds=self._start_seconds)
        outcome = answer.outcome
        if outcome == wire.START_OUTCOME_ENDED:
            raise WorkerLost(f"worker {worker} has ended")
        return outcome == wire.START_OUTCOME_STARTED

    async def _watch(self, slot: Slot) -> Watch:
        return ContainerWatch(self._spawner, slot.path.name)


@asynccontextmanager
async def open_docker_launcher(settings: Settings) -> AsyncIterator[DockerLauncher]:
    """The entry point `docker`. Workers are left alone when it closes: the next server finds them. Errors: SpawnerUnfit."""
    spawner = SpawnerClient(settings)
    try:
        launcher = DockerLauncher(settings, spawner, await described(spawner, settings))
        keeping = asyncio.create_task(launcher.pool.keep(), name="pool of workers")
        try:
            async with spawner.watched(launcher.capability.name):
                with present(settings.spawner_address):
                    yield launcher
        finally:
            keeping.cancel()
            # Not awaited itself: a cancel of ours would look like its.
            await asyncio.wait({keeping})
            # The next server ends what this one could not.
            with suppress(asyncio.CancelledError, TimeoutError, WorkerLost):
                keeping.result()
    finally:
        await spawner.close()


async def described(spawner: SpawnerClient, settings: Settings, *, carried: bool = False) -> wire.DescribeResponse:
    """What the spawner makes: here, or in a Swarm. Errors: SpawnerUnfit."""
    socket = settings.spawner_tcp or settings.spawner_address
    if isinstance(socket, Path) and os.access(socket, os.F_OK) and not os.access(socket, os.R_OK | os.W_OK):
        raise SpawnerUnfit(
            f"the spawner's socket {socket} may not be used by this user (uid {os.geteuid()}); it is for the spawner's own, or for "
            "TREADLE_SERVER_USER in the environment of a spawner that is root"
        )
    try:
        found = await spawner.describe(seconds=_DESCRIBE_SECONDS)
    except TimeoutError as error:
        raise SpawnerUnfit(
            f"no spawner answers at {socket} ({error}); start `python -m server.spawner` "
            + (
                "on a manager of the Swarm, with the TREADLE_SPAWNER_KEY that belongs to this one"
                if settings.spawner_tcp
                else "beside the server, as root or as the same user, who is in the group docker then, with the same TREADLE_DATA_DIR, "
                "TREADLE_WORKER_ROOT and TREADLE_SPAWNER_SOCKET"
            )
        ) from None
    if found.carried != carried:
        raise SpawnerUnfit(
            f"TREADLE_LAUNCHER is {settings.launcher!r}, and the spawner at {socket} makes workers of another kind; its "
            f"TREADLE_SPAWNER_KIND must be {settings.launcher!r}, too"
        )
    if not carried and not os.access(settings.slots_dir, os.R_OK | os.X_OK):
        raise SpawnerUnfit(f"TREADLE_WORKER_ROOT: this user (uid {os.geteuid()}) sees no {settings.slots_dir}: {_SAME_ROOT}")
    wanted = {"TREADLE_DEFAULT_PROVIDER": [settings.default_provider] * bool(settings.default_provider)}
    wanted["TREADLE_WORKER_POOL"] = [*settings.pool_sizes]
    for setting, providers in wanted.items():
        for provider in providers:
            if provider not in found.providers:
                there = ", ".join(found.providers)
                raise SpawnerUnfit(f"{setting}: the spawner has no image for {provider!r}; it has: {there} (`make images`)")
    return found
