"""A session's files over the API of a whole server, without a worker."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.git_server import GitServer, git
from support.treadle import Client, branch_of, error_info, in_process, kinds, pushed_files, recording, settings_for

from server.embedded.postgres_home import DatabaseUrls
from server.git.refs import session_ref
from server.identity.keys import create_key
from server.identity.local_user import USER
from server.kernel.identity import Principal
from treadle.file.v1 import file_service_pb2 as pb
from treadle.file.v1.file_service_pb2_grpc import FileServiceStub
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as session_pb

FILES = {
    "a.txt": "one\n",
    "src/app.py": "print('hello')\n",
    "write.jsonl": recording({"write": "a.txt", "content": "two\n"}),
    "more.jsonl": recording({"write": "b.txt", "content": "three\n"}),
    "wait.jsonl": recording({"run": "echo agent > own; until [ -e go ]; do sleep 0.02; done; cat go > seen; [ -x go ]; echo $? >> seen"}),
}


@pytest.fixture
def bare(git_server: GitServer) -> Path:
    return git_server.create("acme/app", FILES)


@pytest.fixture
async def session(client: Client, bare: Path, git_server: GitServer) -> str:
    created = await client.call("CreateSession", session_pb.CreateSessionRequest(repository_url=f"{git_server.url}/acme/app.git"))
    return created.session.session_id


class Calls:
    """FileService for one session."""

    def __init__(self, client: Client, session_id: str) -> None:
        self.client, self.session_id = client, session_id
        self.stub: Any = FileServiceStub(client.channel)

    async def __call__(self, method: str, **fields: Any) -> Any:
        request = getattr(pb, f"{method}Request")(session_id=self.session_id, **fields)
        return await getattr(self.stub, method)(request, metadata=self.client.metadata, timeout=60)

    async def read(self, path: str, method: str = "ReadFile", **fields: Any) -> bytes:
        request = getattr(pb, f"{method}Request")(session_id=self.session_id, path=path, **fields)
        return b"".join([part.data async for part in getattr(self.stub, method)(request, metadata=self.client.metadata, timeout=60)])

    async def edit(self, *edits: dict[str, Any], **fields: Any) -> Any:
        return await self("EditFiles", edits=[pb.FileEdit(**edit) for edit in edits], **fields)

    async def write(self, path: str, text: str, **fields: Any) -> Any:
        return await self.edit({"write": pb.WriteEdit(path=path, text=text, **fields)})

    async def turn(self, model: str) -> list[event_pb2.Event]:
        return await self.client.run(session_id=self.session_id, prompt="go", provider="replay", model=model)


@pytest.fixture
def files(client: Client, session: str) -> Calls:
    return Calls(client, session)


async def test_a_session_without_a_turn_shows_its_base_branch_and_can_be_edited(files: Calls, bare: Path) -> None:
    base = git(bare, "rev-parse", "main")
    listed = await files("ListFiles")
    assert listed.commit == base
    assert [file.path for file in listed.files] == ["a.txt", "more.jsonl", "src", "wait.jsonl", "write.jsonl"]
    assert await files.read("src/app.py") == b"print('hello')\n"
    edited = await files.write("src/new.py", "new\n")
    assert git(bare, "rev-parse", "main") == base
    assert await files.read("src/new.py") == b"new\n"
    seen = await files.turn("write.jsonl")
    assert pushed_files(bare, branch_of(seen)) | {"a.txt": "two", "src/new.py": "new"} == pushed_files(bare, branch_of(seen))
    log = await files.client.log(files.session_id)
    assert kinds(log)[:2] == ["file_changed", "git_updated"]
    changed, committed = log[0].file_changed, log[1].git_updated
    assert [(change.path, change.operation) for change in changed.changes] == [("src/new.py", event_pb2.FILE_OPERATION_ADDED)]
    assert (changed.turn_total, committed.sha, committed.message) == (False, edited.commit, "Create src/new.py")
    assert (log[0].actor.kind, log[0].actor.id, log[0].turn_id) == (event_pb2.ACTOR_KIND_USER, USER, "")


async def test_every_state_can_be_read_and_any_two_compared(files: Calls) -> None:
    seen = await files.turn("write.jsonl")
    edited = await files.write("a.txt", "mine\n")
    await files.turn("more.jsonl")
    assert [await files.read("a.txt", at=at) for at in ("1", seen[0].turn_id, "2", "3", "head", "")] == [
        b"two\n", b"two\n", b"mine\n", b"mine\n", b"mine\n", b"mine\n",
    ]  # fmt: skip
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await files.read("b.txt", at="2")
    assert error_info(refused.value)[:3] == (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND", {"path": "b.txt"})
    for at in ("9", seen[0].session_id, "no-such-turn"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await files("ListFiles", at=at)
        assert error_info(refused.value)[1] == "SNAPSHOT_NOT_FOUND"
    newest = await files("DiffFiles")
    assert [(file.path, file.operation) for file in newest.files] == [("b.txt", "ADDED")]
    assert newest.from_commit == edited.commit
    between = await files("DiffFiles", **{"from": "1", "to": "2"})
    assert between.files[0].patch.endswith("-two\n+mine\n")
    patch = await files.read("", method="DownloadPatch", **{"from": "1", "to": "3"})
    assert patch.count(b"diff --git") == 2
    part = await files("DiffFiles", **{"from": "1", "to": "3", "path": "b.txt"})
    assert [(file.path, file.operation) for file in part.files] == [("b.txt", "ADDED")]
    assert (part.files_changed, part.additions, part.deletions) == (1, 1, 0)
    assert not (await files("DiffFiles", **{"from": "1", "to": "3", "path": "src"})).files
    for path, reason in (("nowhere", "FILE_NOT_FOUND"), ("a.txt/b", "FILE_NOT_FOUND"), ("src/", "PATH_INVALID")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await files("DiffFiles", path=path)
        assert error_info(refused.value)[1] == reason
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await files.read(path, method="DownloadPatch")
        assert error_info(refused.value)[1] == reason
    found = await files("SearchFiles", pattern="MINE", ignore_case=True)
    assert [(match.path, match.line, match.text) for match in found.matches] == [("a.txt", 1, "mine")]
    assert not found.truncated
    found = await files("SearchFiles", pattern="e", limit=2)
    assert (len(found.matches), found.truncated) == (2, True)
    assert [file.path for file in (await files("FindFiles", pattern="*.txt")).files] == ["a.txt", "b.txt"]
    packed = await files.read("", method="DownloadArchive", at="1")
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        assert tar.extractfile("a.txt").read() == b"two\n"
    assert await files.read("src/app.py", method="DownloadFile", offset=7, length=5) == b"hello"


async def test_a_commit_says_what_was_done_and_how_much_it_changes(files: Calls) -> None:
    write, move, delete = (lambda path, text: {"write": pb.WriteEdit(path=path, text=text)}), pb.MoveEdit, pb.DeleteEdit
    await files.edit(write("n.txt", "a\nb\n"))
    await files.edit(write("n.txt", "a\nc\n"))
    await files.edit({"move": move(path="n.txt", to="d/n.txt")})
    await files.edit({"make_directory": pb.MakeDirectoryEdit(path="e")}, {"make_directory": pb.MakeDirectoryEdit(path="e")})
    await files.edit(write("x", "x\n"), write("y", "y\n"))
    await files.edit(write("a.txt", "else\n"), write("z", "z\n"), {"delete": delete(path="x")})
    await files.edit(write("d/o.txt", "\0"), write("a.txt", "else\n"))
    await files.edit({"delete": delete(path="d", recursive=True)})
    await files.edit(write("n.txt", "a\n"), message="Say it my way")

    async def parts() -> AsyncIterator[pb.UploadFileRequest]:
        yield pb.UploadFileRequest(start=pb.UploadStart(session_id=files.session_id, path="u", size=4))
        yield pb.UploadFileRequest(data=b"1\n2\n")

    await files.stub.UploadFile(parts(), metadata=files.client.metadata, timeout=60)
    await files.client.call("RestoreSession", session_pb.RestoreSessionRequest(session_id=files.session_id, at="1"))
    log = await files.client.log(files.session_id)
    told = [event.git_updated for event in log if event.HasField("git_updated")]
    assert [(git.message, git.files_changed, git.additions, git.deletions) for git in told] == [
        ("Create n.txt", 1, 2, 0),
        ("Edit n.txt", 1, 1, 1),
        ("Move n.txt to d/n.txt", 1, 0, 0),
        ("Create e", 1, 0, 0),
        ("Create 2 files", 2, 2, 0),
        ("Edit 3 files", 3, 2, 2),
        ("Create d/o.txt", 1, 0, 0),
        ("Delete d", 2, 0, 2),
        ("Say it my way", 1, 1, 0),
        ("Create u", 1, 2, 0),
        ("Restore snapshot 1", 6, 2, 5),
    ]
    (deleted,) = [event.file_changed for event in log if event.file_changed.changes and event.file_changed.changes[0].path == "d/n.txt"][1:]
    assert [(file.path, file.binary, file.deletions) for file in deleted.changes] == [("d/n.txt", False, 2), ("d/o.txt", True, 0)]
    history = await files.client.call("ListSnapshots", session_pb.ListSnapshotsRequest(session_id=files.session_id))
    assert [each.message for each in history.snapshots][::-1] == [git.message for git in told]


async def test_eight_edits_of_one_file_keep_one_and_tell_seven(files: Calls) -> None:
    etag = (await files("ListFiles")).files[0].etag
    results = await asyncio.gather(*(files.write("a.txt", f"{n}\n", expected_etag=etag) for n in range(8)), return_exceptions=True)
    kept = [n for n, result in enumerate(results) if not isinstance(result, Exception)]
    assert len(kept) == 1
    assert await files.read("a.txt") == f"{kept[0]}\n".encode()
    now = (await files("ListFiles")).files[0].etag
    for result in results:
        if isinstance(result, grpc.aio.AioRpcError):
            assert error_info(result)[:3] == (grpc.StatusCode.ABORTED, "FILE_CHANGED", {"path": "a.txt", "etag": now})


async def test_eight_edits_of_eight_files_are_all_kept(files: Calls) -> None:
    await asyncio.gather(*(files.write(f"new/{n}.txt", f"{n}\n", expected_etag="") for n in range(8)))
    listed = await files("ListFiles", path="new")
    assert [file.path for file in listed.files] == [f"new/{n}.txt" for n in range(8)]
    assert [await files.read(f"new/{n}.txt") for n in range(8)] == [f"{n}\n".encode() for n in range(8)]
    await files.client.log(files.session_id)


async def test_a_request_that_comes_again_gets_the_first_answer_and_changes_nothing(files: Calls) -> None:
    moved = {"move": pb.MoveEdit(path="a.txt", to="b.txt")}
    first = await files.edit(moved, request_id="one")
    assert (first.files[0].changed, first.snapshot) == (True, 1)
    written = await files.edit({"write": pb.WriteEdit(path="b.txt", text="two\n")}, request_id="two")
    assert await files.edit(moved, request_id="one") == first, "it would be FILE_NOT_FOUND"
    await files.write("b.txt", "three\n")
    assert await files.edit({"write": pb.WriteEdit(path="b.txt", text="two\n")}, request_id="two") == written
    assert await files.read("b.txt") == b"three\n"
    same = {"write": pb.WriteEdit(path="b.txt", text="three\n")}
    nothing = await files.edit(same, request_id="nothing")
    assert (nothing.files[0].changed, nothing.snapshot) == (False, 0)
    await files.write("b.txt", "four\n")
    assert await files.edit(same, request_id="nothing") == nothing
    assert await files.read("b.txt") == b"four\n"
    assert await files.edit(moved, request_id="one") == first
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await files.edit({"move": pb.MoveEdit(path="b.txt", to="c.txt")}, request_id="one")
    assert error_info(refused.value)[:2] == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    deep = "/".join(["x" * 200] * 14)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await files.edit(*({"delete": pb.DeleteEdit(path=f"{deep}/{n}")} for n in range(100)), request_id="long")
    assert error_info(refused.value)[1] == "REQUEST_TOO_LARGE"
    at_once = await asyncio.gather(*(files.edit({"delete": pb.DeleteEdit(path="b.txt")}, request_id="gone") for _ in range(5)))
    assert all(each == at_once[0] for each in at_once)


@pytest.mark.parametrize("token", ["zz", "zz.zz", "ab.YS50eHQ=", "..", "a" * 40, "a" * 40 + ".%"])
async def test_a_page_token_that_is_none_is_refused(files: Calls, token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await files("ListFiles", page_token=token)
    assert error_info(refused.value)[:2] in {
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
        (grpc.StatusCode.NOT_FOUND, "SNAPSHOT_NOT_FOUND"),
    }


async def test_what_stands_where_nothing_was_expected_is_told(files: Calls) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=r"'a\.txt' is there already"):
        await files.write("a.txt", "x", expected_etag="")
    with pytest.raises(grpc.aio.AioRpcError, match=r"'new\.txt' is not there"):
        await files.write("new.txt", "x", expected_etag="a" * 40)


async def test_a_write_that_says_no_content_keeps_what_is_there(files: Calls) -> None:
    done = await files.edit({"write": pb.WriteEdit(path="a.txt", executable=True)})
    assert (done.files[0].file.kind, done.files[0].file.size) == (pb.FILE_KIND_EXECUTABLE, 4)
    assert await files.read("a.txt") == b"one\n"
    for write in (pb.WriteEdit(path="a.txt"), pb.WriteEdit(path="new", executable=True)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await files.edit({"write": write})
        assert error_info(refused.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    await files.edit({"write": pb.WriteEdit(path="a.txt", text="")}, {"write": pb.WriteEdit(path="new", data=b"", executable=True)})
    assert [await files.read(path) for path in ("a.txt", "new")] == [b"", b""]


async def test_an_edit_writes_no_more_than_an_upload(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, bare: Path
) -> None:
    async with in_process(settings_for(database, server_data_dir, git_server, upload_mib=1)) as (_, client):
        request = session_pb.CreateSessionRequest(repository_url=f"{git_server.url}/acme/app.git")
        files = Calls(client, (await client.call("CreateSession", request)).session.session_id)
        await files.write("most", "x" * 2**20)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await files.write("more", "x" * (2**20 + 1))
        told = error_info(refused.value)
        assert (told[0], told[1], told[2]["limit"]) == (grpc.StatusCode.FAILED_PRECONDITION, "FILE_TOO_LARGE", "1048576")


async def test_an_edit_on_another_head_is_refused_or_made_anew(files: Calls, server: Any) -> None:
    head = (await files("ListFiles")).commit
    await files.write("a.txt", "first\n")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await files.edit({"delete": pb.DeleteEdit(path="a.txt")}, if_head=head)
    assert error_info(refused.value)[:2] == (grpc.StatusCode.ABORTED, "HEAD_MOVED")
    done = await files.edit(
        {"move": pb.MoveEdit(path="src", to="lib")}, {"make_directory": pb.MakeDirectoryEdit(path="new")},
        {"delete": pb.DeleteEdit(path="a.txt")}, {"delete": pb.DeleteEdit(path="lib", recursive=True)}, message="Tidy",
    )  # fmt: skip
    assert [(each.file.path, each.changed) for each in done.files] == [("lib", True), ("new", True), ("a.txt", True), ("lib", True)]
    assert [file.path for file in (await files("ListFiles", recursive=True)).files] == [
        "more.jsonl", "new/.gitkeep", "wait.jsonl", "write.jsonl",
    ]  # fmt: skip
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await files.edit({})
    assert error_info(refused.value)[1] == "INVALID_FIELD"


async def test_while_an_agent_works_its_workspace_is_what_is_seen_and_edited(files: Calls, bare: Path) -> None:
    request = session_pb.ExecuteSessionRequest(session_id=files.session_id, prompt="go", provider="replay", model="wait.jsonl")
    stream = files.client.stub.ExecuteSession(request, metadata=files.client.metadata, timeout=100)
    async for frame in stream:
        if any(event.HasField("tool_call") for event in frame.events.events):
            break
    async with asyncio.timeout(20):
        while "own" not in (names := [file.path for file in (await files("ListFiles")).files]):
            await asyncio.sleep(0.02)
    assert names == ["a.txt", "more.jsonl", "own", "src", "wait.jsonl", "write.jsonl"]
    assert "own" not in [file.path for file in (await files("ListFiles", at="head")).files]
    assert await files.read("own") == await files.read("own", method="DownloadFile") == b"agent\n"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await files.edit({"write": pb.WriteEdit(path="b.txt", text="b")}, {"delete": pb.DeleteEdit(path="nothing")})
    assert error_info(refused.value)[:3] == (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND", {"path": "nothing", "done": "1"})
    committed = (await files("ListFiles", at="head")).files[0].etag
    done = await files.edit({"write": pb.WriteEdit(path="a.txt", text="user\n", expected_etag=committed)})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await files.write("a.txt", "lost\n", expected_etag=committed)
    assert error_info(refused.value)[:3] == (
        grpc.StatusCode.ABORTED,
        "FILE_CHANGED",
        {"path": "a.txt", "etag": done.files[0].file.etag, "done": "0"},
    )
    (listing, names, lines, diff, newest) = await asyncio.gather(
        files("FindFiles", pattern="own", at="head"),
        files("FindFiles", pattern="own"),
        files("SearchFiles", pattern="agent"),
        files("DiffFiles"),
        files("DiffFiles", to="head"),
    )
    assert [each.behind_workspace for each in (listing, names, lines, diff, newest)] == [False, True, True, True, False]
    assert not names.files, "it is of a commit, and says so"
    packed = files.stub.DownloadArchive(pb.DownloadArchiveRequest(session_id=files.session_id), metadata=files.client.metadata)
    headers = dict(await packed.initial_metadata())
    assert (headers["x-treadle-commit"], headers["x-treadle-behind-workspace"]) == (names.commit, "1")
    packed.cancel()
    made = {"make_directory": pb.MakeDirectoryEdit(path="empty")}
    assert [(await files.edit(made)).files[0].changed for _ in range(2)] == [True, False]
    moved = {"move": pb.MoveEdit(path="more.jsonl", to="moved.jsonl")}
    assert await files.edit(moved, request_id="moved") == await files.edit(moved, request_id="moved")
    done = await files.edit({"write": pb.WriteEdit(path="go", text="seen by the agent\n", executable=True)})
    assert (done.commit, done.files[0].file.kind) == ("", pb.FILE_KIND_EXECUTABLE)
    async for _ in stream:
        pass
    log = await files.client.log(files.session_id)
    pushed = pushed_files(bare, branch_of(log))
    assert {path: pushed[path] for path in ("own", "a.txt", "b.txt", "go", "seen", "empty/.gitkeep")} == {
        "own": "agent", "a.txt": "user", "b.txt": "b", "go": "seen by the agent", "seen": "seen by the agent\n0", "empty/.gitkeep": "",
    }  # fmt: skip
    told = [event for event in log if event.HasField("file_changed") and event.actor.kind == event_pb2.ACTOR_KIND_USER]
    assert [[change.path for change in event.file_changed.changes] for event in told] == [
        ["b.txt"], ["a.txt"], ["empty/.gitkeep"], ["moved.jsonl"], ["go"],
    ]  # fmt: skip
    assert {(event.actor.id, event.turn_id, event.file_changed.turn_total) for event in told} == {(USER, log[0].turn_id, False)}


async def test_a_server_that_ends_keeps_the_last_edit_before(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, bare: Path
) -> None:
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        request = session_pb.CreateSessionRequest(repository_url=f"{git_server.url}/acme/app.git")
        session_id = (await client.call("CreateSession", request)).session.session_id
        files = Calls(client, session_id)
        commits = [(await files.write("a.txt", text)).commit for text in ("2", "3", "4")]
    (mirror,) = (server_data_dir / "mirrors").glob("*.git")
    assert git(mirror, "rev-parse", session_ref(session_id)) == commits[-1]


async def test_files_of_somebody_else_do_not_exist(files: Calls, server: Any) -> None:
    stranger = Principal("other", "stranger", "Stranger", "s@other.invalid")
    await server.stores.keys.ensure_user(stranger)
    key = await create_key(server.stores.keys, stranger)
    others = Calls(replace(files.client, key=key), files.session_id)
    for method, fields in {
        "ListFiles": {}, "FindFiles": {"pattern": "x"}, "SearchFiles": {"pattern": "x"}, "DiffFiles": {},
        "EditFiles": {"edits": [pb.FileEdit(delete=pb.DeleteEdit(path="a.txt"))]},
    }.items():  # fmt: skip
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await others(method, **fields)
        assert error_info(refused.value)[1] == "SESSION_NOT_FOUND", method
    for method in ("ReadFile", "DownloadFile", "DownloadArchive", "DownloadPatch"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await others.read("a.txt", method=method)
        assert error_info(refused.value)[1] == "SESSION_NOT_FOUND", method


async def test_a_burst_of_edits_keeps_no_other_session_from_the_object_store(files: Calls, git_server: GitServer) -> None:
    async def stored(session_id: str) -> list[bool]:
        request = session_pb.ListSnapshotsRequest(session_id=session_id, page_size=100)
        return [each.stored for each in (await files.client.call("ListSnapshots", request)).snapshots]

    created = await files.client.call("CreateSession", session_pb.CreateSessionRequest(repository_url=f"{git_server.url}/acme/app.git"))
    other = Calls(files.client, created.session.session_id)
    for number in range(60):
        await files.write("a.txt", f"{number}\n")
    await other.write("a.txt", "mine\n")
    async with asyncio.timeout(30):
        while not all(await stored(other.session_id)):
            await asyncio.sleep(0.01)
    assert not all(await stored(files.session_id)), "the burst was stored first"
