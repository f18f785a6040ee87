"""What can be asked without an API key, and how much of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.treadle import Client, error_info, in_process, settings_for

from server.api import keyless
from server.api.keyless import MAX_REFLECTIONS, MAX_WATCHERS, REFLECTIONS_OF_ONE, WATCHERS_OF_ONE
from server.api.session_service import SERVICE
from server.embedded.postgres_home import DatabaseUrls

TOO_MANY = (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
Status = HealthCheckResponse.ServingStatus


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        yield server


@pytest.fixture
async def treadle(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer) -> AsyncIterator[tuple[Any, Client]]:
    async with in_process(settings_for(database, server_data_dir, git_server)) as both:
        yield both


def come_from(number: int) -> dict[str, Any]:
    """As the gateway says it, behind what the client claims."""
    return {"metadata": (("x-forwarded-for", f"203.0.113.1, 192.0.2.{number}"),)}


async def test_one_client_leaves_room_for_others(treadle: tuple[Any, Client]) -> None:
    """Also a stranger who holds on to all that it gets."""
    health, reflection = HealthStub(treadle[1].channel), ServerReflectionStub(treadle[1].channel)
    watchers = [health.Watch(HealthCheckRequest(), **come_from(1)) for _ in range(WATCHERS_OF_ONE)]
    assert {(await watcher.read()).status for watcher in watchers} == {Status.SERVING}
    reflections = [await asked(reflection.ServerReflectionInfo(**come_from(1))) for _ in range(REFLECTIONS_OF_ONE)]
    for refused in (health.Watch(HealthCheckRequest(), **come_from(1)), reflection.ServerReflectionInfo(**come_from(1))):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await refused.read()
        assert error_info(caught.value)[:2] == TOO_MANY
    assert (await health.Watch(HealthCheckRequest(), **come_from(2)).read()).status == Status.SERVING
    # Without the gateway, who calls is who has the connection.
    await asked(reflection.ServerReflectionInfo())
    for call in (*watchers, *reflections):
        call.cancel()


async def asked(call: Any) -> Any:
    """A reflection that has given an answer and is held open."""
    await call.write(ServerReflectionRequest(list_services=""))
    assert SERVICE.full_name in [service.name for service in (await call.read()).list_services_response.service]
    return call


async def test_a_reflection_that_is_asked_nothing_more_ends(treadle: tuple[Any, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyless, "IDLE_SECONDS", 0.1)
    call = await asked(ServerReflectionStub(treadle[1].channel).ServerReflectionInfo())
    async with asyncio.timeout(20):
        assert await call.read() == grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_watchers_are_bounded_and_hear_of_the_end(treadle: tuple[Any, Client]) -> None:
    server, client = treadle
    health = HealthStub(client.channel)
    numbers = [number // WATCHERS_OF_ONE for number in range(MAX_WATCHERS)]
    watchers = [health.Watch(HealthCheckRequest(service=SERVICE.full_name), **come_from(number)) for number in numbers]
    assert {(await watcher.read()).status for watcher in watchers} == {Status.SERVING}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Watch(HealthCheckRequest()).read()
    assert error_info(caught.value)[:2] == TOO_MANY
    assert (await health.Check(HealthCheckRequest(service=SERVICE.full_name))).status == Status.SERVING
    watchers.pop().cancel()
    # One that left makes room, as soon as the server has heard of it.
    async with asyncio.timeout(20):
        while True:
            another = health.Watch(HealthCheckRequest(service="no such service"))
            try:
                assert (await another.read()).status == Status.SERVICE_UNKNOWN
                break
            except grpc.aio.AioRpcError as error:
                assert error_info(error)[:2] == TOO_MANY
    async with asyncio.timeout(20):
        await server.api.drain()
        assert {(await watcher.read()).status for watcher in watchers} == {Status.NOT_SERVING}
        assert {await watcher.read() for watcher in watchers} == {grpc.aio.EOF}
    assert (await health.Check(HealthCheckRequest())).status == Status.NOT_SERVING


async def test_reflections_are_bounded(treadle: tuple[Any, Client]) -> None:
    reflection = ServerReflectionStub(treadle[1].channel)
    calls = [await asked(reflection.ServerReflectionInfo(**come_from(number // REFLECTIONS_OF_ONE))) for number in range(MAX_REFLECTIONS)]
    one_more = reflection.ServerReflectionInfo()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await one_more.read()
    assert error_info(caught.value)[:2] == TOO_MANY
    for call in calls:
        call.cancel()


async def test_the_health_of_what_is_not_here_is_not_found(treadle: tuple[Any, Client]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await HealthStub(treadle[1].channel).Check(HealthCheckRequest(service="no such service"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
