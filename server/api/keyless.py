"""What is served without an API key: health and reflection. Their streams are bounded, in all and for each client: each costs memory, for
nobody we know."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha._async import ReflectionServicer

from server.api.edge import Context
from server.api.status import status_of
from server.kernel.errors import TooManyStreams

MAX_WATCHERS, WATCHERS_OF_ONE = 256, 64
MAX_REFLECTIONS, REFLECTIONS_OF_ONE = 64, 16
IDLE_SECONDS = 30.0
"""Who asks nothing for this long has had its reflection."""


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package has no types
    """grpc.health.v1.Health (https://github.com/grpc/grpc/blob/master/doc/health-checking.md): serving, until the server drains.

    Not the one of grpcio-health-checking: there a watcher that does not read holds a lock that draining needs.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services)
        self._draining = asyncio.Event()
        self._room = _Room(MAX_WATCHERS, WATCHERS_OF_ONE)

    def drain(self) -> None:
        """Say no from now on."""
        self._draining.set()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:  # noqa: N802 - gRPC names it
        """NOT_FOUND for a service that is not here."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return self._now(request.service)

    async def Watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[HealthCheckResponse]:  # noqa: N802
        """The status now, and once more when the server drains; then there is nothing more to say, and the stream ends."""
        async with self._room.place(context):
            yield self._now(request.service)
            if not self._draining.is_set():
                await self._draining.wait()
                yield self._now(request.service)

    def _now(self, service: str) -> HealthCheckResponse:
        if service not in self._services:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        return HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING if self._draining.is_set() else HealthCheckResponse.SERVING)


class Reflection(ReflectionServicer):  # type: ignore[misc]  # the package has no types
    """grpc.reflection.v1alpha.ServerReflection."""

    def __init__(self, services: Iterable[str]) -> None:
        super().__init__(services)
        self._room = _Room(MAX_REFLECTIONS, REFLECTIONS_OF_ONE)

    async def ServerReflectionInfo(self, request_iterator: AsyncIterable[Any], context: Context) -> AsyncIterator[Any]:  # noqa: N802
        """An answer to each request, for as long as the client asks."""
        async with self._room.place(context):
            async for answer in super().ServerReflectionInfo(_asked(request_iterator), context):
                yield answer


async def _asked(requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    following = aiter(requests)
    with suppress(TimeoutError, StopAsyncIteration):
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                request = await anext(following)
            yield request


class _Room:
    def __init__(self, limit: int, limit_of_one: int) -> None:
        self._limit = limit
        self._limit_of_one = limit_of_one
        self._taken: Counter[str] = Counter()

    @asynccontextmanager
    async def place(self, context: Context) -> AsyncIterator[None]:
        """For one stream. Without room the call is aborted with TOO_MANY_STREAMS."""
        client = _client(context)
        if self._taken.total() >= self._limit:
            await _refuse(context, TooManyStreams(self._limit))
        if self._taken[client] >= self._limit_of_one:
            await _refuse(context, TooManyStreams(self._limit_of_one, whose="one client's"))
        self._taken[client] += 1
        try:
            yield
        finally:
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]


async def _refuse(context: Context, error: TooManyStreams) -> None:
    code, status = status_of(error)
    await context.abort(code, status.message, trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),))


def _client(context: Context) -> str:
    """The address that a call comes from. What the gateway saw comes last in `x-forwarded-for`; who calls past it can claim what it likes
    there, and still gets no more than there is for all."""
    seen = [value for key, value in context.invocation_metadata() or () if key == "x-forwarded-for" and isinstance(value, str)]
    return seen[-1].rpartition(",")[2].strip() if seen else str(context.peer()).rpartition(":")[0]
