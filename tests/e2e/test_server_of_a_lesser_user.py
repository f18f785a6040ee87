"""The main server as nobody in particular, its spawner as root: what containers are deployed like."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.containers import containers_of, no_containers_left, spawner_process, spawner_settings
from support.git_server import GitServer
from support.postgres import open_directory, relayed
from support.requirements import require
from support.treadle import Killable, connected, events_of, pushed_files, recording, settings_for
from support.workers import eventually

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2

pytestmark = pytest.mark.timeout(300)

SERVER = 10_000
JOB = [
    {"run": "id -u > who; id -un >> who; mkdir -m 0 closed; umask 077; mkdir own; echo x > own/file"},
    {"say": "{prompt}"},
]


@pytest.fixture
async def settings(database: DatabaseUrls, git_server: GitServer, tmp_path: Path) -> AsyncIterator[Settings]:
    """For a server of that user, beside a root spawner that knows who it is."""
    require(os.geteuid() == 0, "root", "run the tests as root")
    with open_directory() as place:
        data = place / "data"
        data.mkdir(mode=0o700)
        os.chown(data, SERVER, SERVER)
        memory: dict[str, Any] = {"worker_memory_mib": 256, "worker_root": place / "workers", "spawner_socket": place / "spawner.sock"}
        spawner = spawner_settings(tmp_path, server_user=str(SERVER), **memory)
        with no_containers_left(spawner.slots_dir):
            async with spawner_process(spawner, tmp_path / "spawner.log"), relayed(database, place) as urls:
                yield settings_for(urls, data, git_server, launcher="docker", worker_pool="replay=1", **memory)


async def test_a_whole_session(settings: Settings, git_server: GitServer, tmp_path: Path) -> None:
    bare = git_server.create("acme/app", {"README.md": "# App\n", "r.jsonl": recording(*JOB)})
    server = Killable(settings, tmp_path / "server.log", user=SERVER)
    await server.start()
    try:
        async with connected(server.address, server.key) as client:
            asked: dict[str, Any] = {"prompt": "one", "provider": "replay", "model": "r.jsonl"}
            events = await events_of(client.execute(repository_url=f"{git_server.url}/acme/app.git", **asked))
            ends = [events[-1].turn_completed]
            users = {_who(bare, events)}
            for _ in range(2):
                events = await events_of(client.execute(session_id=events[0].session_id, **asked))
                ends.append(events[-1].turn_completed)
                users.add(_who(bare, events))
        assert [(end.status, end.pushed) for end in ends] == [(event_pb2.TURN_STATUS_COMPLETED, True)] * 3, ends
        assert len(users) == 3, "each worker has a user of its own"
        assert not users & {str(SERVER), "0"}
        await eventually(lambda: len(containers_of(settings.slots_dir)) == 1, limit=30)
    finally:
        await server.stop()
    assert server.process is not None
    assert server.process.returncode == 0
    await eventually(lambda: not containers_of(settings.slots_dir), limit=30)
    assert [path.name for path in settings.slots_dir.iterdir() if not path.name.startswith(".")] == []


async def test_the_next_server_goes_on_with_the_same_container(settings: Settings, git_server: GitServer, tmp_path: Path) -> None:
    steps = [step for number in range(40) for step in ({"say": f"step {number}"}, {"wait_ms": 50})]
    git_server.create("acme/long", {"r.jsonl": recording(*steps, {"write": "x", "content": "x\n"})})
    url = f"{git_server.url}/acme/long.git"
    asked = {"repository_url": url, "prompt": "go", "provider": "replay", "model": "r.jsonl", "request_id": "1"}
    server = Killable(settings, tmp_path / "server.log", user=SERVER)
    await server.start(kill_at="journal.append.after", nth=3)
    async with connected(server.address, server.key) as client:
        with pytest.raises(grpc.aio.AioRpcError):
            await events_of(client.execute(**asked))
    assert await server.wait_killed() == -9
    await server.start()
    try:
        async with connected(server.address, server.key) as client:
            events = await events_of(client.execute(**asked))
            events = await client.log(events[0].session_id)
    finally:
        await server.stop()
    assert events[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED, events[-1]
    phases = [event.worker_updated.phase for event in events if event.HasField("worker_updated")]
    assert event_pb2.WORKER_PHASE_ADOPTED in phases
    assert phases.count(event_pb2.WORKER_PHASE_STARTING) == 1


def _who(bare: Path, events: list[event_pb2.Event]) -> str:
    branch = next(event.git_updated.branch for event in events if event.git_updated.branch)
    files = pushed_files(bare, branch)
    uid, name = files["who"].split()
    assert (files["README.md"], files["own/file"], name) == ("# App", "x", "agent")
    return uid
