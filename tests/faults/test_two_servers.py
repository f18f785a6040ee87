"""Two servers with a database and an object store in common, each with a disk of its own: whichever is asked, the files are the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.seaweedfs import S3Server
from support.treadle import Client, branch_of, error_info, in_process, pushed_files, recording, settings_for

from server.embedded.postgres_home import DatabaseUrls
from treadle.file.v1 import file_service_pb2 as pb
from treadle.file.v1.file_service_pb2_grpc import FileServiceStub
from treadle.session.v1 import session_service_pb2 as session_pb


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        wait = recording({"run": "until [ -e go ]; do sleep 0.02; done"})
        server.create("acme/app", {"a.txt": "one\n", "wait.jsonl": wait})
        yield server


@dataclass
class Files:
    """One session, through one of the servers."""

    client: Client
    session_id: str

    async def __call__(self, method: str, **fields: Any) -> Any:
        request = getattr(pb, f"{method}Request")(session_id=self.session_id, **fields)
        call: Any = getattr(FileServiceStub(self.client.channel), method)
        return await call(request, metadata=self.client.metadata, timeout=60)

    async def read(self, path: str, **fields: Any) -> bytes:
        request = pb.ReadFileRequest(session_id=self.session_id, path=path, **fields)
        call: Any = FileServiceStub(self.client.channel).ReadFile(request, metadata=self.client.metadata, timeout=60)
        return b"".join([part.data async for part in call])

    async def write(self, path: str, text: str, **fields: Any) -> Any:
        return await self("EditFiles", edits=[pb.FileEdit(write=pb.WriteEdit(path=path, text=text, **fields))])

    async def paths(self, **fields: Any) -> list[str]:
        return [file.path for file in (await self("ListFiles", **fields)).files]


@pytest.fixture
async def both(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, s3: S3Server) -> AsyncIterator[tuple[Files, Files]]:
    """The same session through A and through B."""
    settings = settings_for(
        database,
        server_data_dir,
        git_server,
        object_store="s3",
        s3_endpoint=s3.endpoint,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        s3_secure=False,
        s3_bucket="two-servers",
    )
    other = server_data_dir.with_name(f"{server_data_dir.name}-b")
    other.mkdir(mode=0o700)
    async with AsyncExitStack() as stack:
        _, a = await stack.enter_async_context(in_process(settings))
        _, b = await stack.enter_async_context(in_process(settings.model_copy(update={"data_dir": other})))
        request = session_pb.CreateSessionRequest(repository_url=f"{git_server.url}/acme/app.git")
        session_id = (await a.call("CreateSession", request)).session.session_id
        yield Files(a, session_id), Files(b, session_id)


async def test_what_is_edited_through_one_is_listed_read_and_edited_through_the_other(both: tuple[Files, Files]) -> None:
    a, b = both
    made = await a.write("mine.txt", "a\n")
    assert await b.paths() == ["a.txt", "mine.txt", "wait.jsonl"], "at once, while it is on its way into the object store"
    assert await b.read("mine.txt") == b"a\n"
    taken = await b.write("mine.txt", "b\n", expected_etag=made.files[0].file.etag)
    assert await a.read("mine.txt") == b"b\n"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await a.write("mine.txt", "lost\n", expected_etag=made.files[0].file.etag)
    assert error_info(refused.value)[1] == "FILE_CHANGED"
    done = await asyncio.gather(*(files.write(f"{n}.txt", f"{n}\n") for n, files in enumerate([a, b] * 2)))
    assert len({each.commit for each in done}) == 4
    assert await a.paths() == await b.paths() == ["0.txt", "1.txt", "2.txt", "3.txt", "a.txt", "mine.txt", "wait.jsonl"]
    assert await a.read("mine.txt", at=str(taken.snapshot)) == await b.read("mine.txt", at=taken.commit) == b"b\n"


async def test_many_who_read_through_the_other_at_once_all_find_it(both: tuple[Files, Files]) -> None:
    """Some look when nothing is there yet, and when they look for what to bring, another has brought it."""
    a, b = both
    await b.paths()

    async def read(after: float) -> bytes:
        await asyncio.sleep(after)
        return await b.read("mine.txt")

    for n in range(12):
        await a.write("mine.txt", f"{n}\n")
        assert set(await asyncio.gather(*(read(0.02 * k) for k in range(20)))) == {f"{n}\n".encode()}


async def test_a_live_workspace_is_shown_by_the_server_that_has_it(both: tuple[Files, Files], git_server: GitServer) -> None:
    a, b = both
    request = session_pb.ExecuteSessionRequest(session_id=a.session_id, prompt="go", provider="replay", model="wait.jsonl")
    stream = a.client.stub.ExecuteSession(request, metadata=a.client.metadata, timeout=100)
    async for frame in stream:
        if any(event.HasField("tool_call") for event in frame.events.events):
            break
    await a.write("live.txt", "live\n")
    assert "live.txt" in await a.paths()
    for call in (b.paths(), b.read("live.txt"), b.write("b.txt", "b\n")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert error_info(refused.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "WORKSPACE_ELSEWHERE")
    assert await b.paths(at="head") == ["a.txt", "wait.jsonl"]
    await a.write("go", "")
    async for _ in stream:
        pass
    assert await b.read("live.txt") == b"live\n"
    await b.write("b.txt", "b\n")
    assert "b.txt" in await a.paths()
    bare = git_server.root / "acme/app.git"
    assert pushed_files(bare, branch_of(await a.client.log(a.session_id)))["live.txt"] == "live"
