"""What launchers of this machine have in common: slots, doors to models and to the network, and the way to a worker's socket."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from pathlib import Path

import grpc

from server.kernel.errors import LaunchFailed, WorkerLost
from server.kernel.ports.launcher import Assignment, EgressDoor, ModelDoor, Occupied, WorkerExit, WorkerId, WorkerSpec
from server.sandbox.bubblewrap import SANDBOX_ID
from server.workers.client import WorkerLink
from server.workers.dial import dial
from server.workers.disk import occupied
from server.workers.liveness import Watch
from server.workers.shim import give
from server.workers.slot import EGRESS_SOCKET_NAME, MODEL_SOCKET_NAME, Slot, delete_remains, slot_of, slots

POLL_SECONDS = 0.005


class LocalLauncher(ABC):
    """See the port Launcher. What is left to each: how a slot is made, and how a worker is started, watched and ended."""

    def __init__(self, root: Path, *, start_seconds: float) -> None:
        self._root = root
        self._start_seconds = start_seconds

    @property
    def available(self) -> bool:
        """See Launcher."""
        return True

    async def workspace(self, spec: WorkerSpec) -> Path:
        """See Launcher."""
        slot = slot_of(self._root, spec.worker)
        await self._prepare(slot, spec)
        await asyncio.to_thread(slot.describe, spec)
        return slot.workspace

    async def furnished(self, worker: WorkerId) -> None:
        """See Launcher."""
        await asyncio.to_thread(slot_of(self._root, worker).furnish)

    async def left(self, worker: WorkerId) -> Path:
        """See Launcher."""
        slot = self._furnished(worker)
        await asyncio.to_thread(_hand_over, slot.workspace)
        return slot.workspace

    async def live(self, worker: WorkerId) -> Path:
        """See Launcher."""
        return self._furnished(worker).workspace

    async def models(self, worker: WorkerId) -> ModelDoor:
        """See Launcher."""
        slot = self._furnished(worker)
        return ModelDoor(slot.models / MODEL_SOCKET_NAME, await asyncio.to_thread(slot.model_token), self._door_owner(slot))

    async def egress(self, worker: WorkerId) -> EgressDoor:
        """See Launcher."""
        slot = self._furnished(worker)
        return EgressDoor(slot.models / EGRESS_SOCKET_NAME, self._door_owner(slot))

    async def launch(self, worker: WorkerId) -> WorkerLink:
        """See Launcher."""
        slot = self._furnished(worker)
        # One that had only waited is replaced.
        if slot.exit() is not None and not slot.is_ready:
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
            said = await asyncio.to_thread(slot.log_tail)
            raise LaunchFailed(f"the worker did not answer within {self._start_seconds:g} s: {said[-500:]}") from None

    @abstractmethod
    async def collect(self, worker: WorkerId) -> WorkerExit:
        """See Launcher."""

    @abstractmethod
    async def remove(self, worker: WorkerId) -> None:
        """See Launcher."""

    async def occupied(self, worker: WorkerId) -> Occupied:
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
    async def _prepare(self, slot: Slot, spec: WorkerSpec) -> None:
        """Make the slot, if it is not there. Repeatable. Errors: LaunchFailed."""

    @abstractmethod
    def _user(self, slot: Slot) -> tuple[int, int]:
        """Uid and gid of the slot's worker, as seen from here. Errors: WorkerLost."""

    @abstractmethod
    async def _seal(self, slot: Slot) -> None:
        """From here on, the worker can put nothing else in the place of its socket. Errors: WorkerLost."""

    @abstractmethod
    async def _started(self, slot: Slot, worker: WorkerId) -> bool:
        """Start the worker unless that happened before; whether it was this call. Errors: LaunchFailed, WorkerLost when it is gone."""

    @abstractmethod
    async def _watch(self, slot: Slot) -> Watch:
        """The watch on a worker that was started. Wait with a limit."""

    async def _connect(self, slot: Slot, worker: WorkerId) -> WorkerLink:
        watch = await self._watch(slot)
        owners = frozenset({self._user(slot)[0]})
        try:
            secret = await asyncio.to_thread(slot.secret)
            while watch.alive:
                try:
                    connection = await dial(slot.socket, secret, owners)
                except (FileNotFoundError, grpc.aio.AioRpcError):
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                try:
                    await self._seal(slot)
                except BaseException:
                    await connection.close()
                    raise
                return WorkerLink(slot, watch, connection, owners=owners, admit=self.admit)
            said = await asyncio.to_thread(slot.log_tail)
            raise WorkerLost(f"worker {worker} ended before it answered: {said[-500:]}")
        except BaseException:
            watch.close()
            raise

    def _door_owner(self, slot: Slot) -> tuple[int, int] | None:
        # An agent may have the server's own uid.
        user = self._user(slot)
        return user if user[0] != os.geteuid() else None

    def _furnished(self, worker: WorkerId) -> Slot:
        slot = slot_of(self._root, worker)
        if not slot.is_furnished:
            raise WorkerLost(f"worker {worker} and its workspace are not on this machine")
        return slot


def _hand_over(workspace: Path) -> None:
    """One that never had a worker is root's, where the server is; what reads it back is not root, and can read what workers leave."""
    if os.geteuid() == 0 == workspace.stat().st_uid:
        give(str(workspace), SANDBOX_ID, SANDBOX_ID)


def prepare_root(root: Path) -> None:
    """Make the directory of the slots, where it is the server's, and finish what a server that was killed had begun to delete."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    delete_remains(root)
