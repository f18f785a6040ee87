"""The spawner, as its launcher talks to it: also one that is just being started again, or whose engine is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog
from prometheus_client import Gauge

from server import telemetry
from server.config import WorkerSettings
from server.kernel.errors import LaunchFailed, WorkerLost
from server.kernel.ports.launcher import Occupied, WorkerSpec
from server.workers import spawner_key
from treadle.spawner.v1 import spawner_service_pb2 as wire
from treadle.spawner.v1 import spawner_service_pb2_grpc as stubs

_PATIENCE_SECONDS = 60.0
"""For a spawner or an engine that is away: longer than either takes to be started again."""
_PAUSE_SECONDS = 0.2
_LOOK_SECONDS, _LOOK_AGAIN_SECONDS = 15.0, 1.0
"""It is looked so often whether the spawner answers, and so often while it does not."""
_ANSWER_SECONDS = 10.0
_OPTIONS: dict[str, Any] = {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_retries": 0,
    "grpc.initial_reconnect_backoff_ms": 50,
    # Also how long a connection may take at least.
    "grpc.min_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 500,
}
_BY_TCP: dict[str, Any] = {"grpc.ssl_target_name_override": spawner_key.SPAWNER, "grpc.min_reconnect_backoff_ms": 5000}
_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})

log = structlog.get_logger()


class SpawnerClient:
    """One connection. Close it."""

    def __init__(self, settings: WorkerSettings, *, silence_seconds: float = spawner_key.SILENCE_SECONDS) -> None:
        """`silence_seconds`: a spawner on another machine that says nothing for so long is called anew. Errors: KeyUnfit."""
        self.answers = True
        """Whether it did when it was looked last."""
        self._where = settings.spawner_tcp or str(settings.spawner_address)
        if settings.spawner_tcp:
            options = _OPTIONS | _BY_TCP | spawner_key.keepalive(silence_seconds)
            credentials = spawner_key.of_server(settings.spawner_key)
            self._channel = grpc.aio.secure_channel(settings.spawner_tcp, credentials, options=[*options.items()])
        else:
            self._channel = grpc.aio.insecure_channel(f"unix:{settings.spawner_address.absolute()}", options=[*_OPTIONS.items()])
        self._stub = stubs.SpawnerServiceStub(self._channel)

    async def describe(self, *, seconds: float) -> wire.DescribeResponse:
        """What is made there. Errors: TimeoutError."""
        answer: wire.DescribeResponse = await self._answer(self._stub.Describe, wire.DescribeRequest(), seconds)
        return answer

    @asynccontextmanager
    async def watched(self, launcher: str) -> AsyncIterator[None]:
        """For the time of the context, it is looked whether the spawner answers."""
        up = telemetry.SPAWNER_UP.labels(launcher)
        up.set(self.answers)
        watching = asyncio.create_task(self._watch(up), name="watch on the spawner")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _watch(self, up: Gauge) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS if self.answers else _LOOK_AGAIN_SECONDS)
            why = ""
            try:
                await self.describe(seconds=_ANSWER_SECONDS)
            except (TimeoutError, grpc.aio.AioRpcError) as error:
                why = str(error)
            if self.answers is bool(why):
                self.answers = not why
                up.set(self.answers)
                if why:
                    log.error("spawner.away", spawner=self._where, error=why)
                else:
                    log.info("spawner.back", spawner=self._where)

    async def prepare(self, slot: str, waiting: Sequence[str] = (), *, seconds: float) -> str:
        """Have a slot made, or its name given to one in which a worker waits; returns which. Errors: LaunchFailed."""
        answer: wire.PrepareResponse = await self._launching(
            self._stub.Prepare, wire.PrepareRequest(slot=slot, waiting=waiting), "make room for", seconds
        )
        return answer.taken

    async def start(
        self, slot: str, spec: WorkerSpec, *, furnished: bool, unused: bool = False, seconds: float, carrier: bytes = b""
    ) -> wire.StartResponse:
        """Have the slot's container made and started, once (where it is `unused`, again if need be), and the workspace given to it where
        that is complete; in a Swarm, with what its carrier is told. Errors: LaunchFailed."""
        labels = wire.WorkerLabels(
            session_id=spec.session_id, turn_id=spec.worker.turn_id, attempt=spec.worker.attempt, tenant_id=spec.tenant_id
        )
        request = wire.StartRequest(slot=slot, provider=spec.provider, labels=labels, furnished=furnished, unused=unused, carrier=carrier)
        answer: wire.StartResponse = await self._launching(self._stub.Start, request, "start", seconds)
        return answer

    async def seal(self, slot: str) -> None:
        """The worker can put nothing else in the place of its socket any more. Errors: WorkerLost when that cannot be done now."""
        await self._must(self._stub.Seal, wire.SealRequest(slot=slot), "seal")

    async def occupied(self, slot: str) -> Occupied:
        """What its workspace takes of the disk; nothing where nobody can tell."""
        try:
            answer: wire.OccupiedResponse = await self._stub.Occupied(wire.OccupiedRequest(slot=slot), timeout=_PATIENCE_SECONDS)
        except grpc.aio.AioRpcError:
            return Occupied(0, 0)
        return Occupied(answer.bytes, answer.files, counted=not answer.uncounted)

    async def ended(self, slot: str) -> wire.WorkerEnd:
        """Wait until the slot's container has ended, and that is recorded; however long the spawner is away."""
        while True:
            try:
                answer: wire.WaitResponse = await self._stub.Wait(wire.WaitRequest(slot=slot), wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                if error.code() in _AWAY:
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                return wire.WorkerEnd()
            return answer.end

    async def kill(self, slot: str) -> wire.WorkerEnd:
        """End the slot's container, and wait until that is recorded. Errors: WorkerLost when that cannot be done now."""
        answer = await self._must(self._stub.Kill, wire.KillRequest(slot=slot), "end")
        return answer.end if answer else wire.WorkerEnd()

    async def remove(self, slot: str) -> None:
        """Delete the slot and its container. Errors: WorkerLost when that cannot be done now."""
        await self._must(self._stub.Remove, wire.RemoveRequest(slot=slot), "remove")

    async def close(self) -> None:
        """Hang up; containers go on."""
        await self._channel.close(None)

    async def _launching(self, call: Callable[..., Any], request: Any, what: str, seconds: float) -> Any:
        try:
            return await self._answer(call, request, seconds)
        except grpc.aio.AioRpcError as error:
            raise LaunchFailed(error.details() or error.code().name) from error
        except TimeoutError as error:
            raise LaunchFailed(f"the spawner at {self._where} did not {what} the worker within {seconds:g} s: {error}") from error

    async def _must(self, call: Callable[..., Any], request: Any, what: str) -> Any:
        """None when there is no such slot."""
        try:
            return await self._answer(call, request, _PATIENCE_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise WorkerLost(f"the spawner cannot {what} a worker: {error.details()}") from error
            return None
        except TimeoutError as error:
            raise WorkerLost(f"the spawner at {self._where} does not answer, so a worker may still be there: {error}") from error

    async def _answer(self, call: Callable[..., Any], request: Any, seconds: float) -> Any:
        """The calls are repeatable. Errors: TimeoutError, which tells the last reason; AioRpcError."""
        said = "nobody listens there"
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return await call(request, wait_for_ready=True)
                    except grpc.aio.AioRpcError as error:
                        if error.code() not in _AWAY:
                            raise
                        said = error.details() or said
                    await asyncio.sleep(_PAUSE_SECONDS)
        except TimeoutError:
            raise TimeoutError(said) from None


class ContainerWatch:
    """See Watch. Asks the spawner, since the container's processes may not be visible from here."""

    def __init__(self, spawner: SpawnerClient, slot: str) -> None:
        self._waiting: asyncio.Task[wire.WorkerEnd] = asyncio.create_task(spawner.ended(slot), name=f"watch on {slot}")
        self._ended = asyncio.Event()
        self._waiting.add_done_callback(self._tell)

    @property
    def alive(self) -> bool:
        """See Watch."""
        return not self._ended.is_set()

    async def ended(self) -> None:
        """See Watch."""
        await self._ended.wait()

    def close(self) -> None:
        """See Watch."""
        self._waiting.cancel()

    def _tell(self, waiting: asyncio.Task[wire.WorkerEnd]) -> None:
        if not waiting.cancelled():
            # An error is a spawner that does not know what a server of this version asks: then nobody could tell of an end.
            waiting.exception()
            self._ended.set()
