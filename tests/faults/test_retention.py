"""Old snapshots expire: their objects go, what stood on them is whole by itself, and no crash in between loses anything."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from support.git_server import GitServer, git
from support.git_server import git_server as serving
from support.nursery import Nursery
from support.postgres import open_directory
from support.seaweedfs import S3Server
from support.treadle import Client, Killable, error_info, in_process, recording, settings_for

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from server.kernel import states
from server.kernel.retention import LONGEST_CHAIN
from treadle.file.v1 import file_service_pb2 as file_pb
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
def second_dir() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory / "data"


@pytest.fixture
def kept(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer) -> Any:
    def settings(data_dir: Path = server_data_dir, **changes: Any) -> Settings:
        return settings_for(database, data_dir, git_server, snapshot_retry_seconds=0.2, **changes)

    return settings


async def turn(client: Client, git_server: GitServer, name: str, session_id: str = "") -> tuple[str, Any]:
    where = {"session_id": session_id} if session_id else {"repository_url": f"{git_server.url}/acme/app.git"}
    events = await client.run(prompt="go", provider="replay", model=f"{name}.jsonl", **where)
    return events[0].session_id, events[-1].turn_completed


async def history(client: Client, session_id: str) -> list[Snapshot]:
    return list((await client.call("ListSnapshots", pb.ListSnapshotsRequest(session_id=session_id, page_size=99))).snapshots)


async def read(client: Client, session_id: str, path: str, at: str) -> bytes:
    request = ReadFileRequest(session_id=session_id, path=path, at=at)
    return b"".join([frame.data async for frame in FileServiceStub(client.channel).ReadFile(request, metadata=client.metadata, timeout=60)])


async def edit(client: Client, session_id: str, path: str) -> None:
    request = file_pb.EditFilesRequest(session_id=session_id, edits=[file_pb.FileEdit(write=file_pb.WriteEdit(path=path, text=path))])
    await FileServiceStub(client.channel).EditFiles(request, metadata=client.metadata, timeout=60)


async def stored(client: Client, session_id: str) -> list[Snapshot]:
    """Its history, once the object store has all of it."""
    async with asyncio.timeout(30):
        while True:
            found = await history(client, session_id)
            if all(each.stored for each in found):
                return found
            await asyncio.sleep(0.05)


def bundles(data_dir: Path, session_id: str = "") -> set[str]:
    """What the object store has. Beside it a server makes and deletes directories."""
    return {path.name for path in (data_dir / "objects").rglob("*.bundle") if session_id in str(path)}


class Sweeps:
    """Told of the server's points; counts what retention has been through."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    def __call__(self, point: str) -> None:
        if point == "sweep.after":
            self._ended.set()

    async def ended(self) -> None:
        async with asyncio.timeout(20):
            await self._ended.wait()


async def an_hour_later(database: DatabaseUrls) -> None:
    """What is announced or doomed is due."""
    admin = await asyncpg.connect(database.owner)
    try:
        await admin.execute("UPDATE doomed_objects SET due_at = now() - interval '1 second'")
    finally:
        await admin.close()


async def due(database: DatabaseUrls) -> int:
    """How many objects wait to be deleted now."""
    admin = await asyncpg.connect(database.owner)
    try:
        return int(await admin.fetchval("SELECT count(*) FROM doomed_objects WHERE due_at <= now()"))
    finally:
        await admin.close()


async def grow_old(database: DatabaseUrls, *numbers: int) -> None:
    admin = await asyncpg.connect(database.owner)
    try:
        await admin.execute("UPDATE snapshots SET created_at = now() - interval '10 days' WHERE number = ANY ($1::int[])", numbers)
        await admin.execute("UPDATE session_heads SET tended_at = NULL")
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
        assert len(bundles(server_data_dir)) == len(NAMES)
    for point in ("rebase.before", "rebase.stored", "rebase.after", "expire.before"):
        await grow_old(database, 1, 2, 3)
        server = Killable(kept(retention_days=1.0), tmp_path / "killed.log", nursery=nursery)
        await server.start(kill_at=point)
        assert await server.wait_killed() == -9
    await grow_old(database, 1, 2, 3)
    sweeps = Sweeps()
    async with in_process(kept(retention_days=1.0), mark=sweeps) as (_, client):
        await sweeps.ended()
        await an_hour_later(database)
        async with asyncio.timeout(20):
            while len(bundles(server_data_dir)) > 1:
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


