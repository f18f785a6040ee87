"""What is done beside turns, again and again: one thing that cannot be done stops nothing else, least of all the server."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.treadle import Client, error_info, in_process, recording, settings_for

from server.embedded.postgres_home import DatabaseUrls
from server.kernel.ports.launcher import WorkerId
from server.workers.slot import slot_of
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

TURN = "01a205c7-98df-7571-b198-54efc63eb7f2"


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        for name in ("one", "two"):
            server.create(f"acme/{name}", {"r.jsonl": recording({"write": "a", "content": "b"})})
        yield server


async def run(client: Client, git_server: GitServer, name: str = "one") -> list[event_pb2.Event]:
    return await client.run(repository_url=f"{git_server.url}/acme/{name}.git", prompt="go", provider="replay", model="r.jsonl")


async def until_row(database: DatabaseUrls, query: str, wanted: Any) -> None:
    connection = await asyncpg.connect(database.owner)
    try:
        async with asyncio.timeout(20):
            while await connection.fetchval(query) != wanted:
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


@pytest.mark.parametrize("torn", ["", "12", "garbage here"])
async def test_a_slot_that_a_power_cut_tore_is_removed(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, torn: str
) -> None:
    slot = slot_of(server_data_dir / "workers", WorkerId(TURN, 1)).path
    (slot / "state").mkdir(parents=True)
    (slot / "state" / "worker").write_text(json.dumps({"turn_id": TURN, "attempt": 1}))
    (slot / "lock").touch()
    (slot / "pid").write_text(torn)
    async with in_process(settings_for(database, server_data_dir, git_server)) as (server, client):
        async with asyncio.timeout(20):
            while slot.exists():
                await asyncio.sleep(0.02)
        assert (await run(client, git_server))[-1].turn_completed.pushed
        assert not server.failed.done()


async def test_a_leftover_that_cannot_be_removed_stops_nothing(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer
) -> None:
    slot = slot_of(server_data_dir / "workers", WorkerId(TURN, 1)).path
    (slot / "state").mkdir(parents=True)
    (slot / "state" / "worker").write_text(json.dumps({"turn_id": TURN, "attempt": 1}))
    # No lock file: it cannot be closed.
    async with in_process(settings_for(database, server_data_dir, git_server)) as (server, client):
        assert (await run(client, git_server))[-1].turn_completed.pushed
        assert not server.failed.done()


async def test_without_room_for_a_bundle_the_snapshot_is_pending_and_the_server_lives(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer
) -> None:
    settings = settings_for(database, server_data_dir, git_server, snapshot_retry_seconds=0.1)
    async with in_process(settings) as (server, client):
        shutil.rmtree(server_data_dir / "scratch")
        events = await run(client, git_server)
        end = events[-1].turn_completed
        assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True)
        assert [event.error.code for event in events if event.HasField("error")] == ["SNAPSHOT_PENDING"]
        (server_data_dir / "scratch").mkdir()
        await until_row(database, "SELECT snapshot_state FROM turns", "STORED")
        assert not server.failed.done()


async def test_a_snapshot_that_can_never_be_stored_keeps_no_other_waiting(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.kernel.uploads.SNAPSHOTS_PER_SWEEP", 1)
    settings = settings_for(database, server_data_dir, git_server, snapshot_retry_seconds=0.1)
    async with in_process(settings) as (_, client):
        objects = server_data_dir / "objects"
        objects.rename(server_data_dir / "away")
        objects.write_text("not a directory")
        await run(client, git_server, "one")
        lost = [*(server_data_dir / "mirrors").glob("*.git")]
        await run(client, git_server, "two")
        for mirror in lost:
            shutil.rmtree(mirror)
        objects.unlink()
        (server_data_dir / "away").rename(objects)
        await until_row(database, "SELECT count(*) FROM turns WHERE snapshot_state = 'STORED'", 1)


async def test_a_follower_of_a_deleted_session_is_told_so(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer) -> None:
    git_server.create("acme/big", {"r.jsonl": recording({"burst": 1500, "text": "x" * 20_000})})
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        session_id = (await run(client, git_server, "big"))[0].session_id
        stream = client.resume(session_id, follow=False)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            deleted = False
            async for frame in stream:
                if frame.events.events and not deleted:
                    deleted = True
                    await client.call("DeleteSession", pb.DeleteSessionRequest(session_id=session_id))
        assert error_info(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
