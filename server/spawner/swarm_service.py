"""SpawnerService over gRPC, for a Swarm: requests in, services out."""

from __future__ import annotations

from typing import NoReturn

import grpc

from server.spawner.readiness import Ready
from server.spawner.service import Context, answered, labels_of, told
from server.spawner.settings import SpawnerSettings
from server.spawner.swarm import Birth, End, Services
from treadle.spawner.v1 import spawner_service_pb2 as wire
from treadle.spawner.v1.spawner_service_pb2_grpc import SpawnerServiceServicer

_OUTCOMES = {
    Birth.NOW: wire.START_OUTCOME_STARTED,
    Birth.RUNNING: wire.START_OUTCOME_RUNNING,
    Birth.ENDED: wire.START_OUTCOME_ENDED,
    Birth.NO_ROOM: wire.START_OUTCOME_NO_ROOM,
}


class SwarmSpawnerService(SpawnerServiceServicer):
    """Translates, and decides nothing."""

    def __init__(self, services: Services, ready: Ready, settings: SpawnerSettings) -> None:
        self._services = services
        self._ready = ready
        self._settings = settings

    async def Describe(self, request: wire.DescribeRequest, context: Context) -> wire.DescribeResponse:  # noqa: N802
        """What is made here."""
        return wire.DescribeResponse(
            providers=self._ready.providers,
            detail=self._ready.detail,
            worker_seconds=self._settings.worker_seconds,
            carried=True,
        )

    async def Start(self, request: wire.StartRequest, context: Context) -> wire.StartResponse:  # noqa: N802
        """Once for each slot."""
        starting = self._services.start(request.slot, request.provider, labels_of(request.labels), request.carrier)
        birth, told = await answered(context, starting)
        where = {"reason": told} if birth is Birth.NO_ROOM else {"address": told}
        return wire.StartResponse(outcome=_OUTCOMES[birth], **where)

    async def Prepare(self, request: wire.PrepareRequest, context: Context) -> wire.PrepareResponse:  # noqa: N802
        """Slots are the servers'."""
        return await _unknown(context)

    async def Seal(self, request: wire.SealRequest, context: Context) -> wire.SealResponse:  # noqa: N802
        """As Prepare."""
        return await _unknown(context)

    async def Occupied(self, request: wire.OccupiedRequest, context: Context) -> wire.OccupiedResponse:  # noqa: N802
        """Carriers tell."""
        return await _unknown(context)

    async def Wait(self, request: wire.WaitRequest, context: Context) -> wire.WaitResponse:  # noqa: N802
        """To its end."""
        return wire.WaitResponse(end=_end(await answered(context, self._services.wait(request.slot))))

    async def Kill(self, request: wire.KillRequest, context: Context) -> wire.KillResponse:  # noqa: N802
        """Now."""
        return wire.KillResponse(end=_end(await answered(context, self._services.kill(request.slot))))

    async def Remove(self, request: wire.RemoveRequest, context: Context) -> wire.RemoveResponse:  # noqa: N802
        """For good: with a service goes all that it had."""
        await answered(context, self._services.kill(request.slot))
        return wire.RemoveResponse()

    async def List(self, request: wire.ListRequest, context: Context) -> wire.ListResponse:  # noqa: N802
        """All of them."""
        return wire.ListResponse(containers=[told(each) for each in await answered(context, self._services.list())])


async def _unknown(context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "a spawner of a Swarm has no slots")
    raise AssertionError("abort raises")


def _end(end: End) -> wire.WorkerEnd:
    return wire.WorkerEnd(code=end.code, message=end.message)
