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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary

import structlog

from carrier import words
from carrier.joined import Streams, cut
from carrier.tree import BadTree, Limits
from server.config import Settings
from server.door_socket import BACKLOG, bound
from server.kernel.errors import LaunchFailed, WorkerLost
from server.kernel.ports.launcher import Assignment, Capability, Occupied, WorkerExit, WorkerId, WorkerSpec
from server.sandbox.bubblewrap import SANDBOX_ID
from server.sandbox.calls import program as calls_of
from server.workers.carriage import PORT, Carrier, CarrierAway
from server.workers.credentials import kept_credentials, new_credentials
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
_RETRY_SECONDS = 0.1
_AWAY_SECONDS = 120.0
"""A carrier that runs and does not answer for so long will not any more."""
_TAKES, _TAKE_PAUSE_SECONDS = 8, 5.0
"""So often it is fetched what a worker left, where the carrier answers and the tree breaks off, or there is no room for it here."""
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
        self._orphan_seconds = settings.worker_orphan_seconds
        most, files = settings.worker_disk_mib * _MIB, settings.worker_files
        self._limits = Limits(
            most * _MORE + _MORE_BYTES if most else _UNLIMITED_BYTES, files * _MORE + _MORE_FILES if files else _MOST_ENTRIES
        )
        self._failed_looks: dict[str, int] = {}
        self.capability = Capability("swarm", sandboxed=True, detail=found.detail, providers=tuple(found.providers))

    async def left(self, worker: WorkerId) -> Path:
        """See Launcher."""
        slot = self._furnished(worker)
        if _has(slot, "lost") or (_has(slot, "given") and not _has(slot, "returned")):
            raise WorkerLost(f"what worker {worker} left was not fetched from its machine")
        return slot.workspace

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
        await asyncio.to_thread(slot.delete)

    async def occupied(self, worker: WorkerId) -> Occupied:
        """See Launcher."""
        slot = slot_of(self._root, worker)
        if not _has(slot, "given") or _has(slot, "returned"):
            return await super().occupied(worker)
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                found = await self._carrier(slot).ask("occupied", seconds=None)
            took = Occupied(int(found["bytes"]), int(found["files"]))
        except TimeoutError:
            return Occupied(0, 0, counted=False)
        except (CarrierAway, words.Unclear, KeyError, ValueError, TypeError, OSError) as error:
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
            return (await self._carrier(slot).ask("state")).get("phase") == words.RUNNING
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
        if not _has(slot, "carrier"):
            await asyncio.to_thread(lambda: slot.create("carrier", new_credentials().kept(), 0o600))
        credentials = kept_credentials((slot.path / "carrier").read_text())
        told = credentials.told(port=PORT, orphan_seconds=self._orphan_seconds)
        answer = await self._spawner.start(slot.path.name, spec, furnished=True, seconds=self._start_seconds, carrier=told)
        if answer.outcome == wire.START_OUTCOME_ENDED:
            raise WorkerLost(f"worker {worker} has ended")
        await asyncio.to_thread(slot.create, "address", answer.address)
        try:
            return await self._under_way(slot, worker)
        except (CarrierAway, words.Unclear) as error:
            raise LaunchFailed(f"the worker's carrier does not do its part: {error}") from error

    async def _under_way(self, slot: Slot, worker: WorkerId) -> bool:
        carrier = self._carrier(slot)
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
        watch = CarrierWatch(self._spawner, self._carrier(slot), slot)
        try:
            await watch.open()
        except BaseException:
            watch.close()
            raise
        return watch

    async def _bring_back(self, slot: Slot) -> None:
        """The end of the worker, and what it left. Where that is not to be had any more, it says so in the slot."""
        carrier = self._carrier(slot)
        ended = asyncio.create_task(self._spawner.ended(slot.path.name))
        answered, takes, taken, pause = time.monotonic(), 0, 0, _RETRY_SECONDS
        why = ""
        try:
            while True:
                try:
                    end = _exit_told(await carrier.ask("stop"))
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
                if known or takes >= _TAKES or time.monotonic() - answered > _AWAY_SECONDS:
                    break
                await asyncio.sleep(pause)
                pause = min(pause * 2, _TAKE_PAUSE_SECONDS)
        finally:
            ended.cancel()
        log.error("workspace.lost", slot=slot.path.name, error=why)
        await asyncio.to_thread(slot.create, "lost", why)

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

        await asyncio.to_thread(cleared)
        incoming.mkdir(mode=0o700)
        # As from every other worker: what reads it back does not do so as root.
        owner = (SANDBOX_ID, SANDBOX_ID) if os.geteuid() == 0 else None
        await carrier.take(incoming, self._limits, owner)
        await asyncio.to_thread(swapped)

    def _carrier(self, slot: Slot) -> Carrier:
        return Carrier((slot.path / "address").read_text(), kept_credentials((slot.path / "carrier").read_text()))


class CarrierWatch:
    """See Watch. Hears of the worker's end from its carrier, of the container's from the spawner; passes on connections meanwhile."""

    def __init__(self, spawner: SpawnerClient, carrier: Carrier, slot: Slot) -> None:
        self._spawner = spawner
        self._carrier = carrier
        self._slot = slot
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    @property
    def alive(self) -> bool:
        """See Watch."""
        return not self._ended.is_set()

    async def ended(self) -> None:
        """See Watch."""
        await self._ended.wait()

    async def open(self) -> None:
        """From now on the slot has the worker's socket. Errors: OSError."""
        listening = asyncio.Event()
        serving = self._begin(self._listen(listening))
        waiting = asyncio.create_task(listening.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if serving.done():
            serving.result()
        for name in (MODEL_SOCKET_NAME, EGRESS_SOCKET_NAME):
            self._begin(self._carrier.hold_door(name, self._slot.models / name))
        self._begin(self._hear_of_worker())
        self._begin(self._hear_of_container())

    def close(self) -> None:
        """See Watch."""
        for task in self._tasks:
            task.cancel()

    def _begin(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=f"carrier of {self._slot.path.name}")  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _listen(self, listening: asyncio.Event) -> None:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._begin(self._pass_on((reader, writer)))

        with bound(self._slot.socket, None) as listener:
            async with await asyncio.start_unix_server(connected, sock=listener, backlog=BACKLOG):
                listening.set()
                await asyncio.Event().wait()

    async def _pass_on(self, streams: Streams) -> None:
        try:
            await self._carrier.pass_on(streams)
        finally:
            cut(streams[1])

    async def _hear_of_worker(self) -> None:
        while True:
            with suppress(CarrierAway, words.Unclear):
                await self._tell(_exit_told(await self._carrier.ask("wait", seconds=None)))
                return
            await asyncio.sleep(_RETRY_SECONDS)

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
        yield SwarmLauncher(settings, spawner, await described(spawner, settings, carried=True))
    finally:
        await spawner.close()


def _has(slot: Slot, name: str) -> bool:
    return (slot.path / name).exists()


def _exit_told(said: dict[str, object]) -> WorkerExit:
    """By the carrier, whose words are hostile as far as an agent could write them."""
    code, tail = said.get("code"), said.get("log_tail")
    return WorkerExit(
        code if isinstance(code, int) else None,
        bool(said.get("oom_killed")),
        tail if isinstance(tail, str) else "",
        stopped=bool(said.get("stopped")),
    )


def _exit_of(end: wire.WorkerEnd) -> WorkerExit:
    return WorkerExit(end.code if end.HasField("code") else None, log_tail=end.message)
