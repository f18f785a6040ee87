"""Workers that wait for a turn: containers that were started ahead, with their agent's packages loaded."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import grpc
import structlog

from server import telemetry
from server.kernel.errors import LaunchFailed, WorkerLost
from server.kernel.ports.launcher import WorkerId, WorkerSpec
from server.kernel.wakeup import Wakeup
from server.workers.dial import Connection, dial
from server.workers.slot import Slot, slots
from server.workers.spawner import SpawnerClient
from treadle.worker.v1 import worker_service_pb2 as wire

PREFIX = "pool-"
_LOOK_SECONDS = 15.0
_AFTER_FAILURE_SECONDS = 30.0
_POLL_SECONDS = 0.02
_CALL_SECONDS = 5.0
_END_SECONDS = 10.0
_NAMELESS_SECONDS = 60.0

log = structlog.get_logger()


class Pool:
    """Keeps so many workers of each agent ready, each in a slot of its own that belongs to no turn yet.

    A turn takes one by having the spawner rename the slot's directory, which happens once; a container's mounts follow their directories,
    and the spawner finds the container by a file in the slot. A worker serves one turn, and the pool makes another one in its place.
    """

    def __init__(
        self,
        root: Path,
        spawner: SpawnerClient,
        sizes: Mapping[str, int],
        *,
        refill_seconds: float,
        start_seconds: float,
        orphan_seconds: float,
        worker_seconds: float,
    ) -> None:
        """`worker_seconds`: how old a worker may become at all, so that one that waits leaves its turn
        the most of it."""
        self._root = root
        self._spawner = spawner
        self._sizes = sizes
        self._refill_seconds = refill_seconds
        self._start_seconds = start_seconds
        self._look_seconds = min(_LOOK_SECONDS, orphan_seconds / 3)
        self._oldest_seconds = worker_seconds / 4
        self._news = Wakeup()
        self._mine: dict[str, float] = {}
        self._doomed: set[str] = set()
        self._not_before: dict[str, float] = {}
        for provider in sizes:
            telemetry.WORKERS_READY.labels(provider).set(0)

    async def prepare(self, slot: Slot, provider: str) -> None:
        """Make `slot`, which is not there yet, of a ready worker's if there is one. Errors: LaunchFailed."""
        if not self._sizes.get(provider):
            await self._spawner.prepare(slot.path.name, seconds=self._start_seconds)
            return
        ready = await asyncio.to_thread(lambda: [waiting.path.name for waiting in self._waiting(provider) if waiting.is_ready])
        taken = await self._spawner.prepare(slot.path.name, ready, seconds=self._start_seconds)
        self._mine.pop(taken, None)
        telemetry.POOL_CLAIMS.labels(provider, "warm" if taken else "cold").inc()
        self._news.notify()

    async def keep(self) -> None:
        """Replace what was taken, what died and what is too old, until cancelled; then end what waits."""
        try:
            await self._keep()
        finally:
            async with asyncio.timeout(_END_SECONDS):
                for slot in await asyncio.to_thread(self._waiting):
                    await self._discard(slot)
                await self._bury()

    async def _keep(self) -> None:
        left = True
        while True:
            seen = self._news.count
            try:
                if left:
                    # By an earlier server, perhaps of an earlier version. One beside this one makes its own anew.
                    self._doomed |= {slot.path.name for slot in await asyncio.to_thread(self._of_anybody)}
                    left = False
                await self._bury()
                await self._clear()
                await self._fill()
            except Exception:  # a defect of the pool is no turn's: they start cold
                log.exception("pool.broke")
                await asyncio.sleep(_AFTER_FAILURE_SECONDS)
            if await self._news.after(seen, self._look_seconds):
                await asyncio.sleep(self._refill_seconds)

    async def _bury(self) -> None:
        """Remove what was to be removed and could not be, and what was taken for a worker that nobody knows."""
        for name in [*self._doomed, *await asyncio.to_thread(self._nameless)]:
            await self._discard(Slot(self._root / name))

    def _nameless(self) -> list[str]:
        """By a server that was killed between taking a slot and saying for whom, in a turn that never came back for it."""
        found = []
        for slot in slots(self._root):
            if not slot.path.name.startswith(PREFIX) and slot.worker() is None:
                with contextlib.suppress(OSError):
                    old = time.time() - slot.path.stat().st_ctime > _NAMELESS_SECONDS
                    # Else an earlier version has written down for whom, in another way.
                    if old and not any(slot.workspace.iterdir()):
                        found.append(slot.path.name)
        return found

    async def _clear(self) -> None:
        for slot in await asyncio.to_thread(self._waiting):
            if not await self._is_good(slot):
                await self._discard(slot)

    async def _is_good(self, slot: Slot) -> bool:
        made = self._mine.get(slot.path.name, 0.0)
        waits = await asyncio.to_thread(lambda: slot.is_ready and slot.exit() is None)
        if not waits or time.monotonic() - made > self._oldest_seconds:
            return False
        # A worker that hears nobody gives up.
        with contextlib.suppress(OSError, WorkerLost, grpc.aio.AioRpcError):
            connection = await _dialled(slot)
            try:
                await connection.acknowledge(wire.AcknowledgeRequest(), timeout=_CALL_SECONDS, metadata=connection.metadata)
                return True
            finally:
                await connection.close()
        # Taken a moment ago, or gone.
        return not slot.path.exists()

    async def _fill(self) -> None:
        for provider, size in self._sizes.items():
            ready = len(await asyncio.to_thread(self._waiting, provider))
            telemetry.WORKERS_READY.labels(provider).set(ready)
            if time.monotonic() < self._not_before.get(provider, 0.0):
                continue
            doomed = sum(_agent(name) == provider for name in self._doomed)
            try:
                for _ in range(size - ready - doomed):
                    await self._add(provider)
                    telemetry.WORKERS_READY.labels(provider).inc()
            except (LaunchFailed, WorkerLost, OSError) as error:
                # Turns start cold meanwhile, and say themselves what is wrong. What is wrong with one agent's worker is not with another's.
                log.warning("pool.not_filled", provider=provider, error=str(error))
                self._not_before[provider] = time.monotonic() + _AFTER_FAILURE_SECONDS

    async def _add(self, provider: str) -> None:
        slot = Slot(self._root / f"{PREFIX}{provider}-{secrets.token_hex(3)}")
        self._mine[slot.path.name] = time.monotonic()
        try:
            await self._spawner.prepare(slot.path.name, seconds=self._start_seconds)
            nobodys = WorkerSpec(WorkerId("", 0), session_id="", tenant_id="", provider=provider)
            await self._spawner.start(slot.path.name, nobodys, furnished=False, seconds=self._start_seconds)
            async with asyncio.timeout(self._start_seconds):
                await self._answers(slot)
        except BaseException as error:
            await self._discard(slot)
            if isinstance(error, TimeoutError):
                raise LaunchFailed(f"a worker for the pool did not answer within {self._start_seconds:g} s") from error
            raise
        await asyncio.to_thread(slot.ready)

    async def _answers(self, slot: Slot) -> None:
        while True:
            if (ended := await asyncio.to_thread(slot.exit)) is not None:
                raise WorkerLost(f"a worker for the pool ended before it answered: {ended.log_tail[-500:]}")
            try:
                connection = await _dialled(slot)
            except (FileNotFoundError, grpc.aio.AioRpcError):
                await asyncio.sleep(_POLL_SECONDS)
                continue
            await connection.close()
            return

    async def _discard(self, slot: Slot) -> None:
        """Where a turn has taken it meanwhile, nothing of that name is left to be removed. What cannot be removed now is tried again."""
        name = slot.path.name
        self._mine.pop(name, None)
        self._doomed.add(name)
        try:
            await self._spawner.remove(name)
        except WorkerLost as error:
            log.warning("pool.not_removed", slot=name, error=error.message)
        else:
            self._doomed.discard(name)

    def _waiting(self, provider: str = "") -> list[Slot]:
        """This pool's slots, for one agent or for all."""
        mine = [slot for slot in self._of_anybody() if slot.path.name in self._mine]
        return [slot for slot in mine if not provider or _agent(slot.path.name) == provider]

    def _of_anybody(self) -> list[Slot]:
        return [slot for slot in slots(self._root) if slot.path.name.startswith(PREFIX)]


def _agent(name: str) -> str:
    """Of a slot of the pool."""
    return name.removeprefix(PREFIX).rpartition("-")[0]


async def _dialled(slot: Slot) -> Connection:
    """Errors: see dial."""
    user, secret = await asyncio.to_thread(lambda: (slot.user(), slot.secret()))
    if user is None:
        raise FileNotFoundError(slot.path)
    return await dial(slot.socket, secret, {user[0]})
