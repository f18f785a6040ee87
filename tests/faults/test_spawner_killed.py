"""`kill -9` of the spawner at each of its own steps in the life of one container: none is doubled, lost or left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.containers import containers_of, no_containers_left, socket_for, spawner_process, spawner_settings
from support.git_server import git_server as serving
from support.treadle import events_of, in_process, pushed_files, recording, settings_for
from support.workers import eventually

from server.embedded.postgres_home import DatabaseUrls
from server.workers.slot import slots
from treadle.session.v1 import event_pb2

STARTING = ["create.before", "create.after", "hold.before", "hold.after", "start.before", "start.after", "answer.after", "wait.before"]
ENDING = ["kill.before", "kill.after", "record.before", "record.after", "remove.before", "remove.after"]
JOB = recording({"run": "until test -e .git/go; do sleep 0.02; done"}, {"write": "made.txt", "content": "made\n"}, {"say": "done"})
DIED = -9


@pytest.mark.timeout(300)
async def test_a_turn_whose_spawner_is_killed_at_every_step_is_whole(database: DatabaseUrls, server_data_dir: Path, tmp_path: Path) -> None:
    server_data_dir.mkdir(mode=0o700)
    spawner = spawner_settings(server_data_dir, worker_memory_mib=256)
    root, seen = spawner.slots_dir, set()
    changes = {
        "launcher": "docker",
        "spawner_socket": socket_for(server_data_dir),
        "worker_memory_mib": 256,
        "worker_start_seconds": 200,
        "import_retry_seconds": 200,
        "lease_seconds": 3,
    }

    async def dies_at(point: str) -> None:
        async with spawner_process(spawner, tmp_path / "spawner.log", kill_at=point) as process, asyncio.timeout(60):
            assert await process.wait() == DIED, point
        seen.update(container.id for container in containers_of(root))

    with serving(tmp_path / "host") as git_server, no_containers_left(root):
        bare = git_server.create("acme/app", {"README.md": "# App\n", "job.jsonl": JOB})
        async with spawner_process(spawner, tmp_path / "spawner.log"):
            await eventually(lambda: socket_for(server_data_dir).exists(), limit=30)
            server = in_process(settings_for(database, server_data_dir, git_server, **changes))
            _, client = await server.__aenter__()
        try:
            request = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": "job.jsonl"}
            turn = asyncio.create_task(events_of(client.execute(**request)))
            for point in STARTING:
                await dies_at(point)
            (slot,) = slots(root)
            (slot.workspace / ".git" / "go").touch()
            for point in ENDING:
                await dies_at(point)
            async with spawner_process(spawner, tmp_path / "spawner.log"):
                events = await turn
                await eventually(lambda: not containers_of(root) and not [*slots(root)], limit=60)
            await client.log(events[0].session_id)
        finally:
            await server.__aexit__(None, None, None)
    end = events[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), end
    branch = next(event.git_updated.branch for event in events if event.git_updated.branch)
    assert pushed_files(bare, branch)["made.txt"] == "made"
    assert len(seen) == 1
