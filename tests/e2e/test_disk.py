"""A turn that would fill the disk, with every launcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.containers import socket_for, spawning
from support.git_server import GitServer
from support.launchers import ALL_KINDS
from support.sandbox import require_sandbox
from support.swarm import swarm_spawning
from support.treadle import in_process, pushed_files, recording, settings_for

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from server.workers import disk
from treadle.session.v1 import event_pb2

pytestmark = pytest.mark.timeout(120)

FILLS = recording(
    {"write": "partial.txt", "content": "so far\n"},
    # Where it would travel back from another machine.
    {"write": ".gitignore", "content": "full\nlitter\n"},
    {"run": "while head -c 4M /dev/zero >> full; do sleep 0.1; done"},
    {"wait_ms": 60_000},
)


LITTERS = recording(
    {"write": "partial.txt", "content": "so far\n"},
    {"write": ".gitignore", "content": "full\nlitter\n"},
    {"run": "mkdir litter && cd litter && n=0; while :; do n=$((n+1)); for i in 1 2 3 4 5 6 7 8 9; do : > $n.$i; done; done"},
    {"wait_ms": 60_000},
)


@pytest.fixture(params=ALL_KINDS)
async def settings(
    request: pytest.FixtureRequest, database: DatabaseUrls, server_data_dir: Path, git_server: GitServer
) -> AsyncIterator[Settings]:
    server_data_dir.mkdir(mode=0o700)
    given = settings_for(
        database,
        server_data_dir,
        git_server,
        launcher=request.param,
        spawner_socket=socket_for(server_data_dir),
        worker_disk_mib=16,
        worker_files=2000,
    )
    if request.param == "process":
        require_sandbox()
        yield given
    else:
        async with (swarm_spawning if request.param == "swarm" else spawning)(server_data_dir):
            yield given


@pytest.mark.parametrize(("fills", "says"), [(FILLS, "16 MiB"), (LITTERS, "2,000 files")], ids=["bytes", "files"])
async def test_a_turn_that_fills_the_disk_is_stopped_and_published(
    settings: Settings, git_server: GitServer, fills: str, says: str
) -> None:
    bare = git_server.create("acme/full", {"r.jsonl": fills})
    async with in_process(settings) as (_, client):
        events = await client.run(repository_url=f"{git_server.url}/acme/full.git", prompt="go", provider="replay", model="r.jsonl")
        await client.log(events[0].session_id)
    end = events[-1].turn_completed
    assert (end.status, end.code, end.pushed) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_OUT_OF_DISK, True), end
    assert says in end.message
    branch = next(event.git_updated.branch for event in events if event.git_updated.branch)
    assert pushed_files(bare, branch)["partial.txt"] == "so far"


async def test_a_workspace_that_cannot_be_counted_is_too_large(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def counting_for_ever(what: str, _: Path) -> int:
        await asyncio.Event().wait()
        raise AssertionError(what)

    monkeypatch.setattr(disk, "LIMIT_SECONDS", 0.1)
    monkeypatch.setattr(disk, "_summed", counting_for_ever)
    server_data_dir.mkdir(mode=0o700)
    git_server.create("acme/vast", {"r.jsonl": recording({"wait_ms": 60_000})})
    require_sandbox()
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        events = await client.run(repository_url=f"{git_server.url}/acme/vast.git", prompt="go", provider="replay", model="r.jsonl")
    end = events[-1].turn_completed
    assert (end.code, end.message) == (
        event_pb2.TURN_CODE_OUT_OF_DISK,
        "the workspace has so many files that counting them took too long and the agent was stopped",
    )
