"""Launcher `swarm`: each worker a service of a Docker Swarm, on whatever machine, behind a carrier.

The workspace is built here and travels there, and what the worker left travels back; in between this machine's slot has the same sockets
as that of a worker of this machine, so nobody else sees a difference. Besides slot.py, a slot has:

carrier     certificates and keys of this turn (JSON)
address     where the carrier listens
given       the workspace has gone there; from then on it is not here
returned    it is here again, as the worker left it
lost        it will not come back
incoming/   what is on its way back
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import structlog

from carrier import words
from carrier.joined import cut
from carrier.tree import BadTree, Limits
from server.config import Settings
from server.door_socket import BACKLOG, bound
from server.kernel.errors import LaunchFailed, NoRoom, WorkerLost
from server.kernel.ports.launcher import Assignment, Capability, Occupied, WorkerExit, WorkerId, WorkerSpec
from server.sandbox.bubblewrap import SANDBOX_ID
from server.sandbox.calls import program as calls_of
from server.workers.carriage import PORT, Carrier, CarrierAway, in_own_thread
from server.workers.credentials import Credentials, kept_credentials, new_credentials
from server.workers.disk import LIMIT_SECONDS
from server.workers.docker import SpawnerUnfit, described
from server.workers.inside import configuration
from server.workers.liveness import Watch
from server.workers.local import LocalLauncher, prepare_root
from server.workers.slot import EGRESS_SOCKET_NAME, MODEL_SOCKET_NAME, Slot, delete_tree, slot_of
from server.workers.spawner import SpawnerClient
from treadle.spawner.v1 import spawner_service_pb2 as wire

_MIB = 1024 * 1024
_MOST_ENTRIES = 5_000_000
_UNLIMITED_BYTES = 1 << 40
_RETRY_SECONDS, _AGAIN_SECONDS = 0.1, 1.0
_AWAY_SECONDS = 120.0
"""A carrier that runs and does not answer for so long will not any more."""
_TAKES, _TAKE_PAUSE_SECONDS = 8, 5.0
"""So often it is fetched what a worker left, where the carrier answers and the tree breaks off, or there is no room for it here."""
_BRING_SECONDS = 3600.0
"""After so long it is not tried again."""
_LOOKS = 5
"""So many looks at the disk in a row that fail are one at a disk that nobody can count."""
_MORE = 2
_MORE_BYTES, _MORE_FILES = 4 << 30, 1_000_000
"""What is fetched may be so many times as large as it may become, and that: the agent was stopped when it had become too large, and
what it did until then is wanted."""

log = structlog.get_logger()


class SwarmLauncher(LocalLauncher):
    """See the port Launcher."""

    def __init__(self, settings: Settings, spawner: SpawnerClient, found: wire.DescribeResponse) -> None:
        super().__init__(settings.slots_dir, start_seconds=settings.worker_start_seconds)
        self._spawner = spawner
        self._bringing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._carriers: WeakValueDictionary[str, Carrier] = WeakValueDictionary()
        self._orphan_seconds = settings.worker_orphan_seconds
        most, files = settings.worker_disk_mib * _MIB, settings.worker_files
        self._limits = Limits(
            most * _MORE + _MORE_BYTES if most else _UNLIMITED_BYTES, files * _MORE + _MORE_FILES if files else _MOST_ENTRIES
        )
        self._failed_looks: dict[str, int] = {}
        self.capability = Capability("swarm", sandboxed=True, detail=found.detail, providers=tuple(found.providers))

    @property
    def available(self) -> bool:
        """See Launcher."""
        return self._spawner.answers

    async def live(self, worker: WorkerId) -> Path:
        """See Launcher."""
        raise WorkerLost(f"the workspace of worker {worker} is on its machine")

    async def left(self, worker: WorkerId) -> Path:
        """See Launcher."""
        slot = self._furnished(worker)
        if _has(slot, "lost") or (_has(slot, "given") and not _has(slot, "returned")):
            raise WorkerLost(f"what worker {worker} left was not fetched from its machine")
        return await super().left(worker)

    async def collect(self, worker: WorkerId) -> WorkerExit:
        """See Launcher."""
        slot = slot_of(self._root, worker)
        if not slot.path.is_dir():
            return WorkerExit(code=None)
        # Whoever stops a turn and whoever loses its worker may both come here.
        lock = self._bringing.setdefault(slot.path.name, asyncio.Lock())
        async with lock:
            if _has(slot, "given") and not (_has(slot, "returned") or _has(slot, "lost")):
                await self._bring_back(slot)
        end = await self._spawner.kill(slot.path.name)
        await asyncio.to_thread(slot.record, _exit_of(end))
        return slot.exit() or WorkerExit(code=None)

    async def remove(self, worker: WorkerId) -> None:
        """See Launcher."""
        slot = slot_of(self._root, worker)
        # Nobody wants any more what it left.
        await self._spawner.kill(slot.path.name)
        await self._spawner.remove(slot.path.name)
        self._failed_looks.pop(slot.path.name, None)
        await in_own_thread(slot.delete)

    async def occupied(self, worker: WorkerId) -> Occupied:
        """See Launcher."""
        slot = slot_of(self._root, worker)
        if not _has(slot, "given") or _has(slot, "returned"):
            return await super().occupied(worker)
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                found = await (await self._carrier(slot)).ask("occupied", seconds=None)
            took = Occupied(int(found["bytes"]), int(found["files"]))
        except TimeoutError:
            return Occupied(0, 0, counted=False)
        except (CarrierAway, words.Unclear, KeyError, ValueError, TypeError, OverflowError, OSError) as error:
            if not await self._is_there(slot):
                # That is noticed by others.
                return Occupied(0, 0)
            # It cannot count: somebody may keep it from that.
            failed = self._failed_looks[slot.path.name] = self._failed_looks.get(slot.path.name, 0) + 1
            log.warning("disk.not_counted", slot=slot.path.name, error=str(error), failed=failed)
            return Occupied(0, 0, counted=failed < _LOOKS)
        self._failed_looks.pop(slot.path.name, None)
        return took

    async def _is_there(self, slot: Slot) -> bool:
        with suppress(CarrierAway, words.Unclear, OSError):
            return (await (await self._carrier(slot)).ask("state")).get("phase") == words.RUNNING
        return False

    def admit(self, assignment: Assignment) -> None:
        """Any: the container is the wall, and its image holds the one agent that it was made for."""

    async def _prepare(self, slot: Slot, spec: WorkerSpec) -> None:
        await asyncio.to_thread(slot.make)

    def _user(self, slot: Slot) -> tuple[int, int]:
        # Everything in the slot is this server's own, the worker's socket, too.
        return os.geteuid(), os.getegid()

    async def _seal(self, slot: Slot) -> None:
        """Nobody else gets there."""

    async def _started(self, slot: Slot, worker: WorkerId) -> bool:
        spec = await asyncio.to_thread(slot.spec)
        if spec is None or not spec.provider:
            raise WorkerLost(f"what worker {worker} is for is not known")
        credentials = await asyncio.to_thread(_credentials_of, slot)
        told = credentials.told(port=PORT, orphan_seconds=self._orphan_seconds)
        answer = await self._spawner.start(slot.path.name, spec, furnished=True, seconds=self._start_seconds, carrier=told)
        if answer.outcome == wire.START_OUTCOME_ENDED:
            raise WorkerLost(f"worker {worker} has ended")
        if answer.outcome == wire.START_OUTCOME_NO_ROOM:
            raise NoRoom(answer.reason)
        await asyncio.to_thread(slot.create, "address", answer.address)
        try:
            return await self._under_way(slot, worker)
        except (CarrierAway, words.Unclear) as error:
            raise LaunchFailed(f"the worker's carrier does not do its part: {error}") from error

    async def _under_way(self, slot: Slot, worker: WorkerId) -> bool:
        carrier = await self._carrier(slot)
        # Before looking: another server may be doing the same.
        given = _has(slot, "given")
        found = await self._patiently(carrier)
        phase = found["phase"]
        if phase == words.EMPTY:
            if given:
                raise WorkerLost(f"worker {worker} ended, and another is in its place")
            try:
                await carrier.fill(slot.workspace)
            except words.Unclear:
                if (phase := (await carrier.ask("state"))["phase"]) == words.EMPTY:
                    raise
        await asyncio.to_thread(slot.create, "given", "")
        if phase not in {words.EMPTY, words.FULL}:
            return False
        line = configuration(orphan_seconds=self._orphan_seconds, max_processes=0) | {"secret": slot.secret().hex()}
        # A Swarm has the engine's own filter of system calls only, which lets workers out by AF_VSOCK.
        calls = base64.b64encode(calls_of(str(found["machine"]))).decode()
        if not calls:
            raise LaunchFailed(f"the worker's machine is {found['machine']}, for which there is no filter of system calls")
        await carrier.ask("start", line=line, calls=calls)
        return True

    async def _patiently(self, carrier: Carrier) -> dict[str, object]:
        """It has just been started. Errors: CarrierAway."""
        deadline = time.monotonic() + self._start_seconds
        while True:
            try:
                return await carrier.ask("state")
            except CarrierAway:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

    async def _watch(self, slot: Slot) -> Watch:
        watch = CarrierWatch(self._spawner, await self._carrier(slot), slot)
        try:
            await watch.open()
        except BaseException:
            watch.close()
            raise
        return watch

    async def _bring_back(self, slot: Slot) -> None:
        """The end of the worker, and what it left. Where that is not to be had any more, it says so in the slot."""
        carrier = await self._carrier(slot)
        ended = asyncio.create_task(self._spawner.ended(slot.path.name))
        begun = answered = time.monotonic()
        takes, taken, pause = 0, 0, _RETRY_SECONDS
        why = ""
        try:
            while True:
                try:
                    end = await self._stopped(carrier)
                    answered, takes = time.monotonic(), takes + 1
                    await asyncio.to_thread(slot.record, end)
                    await self._take(slot, carrier)
                except (words.Unclear, BadTree) as error:
                    why = f"what it hands out is no tree: {error}"
                    break
                except (CarrierAway, OSError) as error:
                    if takes > taken:
                        # A large workspace may have been on its way for long.
                        answered, taken = time.monotonic(), takes
                    why = str(error)
                else:
                    # The Swarm would take its time. Where it does not hear it, the service is removed all the same.
                    with suppress(CarrierAway, words.Unclear):
                        await carrier.ask("leave")
                    return
                # A spawner that cannot tell has not said that it has ended.
                known = ended.done() and ended.exception() is None
                now = time.monotonic()
                if known or takes >= _TAKES or now - answered > _AWAY_SECONDS or now - begun > _BRING_SECONDS:
                    break
                await asyncio.sleep(pause)
                pause = min(pause * 2, _TAKE_PAUSE_SECONDS)
        finally:
            ended.cancel()
        log.error("workspace.lost", slot=slot.path.name, error=why)
        await asyncio.to_thread(slot.create, "lost", why)

    async def _stopped(self, carrier: Carrier) -> WorkerExit:
        """How it ended, as far as that can be understood. Errors: CarrierAway."""
        try:
            return _exit_told(await carrier.ask("stop"))
        except words.Unclear as error:
            # What it left is worth more. If it has not stopped, it hands out nothing.
            log.warning("worker.end_not_understood", error=str(error))
            return WorkerExit(code=None)

    async def _take(self, slot: Slot, carrier: Carrier) -> None:
        incoming, outgoing = slot.path / "incoming", slot.path / "outgoing"

        def cleared() -> None:
            for path in (incoming, outgoing):
                if path.exists():
                    delete_tree(path)

        def swapped() -> None:
            if slot.workspace.exists():
                slot.workspace.rename(outgoing)
            incoming.rename(slot.workspace)
            slot.create("returned", "")
            if outgoing.exists():
                delete_tree(outgoing)

        await in_own_thread(cleared)
        incoming.mkdir(mode=0o700)
        # As from every other worker: what reads it back does not do so as root.
        owner = (SANDBOX_ID, SANDBOX_ID) if os.geteuid() == 0 else None
        await carrier.take(incoming, self._limits, owner)
        await in_own_thread(swapped)

    async def _carrier(self, slot: Slot) -> Carrier:
        """The one that is in use; by the watch, while there is a worker. Errors: OSError when there is no such slot."""
        name = slot.path.name
        carrier = self._carriers.get(name)
        if carrier is None:
            made = await asyncio.to_thread(lambda: Carrier((slot.path / "address").read_text(), _credentials_of(slot)))
            carrier = self._carriers.setdefault(name, made)
        return carrier


class CarrierWatch:
    """See Watch. Hears of the worker's end from its carrier, of the container's from the spawner; passes on connections meanwhile."""

    def __init__(self, spawner: SpawnerClient, carrier: Carrier, slot: Slot) -> None:
        self._spawner = spawner
        self._carrier = carrier
        self._slot = slot
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = ExitStack()

    @property
    def alive(self) -> bool:
        """See Watch."""
        return not self._ended.is_set()

    async def ended(self) -> None:
        """See Watch."""
        await self._ended.wait()

    async def open(self) -> None:
        """From now on the slot has the worker's socket. Errors: OSError."""
        listener = self._listening.enter_context(bound(self._slot.socket, None))
        self._listening.callback(listener.close)
        server = await asyncio.start_unix_server(self._connected, sock=listener, backlog=BACKLOG)
        self._listening.callback(server.close)
        for name in (MODEL_SOCKET_NAME, EGRESS_SOCKET_NAME):
            self._begin(self._carrier.hold_door(name, self._slot.models / name))
        self._begin(self._hear_of_worker())
        self._begin(self._hear_of_container())

    def close(self) -> None:
        """See Watch."""
        self._listening.close()
        for task in self._tasks:
            task.cancel()

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"carrier of {self._slot.path.name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # The worker may be well, but the turn would wait for what does not come.
            log.error("worker.not_watched", slot=self._slot.path.name, exc_info=error)
            self._ended.set()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task that is cancelled before it has begun closes nothing.
        self._begin(self._carrier.pass_on((reader, writer))).add_done_callback(lambda _: cut(writer))

    async def _hear_of_worker(self) -> None:
        while True:
            with suppress(CarrierAway):
                await self._tell(_exit_told(await self._carrier.ask("wait", seconds=None)))
                return
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _hear_of_container(self) -> None:
        await self._tell(_exit_of(await self._spawner.ended(self._slot.path.name)))

    async def _tell(self, exit_: WorkerExit) -> None:
        with suppress(FileNotFoundError):  # its server has deleted the slot meanwhile
            await asyncio.to_thread(self._slot.record, exit_)
        self._ended.set()


