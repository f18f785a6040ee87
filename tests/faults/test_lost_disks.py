"""The disk of a server is gone, and with it its mirrors: what only the object store has is there again, or nothing wrong is."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.git_server import GitServer, git
from support.git_server import git_server as serving
from support.seaweedfs import S3Server
from support.tcp_gate import tcp_gate
from support.treadle import Client, error_info, in_process, recording, settings_for

from server.api.event_codec import ProtobufEventCodec
from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from server.identity.local_user import TENANT, USER
from server.kernel.history import NewSnapshot, SnapshotKind
from server.kernel.identity import Principal
from server.kernel.retrieval import Retrieval
from server.kernel.session import Session
from treadle.file.v1.file_service_pb2 import (
    DiffFilesRequest,
    DownloadArchiveRequest,
    DownloadPatchRequest,
    EditFilesRequest,
    FileEdit,
    FindFilesRequest,
    ReadFileRequest,
    SearchFilesRequest,
    WriteEdit,
)
from treadle.file.v1.file_service_pb2_grpc import FileServiceStub
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

OWNER = Principal(TENANT, USER, "Local", "local@example.org")


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        files = {name: recording({"write": f"{name}.txt", "content": f"{name}\n"}) for name in ("one", "two", "three")}
        server.create("acme/app", {f"{name}.jsonl": text for name, text in files.items()})
        yield server


@pytest.fixture
def settings(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, s3: S3Server) -> Settings:
    return settings_for(
        database,
        server_data_dir,
        git_server,
        object_store="s3",
        s3_endpoint=s3.endpoint,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        s3_secure=False,
        s3_bucket=f"test-{server_data_dir.parent.name.lower().replace('_', '-')}-bucket",
        snapshot_retry_seconds=0.2,
    )


async def run(client: Client, git_server: GitServer, model: str, session_id: str = "") -> event_pb2.TurnCompleted:
    where = {"session_id": session_id} if session_id else {"repository_url": f"{git_server.url}/acme/app.git"}
    events = await client.run(prompt="go", provider="replay", model=f"{model}.jsonl", **where)
    return events[-1].turn_completed


async def session_of(server: Any) -> Any:
    (session,) = (await server.stores.sessions.list(OWNER, page_size=9, page_token="")).sessions
    return session


async def unpushed(server: Any, client: Client, git_server: GitServer, data_dir: Path) -> str:
    """A session whose second turn and the edit behind it are on no remote, but in the object store. Returns its head."""
    assert (await run(client, git_server, "one")).pushed
    session = await session_of(server)
    git_server.refuse_pushes("acme/app", "protected")
    head = (await run(client, git_server, "two", session.id)).commit
    (mirror,) = (data_dir / "mirrors").glob("*.git")
    blob = git(mirror, "hash-object", "-w", "--stdin", stdin=b"mine\n")
    tree = git(mirror, "mktree", stdin=(git(mirror, "ls-tree", head) + f"\n100644 blob {blob}\tedit.txt\n").encode())
    commit = git(mirror, "commit-tree", tree, "-p", head, "-m", "an edit")
    facts = [ProtobufEventCodec().git_updated("COMMITTED", repository="", sha=commit)]
    await server.notes.record(OWNER, session.id, head=head, snapshot=NewSnapshot(SnapshotKind.EDIT, commit, head), facts=facts)
    async with asyncio.timeout(20):
        while not (await server.stores.history.get(OWNER, session.id, number=3)).stored:
            await asyncio.sleep(0.02)
    (git_server.root / "acme/app.git" / "hooks" / "pre-receive").unlink()
    return commit


def without(mirror: Path, blob: str) -> None:
    """Take one object out of a mirror."""
    packs = list(mirror.glob("objects/pack/*.pack"))
    for pack in packs:
        moved = pack.rename(mirror / pack.name)
        pack.with_suffix(".idx").unlink()
        git(mirror, "unpack-objects", "-q", stdin=moved.read_bytes())
        moved.unlink()
    (mirror / "objects" / blob[:2] / blob[2:]).unlink()


def lose(data_dir: Path) -> None:
    shutil.rmtree(data_dir)
    data_dir.mkdir(mode=0o700)


async def test_the_next_turn_goes_on_from_what_was_never_pushed(settings: Settings, git_server: GitServer) -> None:
    async with in_process(settings) as (server, client):
        head = await unpushed(server, client, git_server, settings.data_dir)
    lose(settings.data_dir)
    async with in_process(settings) as (server, client):
        session = await session_of(server)
        assert session.head_commit == head
        # Read before any turn has brought it back.
        frames = FileServiceStub(client.channel).ReadFile(
            ReadFileRequest(session_id=session.id, path="edit.txt"), metadata=client.metadata, timeout=60
        )
        assert b"".join([frame.data async for frame in frames]) == b"mine\n"
        end = await run(client, git_server, "three", session.id)
        assert end.pushed
        await client.log(session.id)
    bare = git_server.root / "acme/app.git"
    assert git(bare, "rev-parse", f"{end.commit}^") == head
    assert {"one.txt", "two.txt", "three.txt", "edit.txt"} <= set(git(bare, "ls-tree", "--name-only", end.commit).split())


async def test_a_turn_goes_on_from_what_a_reader_has_brought_back_a_moment_before(
    settings: Settings, git_server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure = Retrieval.ensure

    async def second(self: Retrieval, session: Session, commit: str) -> Any:
        await ensure(self, session, commit)
        return await ensure(self, session, commit)

    async with in_process(settings) as (server, client):
        head = await unpushed(server, client, git_server, settings.data_dir)
    lose(settings.data_dir)
    monkeypatch.setattr(Retrieval, "ensure", second)
    async with in_process(settings) as (server, client):
        end = await run(client, git_server, "three", (await session_of(server)).id)
    assert git(git_server.root / "acme/app.git", "rev-parse", f"{end.commit}^") == head


async def test_a_file_that_is_gone_from_the_mirror_is_brought_back_where_its_commit_is_still_there(
    settings: Settings, git_server: GitServer
) -> None:
    async with in_process(settings) as (server, client):
        head = await unpushed(server, client, git_server, settings.data_dir)
    (mirror,) = (settings.data_dir / "mirrors").glob("*.git")
    git(mirror, "repack", "-a", "-d", "-q")
    for name, content in (("edit.txt", b"mine\n"), ("two.txt", b"two\n")):  # of the newest snapshot, and of the one before
        without(mirror, git(mirror, "rev-parse", f"{head}:{name}"))
        # A server each: its gits still read from packs that are deleted.
        async with in_process(settings) as (server, client):
            asked = ReadFileRequest(session_id=(await session_of(server)).id, path=name)
            frames = FileServiceStub(client.channel).ReadFile(asked, metadata=client.metadata, timeout=60)
            assert b"".join([frame.data async for frame in frames]) == content
        git(mirror, "rev-list", "--objects", head)


async def attached(stream: Any) -> bytes:
    return b"".join([body.data async for body in stream])


async def refusal(stream: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await attached(stream)
    return error_info(caught.value)[:2]


LOST_ABROAD = (grpc.StatusCode.FAILED_PRECONDITION, "STATE_GONE")
BROUGHT_BACK = (grpc.StatusCode.UNAVAILABLE, "SNAPSHOT_UNAVAILABLE")


async def test_what_a_mirror_has_lost_of_a_commit_is_brought_back_whatever_asks_for_it(settings: Settings, git_server: GitServer) -> None:
    async with in_process(settings) as (server, client):
        head = await unpushed(server, client, git_server, settings.data_dir)
        (mirror,) = (settings.data_dir / "mirrors").glob("*.git")
        git(mirror, "repack", "-a", "-d", "-q")
        session_id = (await session_of(server)).id
        call = partial(getattr, FileServiceStub(client.channel))
        options = {"metadata": client.metadata, "timeout": 60}
        blob = {name: git(mirror, "rev-parse", f"{head}:{name}") for name in ("edit.txt", "two.txt", "one.jsonl")}

        without(mirror, blob["edit.txt"])
        found = await call("SearchFiles")(SearchFilesRequest(session_id=session_id, pattern="mine"), **options)
        assert [(each.path, each.text) for each in found.matches] == [("edit.txt", "mine")]
        without(mirror, blob["edit.txt"])
        named = await call("FindFiles")(FindFilesRequest(session_id=session_id, pattern="edit"), **options)
        assert [(each.path, each.size) for each in named.files] == [("edit.txt", 5)]
        for lost in ("edit.txt", "two.txt"):
            without(mirror, blob[lost])
            diff = await call("DiffFiles")(DiffFilesRequest(**{"session_id": session_id, "from": "0", "to": "head"}), **options)
            assert [each.path for each in diff.files] == ["edit.txt", "one.txt", "two.txt"]
            assert all(each.patch for each in diff.files)
        # Of a side that the other does not stand on.
        without(mirror, blob["edit.txt"])
        back = await call("DiffFiles")(DiffFilesRequest(**{"session_id": session_id, "from": "head", "to": "2"}), **options)
        assert [(each.path, each.operation, bool(each.patch)) for each in back.files] == [("edit.txt", "DELETED", True)]

        # What is sent as it is read is there for who asks again.
        patch = partial(call("DownloadPatch"), DownloadPatchRequest(**{"session_id": session_id, "from": "0", "to": "head"}), **options)
        archive = partial(call("DownloadArchive"), DownloadArchiveRequest(session_id=session_id), **options)
        for download in (patch, archive):
            without(mirror, blob["two.txt"])
            assert await refusal(download()) == BROUGHT_BACK
            assert len(await attached(download())) > 100
        # Only what is the server's own: that a remote's object is gone stays so.
        without(mirror, blob["one.jsonl"])
        assert await refusal(archive()) == LOST_ABROAD


async def test_a_download_that_breaks_off_in_its_middle_says_that_it_can_be_had_again(settings: Settings, git_server: GitServer) -> None:
    async with in_process(settings) as (server, client):
        assert (await run(client, git_server, "one")).pushed
        session_id = (await session_of(server)).id
        files = FileServiceStub(client.channel)
        writes = [
            FileEdit(write=WriteEdit(path=path, data=os.urandom(size))) for path, size in (("a", 900_000), ("b", 900_000), ("c", 10))
        ]  # fmt: skip
        head = (await files.EditFiles(EditFilesRequest(session_id=session_id, edits=writes), metadata=client.metadata)).commit
        async with asyncio.timeout(20):
            while not (await server.stores.history.get(OWNER, session_id, number=2)).stored:
                await asyncio.sleep(0.02)
        (mirror,) = (settings.data_dir / "mirrors").glob("*.git")
        without(mirror, git(mirror, "rev-parse", f"{head}:c"))
        archive = partial(files.DownloadArchive, DownloadArchiveRequest(session_id=session_id), metadata=client.metadata, timeout=60)
        broken, received = archive(), 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for body in broken:
                received += len(body.data)
        assert received > 0
        assert error_info(caught.value)[:2] == BROUGHT_BACK
        assert len(await attached(archive())) > 1_800_000


async def test_what_is_damaged_is_never_restored_and_the_turn_says_so(
    settings: Settings, git_server: GitServer, s3: S3Server, tmp_path: Path
) -> None:
    async with in_process(settings) as (server, client):
        head = await unpushed(server, client, git_server, settings.data_dir)
        damaged = await server.stores.history.get(OWNER, (await session_of(server)).id, number=2)
    lose(settings.data_dir)
    store = s3.client()
    good = store.get_object(settings.s3_bucket, damaged.key).read()
    for bad in (good[:-1], bytes([good[0] ^ 1]) + good[1:]):
        (tmp_path / "bad").write_bytes(bad)
        store.fput_object(settings.s3_bucket, damaged.key, str(tmp_path / "bad"))
        async with in_process(settings) as (server, client):
            session = await session_of(server)
            end = await run(client, git_server, "three", session.id)
            assert (end.status, end.code, end.commit) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_REPOSITORY, "")
            assert "is damaged" in end.message
            assert (await session_of(server)).head_commit == head
        assert store.get_object(settings.s3_bucket, damaged.key).read() == bad
    (tmp_path / "good").write_bytes(good)
    store.fput_object(settings.s3_bucket, damaged.key, str(tmp_path / "good"))
    async with in_process(settings) as (server, client):
        assert (await run(client, git_server, "three", session.id)).pushed


async def test_while_the_object_store_is_away_the_turn_fails_and_nothing_is_lost(
    settings: Settings, git_server: GitServer, s3: S3Server
) -> None:
    async with in_process(settings) as (server, client):
        head = await unpushed(server, client, git_server, settings.data_dir)
    lose(settings.data_dir)
    async with AsyncExitStack() as stack:
        gate = await stack.enter_async_context(tcp_gate(s3.port))
        async with in_process(settings.model_copy(update={"s3_endpoint": f"127.0.0.1:{gate.port}"})) as (server, client):
            session = await session_of(server)
            await stack.aclose()
            end = await run(client, git_server, "three", session.id)
            assert (end.status, end.code) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_REPOSITORY)
            assert "cannot be had now" in end.message
            assert (await session_of(server)).head_commit == head
    async with in_process(settings) as (server, client):
        assert (await run(client, git_server, "three", session.id)).pushed


async def test_objects_of_a_deleted_session_go_when_the_store_is_there_again(
    settings: Settings, git_server: GitServer, s3: S3Server
) -> None:
    def objects() -> list[str]:
        return [each.object_name or "" for each in s3.client().list_objects(settings.s3_bucket, recursive=True)]

    async with AsyncExitStack() as stack:
        gate = await stack.enter_async_context(tcp_gate(s3.port))
        async with in_process(settings.model_copy(update={"s3_endpoint": f"127.0.0.1:{gate.port}"})) as (server, client):
            await run(client, git_server, "one")
            session = await session_of(server)
            assert len(objects()) == 1
            await stack.aclose()
            await client.call("DeleteSession", pb.DeleteSessionRequest(session_id=session.id))
    assert len(objects()) == 1
    async with in_process(settings), asyncio.timeout(20):
        while await asyncio.to_thread(objects):
            await asyncio.sleep(0.05)
