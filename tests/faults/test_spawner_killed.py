"""`kill -9` of the spawner at each of its own steps in the life of one container: none is doubled, lost or left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.containers import containers_of, no_containers_left, socket_for, spawner_process, spawner_settings
from support.git_server import git_server as serving
from support.treadle import Client, events_of, in_process, pushed_files, recording, settings_for
from support.workers import eventually

from server.embedded.postgres_home import DatabaseUrls
from server.spawner.settings import SpawnerSettings
from server.workers.slot import slots
from treadle.session.v1 import event_pb2

STARTING = ["create.before", "create.after", "hold.before", "hold.after", "start.before", "start.after", "answer.after", "wait.before"]
ENDING = ["kill.before", "kill.after", "record.before", "record.after", "remove.before", "remove.after"]
JOB = recording({"run": "until test -e .git/go; do sleep 0.02; done"}, {"write": "made.txt", "content": "made\n"}, {"say": "done"})
DIED = -9


@dataclass
class World:
    """A server that works, and a spawner that is started and killed."""

    client: Client
    spawner: SpawnerSettings
    url: str
    bare: Path
    log: Path
    seen: set[str] = field(default_factory=set)

    def begun(self) -> asyncio.Task[list[event_pb2.Event]]:
        request = {"repository_url": self.url, "prompt": "go", "provider": "replay", "model": "job.jsonl"}
        return asyncio.create_task(events_of(self.client.execute(**request)))

    async def dies_at(self, point: str) -> None:
        async with spawner_process(self.spawner, self.log, kill_at=point) as process, asyncio.timeout(60):
            assert await process.wait() == DIED, point
        self.seen.update(container.id for container in containers_of(self.spawner.slots_dir))

    async def to_its_end(self, turn: asyncio.Task[list[event_pb2.Event]]) -> list[event_pb2.Event]:
        """With a spawner that lives, until nothing is left. The log is checked."""
        root = self.spawner.slots_dir
        async with spawner_process(self.spawner, self.log):
            events = await turn
            await eventually(lambda: not containers_of(root) and not [*slots(root)], limit=60)
        return await self.client.log(events[0].session_id)


@pytest.fixture
async def world(database: DatabaseUrls, server_data_dir: Path, tmp_path: Path) -> AsyncIterator[World]:
    server_data_dir.mkdir(mode=0o700)
    log, spawner = tmp_path / "spawner.log", spawner_settings(server_data_dir, worker_memory_mib=256)
    changes = {
        "launcher": "docker",
        "spawner_socket": socket_for(server_data_dir),
        "worker_memory_mib": 256,
        "worker_start_seconds": 200,
        "import_retry_seconds": 200,
        "lease_seconds": 3,
    }
    with serving(tmp_path / "host") as git_server, no_containers_left(spawner.slots_dir):
        bare = git_server.create("acme/app", {"README.md": "# App\n", "job.jsonl": JOB})
        async with AsyncExitStack() as stack:
            async with spawner_process(spawner, log):
                await eventually(lambda: socket_for(server_data_dir).exists(), limit=30)
                server = in_process(settings_for(database, server_data_dir, git_server, **changes))
                _, client = await stack.enter_async_context(server)
            yield World(client, spawner, f"{git_server.url}/acme/app.git", bare, log)


@pytest.mark.timeout(300)
async def test_a_turn_whose_spawner_is_killed_at_every_step_is_whole(world: World) -> None:
    turn = world.begun()
    for point in STARTING:
        await world.dies_at(point)
    (slot,) = slots(world.spawner.slots_dir)
    (slot.workspace / ".git" / "go").touch()
    for point in ENDING:
        await world.dies_at(point)
    events = await world.to_its_end(turn)
    end = events[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), end
    branch = next(event.git_updated.branch for event in events if event.git_updated.branch)
    assert pushed_files(world.bare, branch)["made.txt"] == "made"
    assert len(world.seen) == 1


@pytest.mark.timeout(300)
async def test_a_worker_that_runs_and_was_told_nothing_is_not_started_again(world: World) -> None:
    """Its secret is sent once, over a pipe that ends with the spawner. The turn fails and says so."""
    turn = world.begun()
    await world.dies_at("run.after")
    end = (await world.to_its_end(turn))[-1].turn_completed
    assert (end.status, end.code) in {
        (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_LAUNCH),
        (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_WORKER_LOST),
    }, end
    assert len(world.seen) == 1