@asynccontextmanager
async def open_swarm_launcher(settings: Settings) -> AsyncIterator[SwarmLauncher]:
    """The entry point `swarm`. Workers are left alone when it closes: the next server finds them. Errors: SpawnerUnfit."""
    if settings.pool_sizes:
        raise SpawnerUnfit("TREADLE_WORKER_POOL: no workers wait in a Swarm; it is for launcher docker")
    await asyncio.to_thread(prepare_root, settings.slots_dir)
    spawner = SpawnerClient(settings)
    try:
        launcher = SwarmLauncher(settings, spawner, await described(spawner, settings, carried=True))
        async with spawner.watched(launcher.capability.name):
            yield launcher
    finally:
        await spawner.close()


def _has(slot: Slot, name: str) -> bool:
    return (slot.path / name).exists()


def _credentials_of(slot: Slot) -> Credentials:
    """Of the slot's turn; made when they are asked for first."""
    if not _has(slot, "carrier"):
        slot.create("carrier", new_credentials().kept(), 0o600)
    return kept_credentials((slot.path / "carrier").read_text())


def _exit_told(said: dict[str, object]) -> WorkerExit:
    """By the carrier, whose words are hostile as far as an agent could write them."""
    code, tail = said.get("code"), said.get("log_tail")
    return WorkerExit(
        code if isinstance(code, int) and 0 <= code < 256 else None,
        bool(said.get("oom_killed")),
        # JSON has halves of characters, which no file takes.
        tail.encode(errors="replace").decode() if isinstance(tail, str) else "",
        stopped=bool(said.get("stopped")),
    )


def _exit_of(end: wire.WorkerEnd) -> WorkerExit:
    return WorkerExit(end.code if end.HasField("code") else None, log_tail=end.message)
