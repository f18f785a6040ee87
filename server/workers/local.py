"""What launchers of this machine have in common: slots, doors to models and to the network, and the way to a worker's socket."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from pathlib import Path

import grpc

from server.kernel.errors import LaunchFailed, WorkerLost
from server.kernel.ports.launcher import Assignment, EgressDoor, ModelDoor, WorkerExit, WorkerId, WorkerSpec
from server.workers.client import WorkerLink
from server.workers.dial import dial
from server.workers.disk import occupied
from server.workers.liveness import Watch
from server.workers.slot import EGRESS_SOCKET_NAME, MODEL_SOCKET_NAME, Slot, delete_remains, slot_of, slots

POLL_SECONDS = 0.005


class LocalLauncher(ABC):
    """See the port Launcher. What is left to each: how a worker is started, watched and ended."""

    def __init__(self, root: Path, *, start_seconds: float, owner: tuple[int, int]) -> None:
        """`owner`: the uid and gid that workers have, as seen from here."""
        self._root = root
        self._start_seconds = start_seconds
        self._owner = owner

    async def workspace(self, spec: WorkerSpec) -> Path:
        """See Launcher."""
        slot = slot_of(self._root, spec.worker)
        await asyncio.to_thread(slot.prepare, spec)
        return slot.workspace

    async def furnished(self, worker: WorkerId) -> None:
        """See Launcher."""
        await asyncio.to_thread(slot_of(self._root, worker).furnish)

    async def left(self, worker: WorkerId) -> Path:
        """See Launcher."""
        return self._furnished(worker).workspace

    async def models(self, worker: WorkerId) -> ModelDoor:
        """See Launcher."""
        slot = self._furnished(worker)
        await asyncio.to_thread(slot.prepare_models)
        return ModelDoor(slot.models / MODEL_SOCKET_NAME, await asyncio.to_thread(slot.model_token), self._door_owner)

    async def egress(self, worker: WorkerId) -> EgressDoor:
        """See Launcher."""
        slot = self._furnished(worker)
        await asyncio.to_thread(slot.prepare_models)
        return EgressDoor(slot.models / EGRESS_SOCKET_NAME, self._door_owner)

    async def launch(self, worker: WorkerId) -> WorkerLink:
        """See Launcher."""
        slot = self._furnished(worker)
        if slot.exit() is not None:
            raise WorkerLost(f"worker {worker} has ended")
        fresh = await self._started(slot, worker)
        try:
            async with asyncio.timeout(self._start_seconds):
                return await self._connect(slot, worker)
        except WorkerLost as lost:
            if fresh:
                raise LaunchFailed(lost.message) from lost
            raise
        except TimeoutError:
            raise LaunchFailed(f"the worker did not answer within {self._start_seconds:g} s: {slot.log_tail()[-500:]}") from None

    @abstractmethod
    async def collect(self, worker: WorkerId) -> WorkerExit:
        """See Launcher."""

    async def remove(self, worker: WorkerId) -> None:
        """See Launcher."""
        await self.collect(worker)
        await asyncio.to_thread(slot_of(self._root, worker).delete)

    async def occupied(self, worker: WorkerId) -> int:
        """See Launcher."""
        return await occupied(slot_of(self._root, worker).workspace)

    async def leftovers(self) -> list[WorkerId]:
        """See Launcher."""
        found = await asyncio.to_thread(lambda: [slot.worker() for slot in slots(self._root)])
        return [worker for worker in found if worker is not None]

    @abstractmethod
    def admit(self, assignment: Assignment) -> None:
        """Errors: LaunchFailed when this agent may not run here."""

    @abstractmethod
    async def _started(self, slot: Slot, worker: WorkerId) -> bool:
        """Start the worker unless that happened before; whether it was this call. Errors: LaunchFailed, WorkerLost when it is gone."""

    @abstractmethod
    async def _watch(self, slot: Slot) -> Watch:
        """The watch on a worker that was started. Wait with a limit."""

    async def _connect(self, slot: Slot, worker: WorkerId) -> WorkerLink:
        watch = await self._watch(slot)
        owners = frozenset({self._owner[0]})
        try:
            secret = await asyncio.to_thread(slot.secret)
            while watch.alive:
                try:
                    connection = await dial(slot.socket, secret, owners)
                except (FileNotFoundError, grpc.aio.AioRpcError):
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                _seal(slot)
                return WorkerLink(slot, watch, connection, owners=owners, admit=self.admit)
            raise WorkerLost(f"worker {worker} ended before it answered: {slot.log_tail()[-500:]}")
        except BaseException:
            watch.close()
            raise

    @property
    def _door_owner(self) -> tuple[int, int] | None:
        # An agent may have the server's own uid.
        return self._owner if self._owner[0] != os.geteuid() else None

    def _furnished(self, worker: WorkerId) -> Slot:
        slot = slot_of(self._root, worker)
        if not slot.is_furnished:
            raise WorkerLost(f"worker {worker} and its workspace are not on this machine")
        return slot


def prepare_root(root: Path) -> None:
    """Make the directory of the slots, and finish what a server that was killed had begun to delete."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    delete_remains(root)


def _seal(slot: Slot) -> None:
    """From here on, nobody but root can put something else in the place of the socket."""
    if os.geteuid() == 0:
        os.chown(slot.run, 0, 0, follow_symlinks=False)
        slot.run.chmod(0o755)