async def test_a_fork_an_edit_and_a_restore_keep_what_they_stand_on(
    kept: Any, database: DatabaseUrls, server_data_dir: Path, git_server: GitServer
) -> None:
    async with in_process(kept()) as (_, client):
        parent, _ = await turn(client, git_server, "one")
        fork = (await client.call("ForkSession", pb.ForkSessionRequest(session_id=parent, at="0"))).session.session_id
        await edit(client, fork, "edited.txt")
        before = [(each.commit, each.size, False) for each in await stored(client, fork)]
        assert len(bundles(server_data_dir, fork)) == 1, "the fork itself holds nothing that the remote has not"
        await edit(client, parent, "edited.txt")
        await client.call("RestoreSession", pb.RestoreSessionRequest(session_id=parent, at="1"))
        await stored(client, parent)
    await grow_old(database, 1, 2)
    for _ in range(2):
        await grow_old(database, 1, 2)
        sweeps = Sweeps()
        async with in_process(kept(retention_days=1.0), mark=sweeps) as (_, client):
            await sweeps.ended()
            await an_hour_later(database)
            async with asyncio.timeout(20):
                while len(bundles(server_data_dir, parent)) > 1:
                    await asyncio.sleep(0.05)
            assert [(each.number, each.expired) for each in await history(client, parent)] == [(3, False), (2, True), (1, True)]
            assert [(each.commit, each.size, each.expired) for each in await history(client, fork)] == before
            assert len(bundles(server_data_dir, fork)) == 1
    shutil.rmtree(server_data_dir / "mirrors")
    async with in_process(kept()) as (_, client):
        assert await read(client, fork, "edited.txt", "") == b"edited.txt"
        assert await read(client, parent, "one.txt", "") == b"one\n"


async def test_two_servers_that_sweep_at_once_lose_nothing(
    kept: Any, database: DatabaseUrls, server_data_dir: Path, second_dir: Path, git_server: GitServer, s3: S3Server
) -> None:
    """Also when neither knows of the other one's claim."""
    bucket = {
        "object_store": "s3",
        "s3_endpoint": s3.endpoint,
        "s3_access_key": s3.access_key,
        "s3_secret_key": s3.secret_key,
        "s3_secure": False,
        "s3_bucket": "two-sweeps",
    }
    async with in_process(kept(**bucket)) as (_, client):
        session_id, _ = await turn(client, git_server, "one")
        for name in NAMES[1:]:
            await edit(client, session_id, f"{name}.txt")
        await stored(client, session_id)
    await grow_old(database, 1, 2, 3)

    def forget_claims(point: str) -> None:
        if point.startswith("rebase."):
            thread = threading.Thread(target=lambda: asyncio.run(grow_old(database)))
            thread.start()
            thread.join()

    both = [kept(retention_days=1.0, **bucket, data_dir=folder) for folder in (server_data_dir, second_dir)]
    async with in_process(both[0], mark=forget_claims) as (_, client), in_process(both[1], mark=forget_claims):
        async with asyncio.timeout(30):
            while not all(each.expired for each in (await history(client, session_id))[1:]):
                await asyncio.sleep(0.05)
    sweeps = Sweeps()
    async with in_process(both[0], mark=sweeps) as (_, client):
        await sweeps.ended()
        await an_hour_later(database)
        async with asyncio.timeout(30):
            while await due(database):
                await asyncio.sleep(0.05)
    shutil.rmtree(server_data_dir / "mirrors")
    async with in_process(both[0]) as (_, client):
        assert await read(client, session_id, "four.txt", "") == b"four.txt"


async def test_what_only_a_gone_disk_had_is_given_up(
    kept: Any, database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "_ON_ITS_WAY_SECONDS", 3600.0)
    async with in_process(kept()) as (_, client):
        session_id, _ = await turn(client, git_server, "one")
        await edit(client, session_id, "two.txt")
        newest, *_ = await stored(client, session_id)
    admin = await asyncpg.connect(database.owner)
    age = "UPDATE snapshots SET state = 'PENDING', object_key = '', created_at = now() - $1::interval WHERE number = 2"
    try:
        await admin.execute(age, timedelta(minutes=1))
        shutil.rmtree(server_data_dir / "mirrors")
        async with in_process(kept()) as (_, client):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await read(client, session_id, "two.txt", newest.commit)
            assert error_info(refused.value)[1] == "SNAPSHOT_UNAVAILABLE", "nobody waits for what is not on its way"
            assert not (await history(client, session_id))[0].lost
            await admin.execute(age, timedelta(days=31))
            async with asyncio.timeout(20):
                while not (await history(client, session_id))[0].lost:
                    await asyncio.sleep(0.05)
            assert await read(client, session_id, "one.txt", "1") == b"one\n"
    finally:
        await admin.close()


async def test_a_long_chain_becomes_short_and_every_state_is_still_there(kept: Any, server_data_dir: Path, git_server: GitServer) -> None:
    async with in_process(kept()) as (_, client):
        session_id, _ = await turn(client, git_server, "one")
        for number in range(LONGEST_CHAIN):
            await edit(client, session_id, f"{number}.txt")
        async with asyncio.timeout(60):
            while not (await history(client, session_id))[0].stored:
                await asyncio.sleep(0.1)
        before = await history(client, session_id)
    async with in_process(kept()) as (_, client):
        async with asyncio.timeout(20):
            while (await history(client, session_id))[0].parent == before[0].parent:
                await asyncio.sleep(0.05)
        newest = (await history(client, session_id))[0]
        assert (newest.commit, newest.parent) == (before[0].commit, before[-1].parent)
    shutil.rmtree(server_data_dir / "mirrors")
    async with in_process(kept()) as (_, client):
        assert await read(client, session_id, "49.txt", "") == b"49.txt"
        assert await read(client, session_id, "1.txt", "4") == b"1.txt"
