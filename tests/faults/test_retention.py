"""Old snapshots expire: their objects go, what stood on them is whole by itself, and no crash in between loses anything."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from support.git_server import GitServer, git
from support.git_server import git_server as serving
from support.nursery import Nursery
from support.treadle import Client, Killable, error_info, in_process, recording, settings_for

from server.embedded.postgres_home import DatabaseUrls
from server.kernel import retention
from treadle.file.v1.file_service_pb2 import ReadFileRequest
from treadle.file.v1.file_service_pb2_grpc import FileServiceStub
from treadle.session.v1 import session_service_pb2 as pb
from treadle.session.v1.snapshot_pb2 import Snapshot

NAMES = ("one", "two", "three", "four")


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        server.create(
            "acme/app", {f"{name}.jsonl": recording({"write": f"{name}.txt", "content": f"{name}\n"}) for name in (*NAMES, "last")}
        )
        yield server


@pytest.fixture
def kept(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer) -> Any:
    return lambda **changes: settings_for(database, server_data_dir, git_server, snapshot_retry_seconds=0.2, **changes)


async def turn(client: Client, git_server: GitServer, name: str, session_id: str = "") -> tuple[str, Any]:
    where = {"session_id": session_id} if session_id else {"repository_url": f"{git_server.url}/acme/app.git"}
    events = await client.run(prompt="go", provider="replay", model=f"{name}.jsonl", **where)
    return events[0].session_id, events[-1].turn_completed


async def history(client: Client, session_id: str) -> list[Snapshot]:
    return list((await client.call("ListSnapshots", pb.ListSnapshotsRequest(session_id=session_id))).snapshots)


async def read(client: Client, session_id: str, path: str, at: str) -> bytes:
    request = ReadFileRequest(session_id=session_id, path=path, at=at)
    return b"".join([frame.data async for frame in FileServiceStub(client.channel).ReadFile(request, metadata=client.metadata, timeout=60)])


async def grow_old(database: DatabaseUrls, *numbers: int) -> None:
    admin = await asyncpg.connect(database.owner)
    try:
        await admin.execute("UPDATE snapshots SET created_at = now() - interval '10 days' WHERE number = ANY ($1::int[])", numbers)
    finally:
        await admin.close()


async def test_what_stands_on_old_snapshots_is_whole_before_they_go(
    kept: Any, database: DatabaseUrls, server_data_dir: Path, tmp_path: Path, git_server: GitServer, nursery: Nursery
) -> None:
    async with in_process(kept()) as (_, client):
        session_id, end = await turn(client, git_server, "one")
        assert end.pushed
        git_server.refuse_pushes("acme/app", "protected")
        for name in NAMES[1:]:
            await turn(client, git_server, name, session_id)
        bundles = {path.name for path in server_data_dir.rglob("*.bundle")}
        assert len(bundles) == len(NAMES)
    await grow_old(database, 1, 2, 3)
    for point in ("rebase.stored", "rebase.after", "expire.before"):
        server = Killable(kept(retention_days=1.0), tmp_path / "killed.log", nursery=nursery)
        await server.start(kill_at=point)
        assert await server.wait_killed() == -9
    async with in_process(kept(retention_days=1.0)) as (_, client):
        async with asyncio.timeout(20):
            while len({path.name for path in server_data_dir.rglob("*.bundle")}) > 1:
                await asyncio.sleep(0.05)
        assert [(each.number, each.expired) for each in await history(client, session_id)] == [(4, False), (3, True), (2, True), (1, True)]
        for at in ("1", "2", (await history(client, session_id))[1].commit):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await read(client, session_id, "one.txt", at)
            assert error_info(refused.value)[1] == "SNAPSHOT_EXPIRED"
    shutil.rmtree(server_data_dir / "mirrors")
    async with in_process(kept()) as (_, client):
        assert await read(client, session_id, "two.txt", "") == b"two\n"
        (git_server.root / "acme/app.git" / "hooks" / "pre-receive").unlink()
        _, end = await turn(client, git_server, "last", session_id)
        assert end.pushed
        files = git(git_server.root / "acme/app.git", "ls-tree", "--name-only", end.commit).split()
        assert {f"{name}.txt" for name in (*NAMES, "last")} <= set(files)


async def test_a_long_chain_becomes_short_and_every_state_is_still_there(
    kept: Any, server_data_dir: Path, git_server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_process(kept()) as (_, client):
        session_id, _ = await turn(client, git_server, "one")
        git_server.refuse_pushes("acme/app", "protected")
        for name in NAMES[1:]:
            await turn(client, git_server, name, session_id)
        before = (await history(client, session_id))[0]
    monkeypatch.setattr(retention, "LONGEST_CHAIN", 2)
    async with in_process(kept()) as (_, client):
        async with asyncio.timeout(20):
            while (await history(client, session_id))[0].parent == before.parent:
                await asyncio.sleep(0.05)
        newest, *_, oldest = await history(client, session_id)
        assert (newest.commit, newest.parent) == (before.commit, oldest.parent)
    shutil.rmtree(server_data_dir / "mirrors")
    async with in_process(kept()) as (_, client):
        assert await read(client, session_id, "four.txt", "") == b"four\n"
        assert await read(client, session_id, "two.txt", "3") == b"two\n"
