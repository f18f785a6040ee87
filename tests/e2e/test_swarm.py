"""Turns whose workers are services of a Swarm: the server here, the spawner a program of its own, the Swarm on an engine of its own."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.test_files import Calls
from support.containers import socket_for, spawner_process
from support.fake_anthropic import FakeAnthropic, fake_anthropic, say, use
from support.git_server import GitServer
from support.nursery import Nursery
from support.swarm import HOST, containers_of_slot, no_services_left, services_of, swarm_settings
from support.treadle import (
    Client,
    Killable,
    branch_of,
    connected,
    error_info,
    events_of,
    in_process,
    kinds,
    pushed_files,
    recording,
    settings_for,
    workers,
)
from support.workers import eventually

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

pytestmark = pytest.mark.timeout(300)

KEY = "sk-ant-canary-7f3a9Q9vL2xYw8end"
JOB = recording(
    {"say": "hello"},
    {"run": "id -u > who; ls -A /run/secrets > secrets; cat /run/secrets/* > read; true"},
    {"write": "made.txt", "content": "made\n"},
    {"edit": "README.md", "old": "App", "new": "Application"},
)


@pytest.fixture
def provider() -> str:
    return "replay"


@pytest.fixture
def limits() -> dict[str, Any]:
    """Settings of the spawner."""
    return {}


@pytest.fixture
async def settings(
    database: DatabaseUrls,
    server_data_dir: Path,
    git_server: GitServer,
    provider: str,
    changes: dict[str, Any],
    limits: dict[str, Any],
    tmp_path: Path,
) -> AsyncIterator[Settings]:
    """For a server beside a spawner that runs."""
    server_data_dir.mkdir(mode=0o700)
    spawner = swarm_settings(server_data_dir, provider, **limits)
    with no_services_left(spawner.slots_dir):
        async with spawner_process(spawner, tmp_path / "spawner.log"):
            given = {"launcher": "swarm", "spawner_socket": socket_for(server_data_dir)}
            yield settings_for(database, server_data_dir, git_server, **given, **changes)


@pytest.fixture
async def treadle(settings: Settings) -> AsyncIterator[tuple[Any, Client]]:
    async with in_process(settings) as both:
        yield both


@pytest.fixture
def bare(git_server: GitServer) -> Path:
    long = [step for number in range(40) for step in ({"say": f"step {number}"}, {"wait_ms": 50})]
    stuck = [{"write": "partial.txt", "content": "so far\n"}, {"run": "echo up; sleep 1000.625"}]
    files = {"README.md": "# App\n", "job.jsonl": JOB, "long.jsonl": recording(*long, {"write": "x", "content": "x\n"})}
    return git_server.create("acme/app", files | {"stuck.jsonl": recording(*stuck)})


def ask(git_server: GitServer, model: str = "job.jsonl") -> dict[str, str]:
    return {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": model}


async def test_a_whole_turn_in_a_swarm(client: Client, bare: Path, git_server: GitServer, server_data_dir: Path) -> None:
    events = await client.run(**ask(git_server))
    end = events[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), end
    told = workers(events)
    assert {(each.launcher, each.sandboxed) for each in told} == {("swarm", True)}
    assert [each.phase for each in told][-1] == event_pb2.WORKER_PHASE_EXITED
    files = pushed_files(bare, branch_of(events))
    assert (files["README.md"], files["made.txt"], files["who"]) == ("# Application", "made", "10001")
    assert (files["secrets"], files["read"]) == ("treadle", ""), "the carrier's key is root's"
    assert await client.log(events[0].session_id) == events
    await eventually(lambda: not services_of(server_data_dir / "workers"), limit=30)
    await eventually(lambda: not list((server_data_dir / "workers").glob("[0-9a-f]*")), limit=30)


async def test_cancel_stops_the_container_and_publishes(client: Client, bare: Path, git_server: GitServer, server_data_dir: Path) -> None:
    stream = client.execute(**ask(git_server, "stuck.jsonl"))
    events: list[event_pb2.Event] = []
    slots: list[str] = []
    cancelled = 0.0
    async for frame in stream:
        events += frame.events.events
        if not cancelled and any(each.HasField("content_delta") and "up" in each.content_delta.data for each in events):
            slots = [path.name for path in (server_data_dir / "workers").glob("[0-9a-f]*")]
            assert containers_of_slot(slots[0])
            await _its_files_are_elsewhere(Calls(client, events[0].session_id))
            cancelled = time.monotonic()
            await client.call("Interrupt", pb.InterruptRequest(session_id=events[0].session_id))
    await eventually(lambda: not [each for each in containers_of_slot(slots[0]) if each.status == "running"], limit=10)
    assert time.monotonic() - cancelled < 10
    end = events[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_INTERRUPTED, True), end
    assert pushed_files(bare, branch_of(events))["partial.txt"] == "so far"


async def _its_files_are_elsewhere(files: Calls) -> None:
    """On the machine of the container; what was committed can be had."""
    for ask in (files("ListFiles"), files.read("README.md"), files.write("a.txt", "a\n")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask
        assert error_info(refused.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "WORKSPACE_ELSEWHERE")
    assert await files.read("README.md", at="head") == b"# App\n"


async def test_the_next_server_goes_on_with_the_same_service(settings: Settings, bare: Path, git_server: GitServer, tmp_path: Path) -> None:
    killable = Killable(settings, tmp_path / "server.log")
    await killable.start(kill_at="journal.append.after", nth=3)
    asked = ask(git_server, "long.jsonl") | {"request_id": "1"}
    async with connected(killable.address, killable.key) as client:
        with pytest.raises(grpc.aio.AioRpcError):
            await events_of(client.execute(**asked))
    assert await killable.wait_killed() == -9
    before = [service.id for service in services_of(settings.slots_dir)]
    await killable.start()
    try:
        async with connected(killable.address, killable.key) as client:
            events = await events_of(client.execute(**asked))
            events = await client.log(events[0].session_id)
    finally:
        await killable.stop()
    assert len(before) == 1
    assert events[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED, events[-1]
    assert [each.phase for each in workers(events)] == [
        event_pb2.WORKER_PHASE_STARTING,
        event_pb2.WORKER_PHASE_READY,
        event_pb2.WORKER_PHASE_ADOPTED,
        event_pb2.WORKER_PHASE_EXITED,
    ]


def make_room(service: str) -> None:
    command = ["docker", "--host", HOST, "service", "update", "--quiet", "--detach", "--reserve-memory", "16m", service]
    subprocess.run(command, check=True, capture_output=True)


class TestNoRoom:
    """Workers that want more memory than any machine has, until somebody asks for less of it."""

    @pytest.fixture
    def limits(self) -> dict[str, Any]:
        return {"worker_memory_mib": 1 << 20, "worker_reserved_mib": 1 << 20}

    async def test_a_turn_waits_for_room_and_begins_when_there_is_some(
        self, settings: Settings, bare: Path, git_server: GitServer, tmp_path: Path, nursery: Nursery
    ) -> None:
        """The server that waits with it is killed meanwhile; the next one waits on, for the same service."""
        killable = Killable(settings, tmp_path / "server.log", nursery=nursery)
        asked = ask(git_server) | {"request_id": "1"}
        await killable.start()
        try:
            async with connected(killable.address, killable.key) as client:
                with pytest.raises(grpc.aio.AioRpcError):
                    async for frame in client.execute(**asked):
                        if any(each.phase == event_pb2.WORKER_PHASE_WAITING for each in workers(frame.events.events)):
                            await killable.stop(kill=True)
            (service,) = services_of(settings.slots_dir)
            await killable.start()
            async with connected(killable.address, killable.key) as client:
                events: list[event_pb2.Event] = []
                async for frame in client.execute(**asked):
                    events += frame.events.events
                    if [each.phase for each in workers(events)][-1:] == [event_pb2.WORKER_PHASE_WAITING]:
                        assert [each.id for each in services_of(settings.slots_dir)] == [service.id]
                        if len(workers(events)) == 3:
                            await asyncio.to_thread(make_room, service.id)
        finally:
            await killable.stop()
        assert events[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED, events[-1]
        assert [each.phase for each in workers(events)] == [
            event_pb2.WORKER_PHASE_STARTING,
            event_pb2.WORKER_PHASE_WAITING,
            event_pb2.WORKER_PHASE_WAITING,
            event_pb2.WORKER_PHASE_READY,
            event_pb2.WORKER_PHASE_EXITED,
        ]
        assert pushed_files(bare, branch_of(events))["made.txt"] == "made"

    @pytest.mark.parametrize("changes", [{"turn_timeout_seconds": 1.0}])
    async def test_a_turn_waits_for_room_no_longer_than_it_may_take(self, client: Client, bare: Path, git_server: GitServer) -> None:
        end = (await client.run(**ask(git_server)))[-1].turn_completed
        assert (end.status, end.code) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_LAUNCH), end
        assert "insufficient resources" in end.message

    async def test_a_turn_that_waits_for_room_can_be_stopped(
        self, client: Client, bare: Path, git_server: GitServer, server_data_dir: Path
    ) -> None:
        events: list[event_pb2.Event] = []
        async for frame in client.execute(**ask(git_server)):
            events += frame.events.events
            if any(each.phase == event_pb2.WORKER_PHASE_WAITING for each in workers(frame.events.events)):
                assert services_of(server_data_dir / "workers")
                await client.call("Interrupt", pb.InterruptRequest(session_id=events[0].session_id))
        assert events[-1].turn_completed.status == event_pb2.TURN_STATUS_INTERRUPTED, events[-1]
        await eventually(lambda: not services_of(server_data_dir / "workers"), limit=30)


class TestModels:
    """An agent that needs its door to models."""

    @pytest.fixture
    def provider(self) -> str:
        return "anthropic"

    @pytest.fixture
    async def fake(self) -> AsyncIterator[FakeAnthropic]:
        async with fake_anthropic() as opened:
            yield opened

    @pytest.fixture
    def changes(self, fake: FakeAnthropic) -> dict[str, Any]:
        return {"anthropic_url": fake.url, "anthropic_api_key": KEY, "naming": False}

    async def test_the_agent_reaches_its_model(self, client: Client, bare: Path, git_server: GitServer, fake: FakeAnthropic) -> None:
        job = fake.plays("job", [use("write", file_path="by-model.txt", content="made\n")], [say("Done.")])
        events = await client.run(repository_url=f"{git_server.url}/acme/app.git", prompt=job, provider="anthropic")
        assert events[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED, events[-1]
        assert "usage_updated" in kinds(events)
        assert pushed_files(bare, branch_of(events))["by-model.txt"] == "made"
