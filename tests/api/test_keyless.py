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

from server.api.keyless import MAX_REFLECTIONS, MAX_WATCHERS
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


async def test_watchers_are_bounded_and_hear_of_the_end(treadle: tuple[Any, Client]) -> None:
    server, client = treadle
    health = HealthStub(client.channel)
    watchers = [health.Watch(HealthCheckRequest(service=SERVICE.full_name)) for _ in range(MAX_WATCHERS)]
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
    request = ServerReflectionRequest(list_services="")
    calls = [reflection.ServerReflectionInfo() for _ in range(MAX_REFLECTIONS)]
    for call in calls:
        await call.write(request)
        assert SERVICE.full_name in [service.name for service in (await call.read()).list_services_response.service]
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
