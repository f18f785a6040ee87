"""A turn that would fill the disk, with either launcher."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.containers import socket_for, spawning
from support.git_server import GitServer
from support.launchers import KINDS
from support.sandbox import require_sandbox
from support.treadle import in_process, pushed_files, recording, settings_for

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2

pytestmark = pytest.mark.timeout(120)

FILLS = recording(
    {"write": "partial.txt", "content": "so far\n"},
    {"run": "while head -c 4M /dev/zero >> .git/full; do sleep 0.1; done"},
    {"wait_ms": 60_000},
)


@pytest.fixture(params=KINDS)
async def settings(
    request: pytest.FixtureRequest, database: DatabaseUrls, server_data_dir: Path, git_server: GitServer
) -> AsyncIterator[Settings]:
    server_data_dir.mkdir(mode=0o700)
    given = settings_for(
        database, server_data_dir, git_server, launcher=request.param, spawner_socket=socket_for(server_data_dir), worker_disk_mib=16
    )
    if request.param == "process":
        require_sandbox()
        yield given
    else:
        async with spawning(server_data_dir):
            yield given


async def test_a_turn_that_fills_the_disk_is_stopped_and_published(settings: Settings, git_server: GitServer) -> None:
    bare = git_server.create("acme/full", {"r.jsonl": FILLS})
    async with in_process(settings) as (_, client):
        events = await client.run(repository_url=f"{git_server.url}/acme/full.git", prompt="go", provider="replay", model="r.jsonl")
        await client.log(events[0].session_id)
    end = events[-1].turn_completed
    assert (end.status, end.code, end.pushed) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_OUT_OF_DISK, True), end
    assert "16 MiB" in end.message
    branch = next(event.git_updated.branch for event in events if event.git_updated.branch)
    assert pushed_files(bare, branch)["partial.txt"] == "so far"
