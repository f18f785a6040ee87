"""Files that are larger than a request, over the API of a whole server."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.test_files import Calls
from support.git_server import GitServer, git
from support.treadle import Client, branch_of, error_info, in_process, recording, settings_for

from treadle.file.v1 import file_service_pb2 as pb
from treadle.session.v1 import session_service_pb2 as session_pb
from treadle_client import AsyncTreadle, FileConflict, Treadle

MIB = 1024 * 1024
FILES = {"a.txt": "one\n", "wait.jsonl": recording({"run": "echo > own; until [ -e go ]; do sleep 0.02; done; wc -c < big > seen"})}


@pytest.fixture
def bare(git_server: GitServer) -> Path:
    return git_server.create("acme/app", FILES)


@pytest.fixture
async def files(client: Client, bare: Path, git_server: GitServer) -> Calls:
    return await _files(client, git_server)


async def _files(client: Client, git_server: GitServer) -> Calls:
    created = await client.call("CreateSession", session_pb.CreateSessionRequest(repository_url=f"{git_server.url}/acme/app.git"))
    return Calls(client, created.session.session_id)


def _piece(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest() * (MIB // 32)


async def _pieces(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield _piece(number)


class _Upload:
    """One that goes on as the test likes."""

    def __init__(self, files: Calls, path: str, size: int, **fields: Any) -> None:
        self.start = pb.UploadStart(session_id=files.session_id, path=path, size=size, **fields)
        self.call = files.stub.UploadFile(metadata=files.client.metadata, timeout=60)

    async def begin(self) -> None:
        """The server waits for the content when this returns."""
        await self.call.write(pb.UploadFileRequest(start=self.start))
        await self.call.initial_metadata()

    async def all(self, *pieces: bytes) -> pb.UploadFileResponse:
        for piece in pieces:
            await self.call.write(pb.UploadFileRequest(data=piece))
        await self.call.done_writing()
        return await self.call


async def _refused(upload: _Upload, *pieces: bytes) -> tuple[Any, ...]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await upload.call.write(pb.UploadFileRequest(start=upload.start))
        await upload.all(*pieces)
        raise AssertionError("it was not refused")
    return error_info(refused.value)


def _left(data_dir: Path) -> list[Path]:
    return list(data_dir.glob("mirrors/*.git/objects/tmp_obj_*"))


async def test_forty_mib_come_back_byte_by_byte_and_are_in_the_next_turn(files: Calls, server_data_dir: Path) -> None:
    upload = _Upload(files, "new/big", 40 * MIB, executable=True, expected_etag="", message="Big", request_id="once")
    await upload.begin()
    done = await upload.all(*[_piece(number) for number in range(40)])
    assert (done.file.changed, done.file.file.size, done.file.file.kind, done.snapshot) == (True, 40 * MIB, pb.FILE_KIND_EXECUTABLE, 1)
    read = hashlib.sha256(await files.read("new/big"))
    wanted = hashlib.sha256()
    async for piece in _pieces(40):
        wanted.update(piece)
    assert read.digest() == wanted.digest()
    again = _Upload(files, "new/big", 40 * MIB, executable=True, expected_etag="", message="Big", request_id="once")
    await again.begin()
    assert await again.all(*[_piece(number) for number in range(40)]) == done
    assert not _left(server_data_dir)


async def test_what_is_refused_is_refused_before_a_byte_is_read(files: Calls, server_data_dir: Path) -> None:
    for fields, reason in (
        ({"path": "x", "size": 513 * MIB}, "FILE_TOO_LARGE"),
        ({"path": ".git/x", "size": 1}, "PATH_INVALID"),
        ({"path": ".gitattributes", "size": 1}, "PATH_INVALID"),
        ({"path": "a.txt", "size": 1, "expected_etag": ""}, "FILE_CHANGED"),
        ({"path": "a.txt/x", "size": 1}, "NOT_A_DIRECTORY"),
        ({"path": "x", "size": 1, "if_head": "0" * 40}, "HEAD_MOVED"),
    ):
        upload = _Upload(files, **fields)
        await upload.call.write(pb.UploadFileRequest(start=upload.start))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await upload.call
        assert error_info(refused.value)[1] == reason, fields
    stranger = _Upload(Calls(files.client, "00000000-0000-4000-8000-000000000000"), "x", 1)
    assert (await _refused(stranger))[1] == "SESSION_NOT_FOUND"
    assert not _left(server_data_dir)


async def test_other_bytes_than_were_said_leave_nothing(files: Calls, server_data_dir: Path) -> None:
    for pieces in ([b"x" * MIB], [b"x" * MIB, b"x" * MIB, b"x"], []):
        assert (await _refused(_Upload(files, "x", 2 * MIB), *pieces))[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "UPLOAD_SIZE_WRONG")
    assert (await _refused(_Upload(files, "x", 3 * MIB), bytes(3 * MIB)))[1] == "REQUEST_TOO_LARGE"
    assert [file.path for file in (await files("ListFiles")).files] == ["a.txt", "wait.jsonl"]
    assert not _left(server_data_dir)


async def test_a_client_that_goes_away_or_stalls_leaves_nothing(
    database: Any, server_data_dir: Path, git_server: GitServer, bare: Path
) -> None:
    async with in_process(settings_for(database, server_data_dir, git_server, write_timeout_seconds=0.3)) as (_, client):
        files = await _files(client, git_server)
        stalled = _Upload(files, "x", 2 * MIB)
        await stalled.begin()
        await stalled.call.write(pb.UploadFileRequest(data=bytes(MIB)))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stalled.call
        assert error_info(refused.value)[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOAD_STALLED")
        assert not _left(server_data_dir)
        gone = _Upload(files, "x", 2 * MIB)
        await gone.begin()
        await gone.call.write(pb.UploadFileRequest(data=bytes(MIB)))
        async with asyncio.timeout(10):
            while not _left(server_data_dir):
                await asyncio.sleep(0.01)
            gone.call.cancel()
            while _left(server_data_dir):
                await asyncio.sleep(0.01)


async def test_what_is_edited_meanwhile_is_kept_or_told(files: Calls) -> None:
    etag = (await files("ListFiles")).files[0].etag
    upload, loser = _Upload(files, "b.txt", MIB), _Upload(files, "a.txt", MIB, expected_etag=etag)
    await upload.begin()
    await loser.begin()
    now = (await files.write("a.txt", "mine\n")).files[0].file.etag
    await upload.all(bytes(MIB))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await loser.all(bytes(MIB))
    assert error_info(refused.value)[:3] == (grpc.StatusCode.ABORTED, "FILE_CHANGED", {"path": "a.txt", "etag": now})
    assert (await files.read("a.txt"), await files.read("b.txt")) == (b"mine\n", bytes(MIB))


async def test_while_an_agent_works_it_gets_the_file_whole(files: Calls, bare: Path, server_data_dir: Path) -> None:
    request = session_pb.ExecuteSessionRequest(session_id=files.session_id, prompt="go", provider="replay", model="wait.jsonl")
    before = _Upload(files, "big", 20 * MIB)
    await before.begin()
    stream = files.client.stub.ExecuteSession(request, metadata=files.client.metadata, timeout=100)
    async for frame in stream:
        if any(event.HasField("tool_call") for event in frame.events.events):
            break
    done = await before.all(*[_piece(number) for number in range(20)])
    assert (done.commit, done.file.changed, done.file.file.size) == ("", True, 20 * MIB)
    assert await files.read("big") == b"".join(map(_piece, range(20)))
    assert (await _refused(_Upload(files, "big", 1, expected_etag="0" * 40)))[1] == "FILE_CHANGED"
    assert (await _refused(_Upload(files, "new/x", 1, expected_etag="0" * 40)))[1] == "FILE_CHANGED"
    again = _Upload(files, "new/x", 1, expected_etag="")
    await again.begin()
    assert (await again.all(b"x")).file.changed
    await files.write("go", "")
    async for _ in stream:
        pass
    branch = branch_of(await files.client.log(files.session_id))
    assert git(bare, "cat-file", "-s", f"{branch}:big") == str(20 * MIB)
    assert git(bare, "show", f"{branch}:seen").strip() == str(20 * MIB)
    assert not _left(server_data_dir)


async def test_both_clients_upload_what_is_left_of_a_file(files: Calls) -> None:
    content = b"".join(map(_piece, range(3)))
    address, key = files.client.address, files.client.key

    def sync() -> pb.UploadFileResponse:
        file = io.BytesIO(content)
        file.seek(5)
        with Treadle(address, key) as treadle:
            return treadle.files(files.session_id).upload("sync", file, executable=True, message="Mine")

    done = await asyncio.to_thread(sync)
    assert (done.file.file.size, done.file.file.kind) == (len(content) - 5, pb.FILE_KIND_EXECUTABLE)
    assert await files.read("sync") == content[5:]
    async with AsyncTreadle(address, key) as treadle:
        mine = treadle.files(files.session_id)
        assert (await mine.upload("async", io.BytesIO(content), expected_etag="", if_head=done.commit)).snapshot == 2
        with pytest.raises(FileConflict):
            await mine.upload("async", io.BytesIO(content), expected_etag="")
