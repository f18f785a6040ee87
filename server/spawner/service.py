"""SpawnerService: the calls, as protos/treadle/spawner/v1 specifies them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc
import structlog

from server.spawner.containers import Containers, NoSlot, Refused, Spawned, Started, Unnameable
from server.spawner.engine import EngineError
from server.spawner.readiness import Ready
from server.spawner.settings import SpawnerSettings
from treadle.spawner.v1 import spawner_service_pb2 as wire
from treadle.spawner.v1 import spawner_service_pb2_grpc as stubs

_OUTCOMES = {
    Started.NOW: wire.START_OUTCOME_STARTED,
    Started.RUNNING: wire.START_OUTCOME_RUNNING,
    Started.ENDED: wire.START_OUTCOME_ENDED,
}
_STATUS = {
    Unnameable: grpc.StatusCode.INVALID_ARGUMENT,
    NoSlot: grpc.StatusCode.NOT_FOUND,
    Refused: grpc.StatusCode.FAILED_PRECONDITION,
}

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")

log = structlog.get_logger()


class SpawnerService(stubs.SpawnerServiceServicer):
    """Translates, and decides nothing."""

    def __init__(self, containers: Containers, ready: Ready, settings: SpawnerSettings) -> None:
        self._containers = containers
        self._ready = ready
        self._settings = settings

    async def Describe(self, request: wire.DescribeRequest, context: Context) -> wire.DescribeResponse:  # noqa: N802
        """What is made here."""
        return wire.DescribeResponse(
            providers=self._ready.providers, detail=self._ready.detail, worker_seconds=self._settings.worker_seconds
        )

    async def Prepare(self, request: wire.PrepareRequest, context: Context) -> wire.PrepareResponse:  # noqa: N802
        """A new one, or one that waits."""
        return wire.PrepareResponse(taken=await answered(context, self._containers.prepare(request.slot, request.waiting)))

    async def Start(self, request: wire.StartRequest, context: Context) -> wire.StartResponse:  # noqa: N802
        """Once for each slot."""
        labels = labels_of(request.labels)
        start = self._containers.start(request.slot, request.provider, labels, furnished=request.furnished, unused=request.unused)
        started = await answered(context, start)
        return wire.StartResponse(outcome=_OUTCOMES[started])

    async def Seal(self, request: wire.SealRequest, context: Context) -> wire.SealResponse:  # noqa: N802
        """From now on."""
        await answered(context, self._containers.seal(request.slot))
        return wire.SealResponse()

    async def Occupied(self, request: wire.OccupiedRequest, context: Context) -> wire.OccupiedResponse:  # noqa: N802
        """As it is now."""
        took = await answered(context, self._containers.occupied(request.slot))
        return wire.OccupiedResponse(bytes=took.bytes, files=took.files, uncounted=not took.counted)

    async def Wait(self, request: wire.WaitRequest, context: Context) -> wire.WaitResponse:  # noqa: N802
        """To its end."""
        await answered(context, self._containers.wait(request.slot))
        return wire.WaitResponse()

    async def Kill(self, request: wire.KillRequest, context: Context) -> wire.KillResponse:  # noqa: N802
        """Now."""
        await answered(context, self._containers.kill(request.slot))
        return wire.KillResponse()

    async def Remove(self, request: wire.RemoveRequest, context: Context) -> wire.RemoveResponse:  # noqa: N802
        """For good."""
        await answered(context, self._containers.remove(request.slot))
        return wire.RemoveResponse()

    async def List(self, request: wire.ListRequest, context: Context) -> wire.ListResponse:  # noqa: N802
        """All of them."""
        found = await answered(context, self._containers.list())
        return wire.ListResponse(containers=[told(each) for each in found])


def labels_of(asked: wire.WorkerLabels) -> dict[str, str]:
    """As they are written onto a container."""
    return {"session": asked.session_id, "turn": asked.turn_id, "attempt": str(asked.attempt), "tenant": asked.tenant_id}


def told(each: Spawned) -> wire.SpawnedContainer:
    """As it is answered."""
    labels = wire.WorkerLabels(
        session_id=each.labels.get("treadle.session", ""),
        turn_id=each.labels.get("treadle.turn", ""),
        attempt=int(each.labels.get("treadle.attempt") or 0),
        tenant_id=each.labels.get("treadle.tenant", ""),
    )
    return wire.SpawnedContainer(slot=each.slot, provider=each.provider, labels=labels, running=each.running)


async def answered(context: Context, work: Awaitable[T]) -> T:
    """Its result; what it raises, as a status."""
    try:
        return await work
    except (Unnameable, NoSlot, Refused) as error:
        code, said = _STATUS[type(error)], str(error)
    except OSError as error:
        # A full disk or the like: may be over when it is asked again.
        log.warning("slot.failed", error=str(error))
        code, said = grpc.StatusCode.UNAVAILABLE, f"the spawner cannot use the worker root: {error}"
    except EngineError as error:
        log.warning("engine.failed", error=str(error))
        code, said = grpc.StatusCode.UNAVAILABLE, str(error)
    await context.abort(code, said)
    raise AssertionError("abort raises")
