"""Work that a turn could not push is pushed later, by one call: to its branch, or to another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.git_server import GitServer, git
from support.treadle import Client, branch_of, error_info, kinds, pushed_files, recording

from treadle.file.v1 import file_service_pb2 as file_pb2
from treadle.file.v1.file_service_pb2_grpc import FileServiceStub
from treadle.session.v1 import event_pb2, session_pb2, snapshot_pb2
from treadle.session.v1 import session_service_pb2 as pb

WORK = recording({"write": "made.txt", "content": "made\n"})
MORE = recording({"write": "more.txt", "content": "more\n"})
NOTHING = recording({"say": "nothing to do"})


@pytest.fixture
def bare(git_server: GitServer) -> Path:
    return git_server.create("acme/app", {"README.md": "# App\n", "work.jsonl": WORK, "more.jsonl": MORE, "nothing.jsonl": NOTHING})


def request(git_server: GitServer, model: str = "work.jsonl") -> dict[str, str]:
    return {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": model}


async def push(client: Client, session_id: str, onto: str = "") -> session_pb2.Session:
    return (await client.call("PushSession", pb.PushSessionRequest(session_id=session_id, onto_new_branch=onto))).session


async def refused(client: Client, session_id: str, onto: str = "") -> tuple[grpc.StatusCode, str, dict[str, str], list[str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await push(client, session_id, onto)
    return error_info(caught.value)


async def session_of(client: Client, session_id: str) -> session_pb2.Session:
    return (await client.call("GetSession", pb.GetSessionRequest(session_id=session_id))).session


async def unpushed(client: Client, git_server: GitServer) -> tuple[str, str, str]:
    """A session whose first turn was refused its push: its id, its branch, its commit."""
    # The branch itself may still be made.
    hook = git_server.root / "acme" / "app.git" / "hooks" / "pre-receive"
    git_server.refuse_pushes("acme/app", "GH006: this branch is protected")
    hook.write_text("#!/bin/sh\nread old new ref\n[ $(git rev-list --count main..$new) = 0 ] && exit 0\n" + hook.read_text())
    events = await client.run(**request(git_server))
    assert not events[-1].turn_completed.pushed
    return events[0].session_id, branch_of(events), events[-1].turn_completed.commit


async def test_a_refused_push_is_tried_again_by_one_call(client: Client, bare: Path, git_server: GitServer) -> None:
    session_id, branch, commit = await unpushed(client, git_server)
    session = await session_of(client, session_id)
    assert (session.unpushed_commit, session.push_refusal) == (commit, event_pb2.PUSH_REFUSAL_PROTECTED_BRANCH)
    assert "GH006" in session.push_message
    code, reason, metadata, _ = await refused(client, session_id)
    assert (code, reason, metadata["kind"]) == (grpc.StatusCode.FAILED_PRECONDITION, "PUSH_REFUSED", "PROTECTED_BRANCH")
    assert "GH006" in metadata["reason"]
    told = (await client.log(session_id))[-1]
    assert (told.turn_id, told.actor.kind, told.git_updated.action) == (
        "",
        event_pb2.ACTOR_KIND_USER,
        event_pb2.GIT_ACTION_PUSH_FAILED,
    )
    assert (told.git_updated.refusal, told.git_updated.sha) == (event_pb2.PUSH_REFUSAL_PROTECTED_BRANCH, commit)
    (bare / "hooks" / "pre-receive").unlink()
    done = await push(client, session_id)
    assert (done.unpushed_commit, done.push_refusal, done.push_message) == ("", event_pb2.PUSH_REFUSAL_UNSPECIFIED, "")
    assert git(bare, "rev-parse", branch) == commit
    log = await client.log(session_id)
    assert (log[-1].git_updated.action, log[-1].git_updated.sha) == (event_pb2.GIT_ACTION_PUSHED, commit)
    # Once more it is as it is.
    assert await push(client, session_id) == done
    assert await client.log(session_id) == log


async def test_work_gets_onto_another_branch_where_its_own_is_taken(client: Client, bare: Path, git_server: GitServer) -> None:
    session_id, branch, commit = await unpushed(client, git_server)
    (bare / "hooks" / "pre-receive").unlink()
    theirs = git_server.commit("acme/app", {"theirs": "1"}, branch=branch)
    assert (await refused(client, session_id))[2]["kind"] == "NON_FAST_FORWARD"
    assert (await refused(client, session_id, "main"))[2]["kind"] == "DEFAULT_BRANCH"
    git(bare, "branch", "taken", "main")
    assert (await refused(client, session_id, "taken"))[2]["kind"] == "BRANCH_EXISTS"
    assert (await session_of(client, session_id)).branch == branch
    code, reason, _, fields = await refused(client, session_id, "../x")
    assert (code, reason, fields) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", ["onto_new_branch"])
    done = await push(client, session_id, "rescued/work")
    assert (done.branch, done.unpushed_commit) == ("rescued/work", "")
    assert (git(bare, "rev-parse", "rescued/work"), git(bare, "rev-parse", branch)) == (commit, theirs)
    pushed, updated = (await client.log(session_id))[-2:]
    assert pushed.git_updated.branch == "rescued/work"
    assert (updated.session_updated.branch, updated.session_updated.changed) == ("rescued/work", ["state", "branch"])
    # Again: it is there. And the session goes on there.
    assert await push(client, session_id, "rescued/work") == done
    again = await client.run(session_id=session_id, prompt="go on", model="more.jsonl")
    assert again[-1].turn_completed.pushed
    assert {*pushed_files(bare, "rescued/work")} >= {"made.txt", "more.txt"}


async def test_who_has_gone_on_from_the_work_has_it(client: Client, bare: Path, git_server: GitServer, tmp_path: Path) -> None:
    session_id, branch, _ = await unpushed(client, git_server)
    (bare / "hooks" / "pre-receive").unlink()
    await push(client, session_id)
    git(tmp_path, "clone", "--quiet", "--branch", branch, str(bare), "theirs")
    git(tmp_path / "theirs", "commit", "--quiet", "--allow-empty", "-m", "theirs")
    git(tmp_path / "theirs", "push", "--quiet", "origin", branch)
    log = await client.log(session_id)
    assert (await push(client, session_id)).unpushed_commit == ""
    assert await client.log(session_id) == log


async def edited(client: Client, session_id: str, path: str, text: str) -> str:
    """A user's edit between turns: its commit."""
    stub: Any = FileServiceStub(client.channel)
    edit = file_pb2.FileEdit(write=file_pb2.WriteEdit(path=path, text=text))
    answer = await stub.EditFiles(file_pb2.EditFilesRequest(session_id=session_id, edits=[edit]), metadata=client.metadata)
    return str(answer.commit)


async def pushed_session(client: Client, git_server: GitServer) -> tuple[str, str]:
    events = await client.run(**request(git_server))
    assert events[-1].turn_completed.pushed
    return events[0].session_id, branch_of(events)


@pytest.fixture
def others(bare: Path, tmp_path: Path) -> Callable[[str, str], str]:
    """Somebody pushes a file to a branch; returns the commit."""

    def commit(branch: str, path: str) -> str:
        work = tmp_path / "others"
        git(tmp_path, "clone", "--quiet", "--branch", branch, str(bare), work.name)
        (work / path).write_text("theirs\n")
        git(work, "add", path)
        git(work, "commit", "--quiet", "-m", "theirs")
        git(work, "push", "--quiet", "origin", branch)
        return git(work, "rev-parse", "HEAD")

    return commit


@pytest.mark.parametrize("model", ["more.jsonl", "nothing.jsonl"])
async def test_an_edit_and_what_others_push_are_merged(
    client: Client, bare: Path, git_server: GitServer, others: Callable[[str, str], str], model: str
) -> None:
    session_id, branch = await pushed_session(client, git_server)
    ours = await edited(client, session_id, "mine", "mine\n")
    theirs = others(branch, "theirs")
    events = await client.run(session_id=session_id, prompt="go on", model=model)
    assert events[-1].turn_completed.pushed
    assert {*pushed_files(bare, branch)} >= {"made.txt", "mine", "theirs"}
    cloned, merged = [event.git_updated for event in events if event.HasField("git_updated")][:2]
    assert (cloned.action, cloned.sha) == (event_pb2.GIT_ACTION_CLONED, theirs)
    assert (merged.action, merged.message) == (event_pb2.GIT_ACTION_COMMITTED, f"Merge {branch} as it is on the remote")
    assert (merged.files_changed, merged.additions) == (1, 1)
    assert git(bare, "log", "-1", "--format=%P %an", merged.sha).split(" ", 2)[:2] == [ours, theirs]
    assert (await session_of(client, session_id)).unpushed_commit == ""
    snapshots = await client.call("ListSnapshots", pb.ListSnapshotsRequest(session_id=session_id))
    kinds_of = [snapshot_pb2.SnapshotKind.Name(each.kind).removeprefix("SNAPSHOT_KIND_") for each in snapshots.snapshots]
    assert kinds_of == [*(["TURN"] if model == "more.jsonl" else []), "CHECKPOINT", "EDIT", "TURN"]


async def test_a_refused_push_and_what_others_push_are_merged(
    client: Client, bare: Path, git_server: GitServer, others: Callable[[str, str], str]
) -> None:
    session_id, branch, commit = await unpushed(client, git_server)
    (bare / "hooks" / "pre-receive").unlink()
    others(branch, "theirs")
    events = await client.run(session_id=session_id, prompt="go on", model="more.jsonl")
    assert events[-1].turn_completed.pushed
    assert {*pushed_files(bare, branch)} >= {"made.txt", "more.txt", "theirs"}
    assert commit in git(bare, "rev-list", branch).split()


async def test_a_conflict_with_what_others_push_loses_neither_side(
    client: Client, bare: Path, git_server: GitServer, others: Callable[[str, str], str]
) -> None:
    session_id, branch = await pushed_session(client, git_server)
    ours = await edited(client, session_id, "made.txt", "mine\n")
    theirs = others(branch, "made.txt")
    events = await client.run(session_id=session_id, prompt="go on", model="more.jsonl")
    ended = events[-1].turn_completed
    assert (ended.status, ended.code) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_REPOSITORY)
    assert all(word in ended.message for word in (branch, theirs[:12], ours[:12], "made.txt"))
    session = await session_of(client, session_id)
    # Until it is solved, whoever looks at the session learns it too.
    assert (session.push_refusal, session.push_message) == (event_pb2.PUSH_REFUSAL_CONFLICT, ended.message)
    (told,) = [each.git_updated for each in events if each.git_updated.action == event_pb2.GIT_ACTION_PUSH_FAILED]
    assert (told.refusal, told.sha) == (event_pb2.PUSH_REFUSAL_CONFLICT, ours)
    assert (session.head_commit, session.unpushed_commit, git(bare, "rev-parse", branch)) == (ours, ours, theirs)
    await push(client, session_id, "mine")
    events = await client.run(session_id=session_id, prompt="go on", model="more.jsonl")
    assert events[-1].turn_completed.pushed
    assert pushed_files(bare, "mine")["made.txt"] == "mine"


async def test_going_back_takes_a_conflict_out_of_the_way(
    client: Client, bare: Path, git_server: GitServer, others: Callable[[str, str], str]
) -> None:
    session_id, branch = await pushed_session(client, git_server)
    await edited(client, session_id, "made.txt", "mine\n")
    others(branch, "made.txt")
    await client.run(session_id=session_id, prompt="go on", model="more.jsonl")
    await client.call("RestoreSession", pb.RestoreSessionRequest(session_id=session_id, at="1"))
    events = await client.run(session_id=session_id, prompt="go on", model="more.jsonl")
    assert events[-1].turn_completed.pushed
    assert pushed_files(bare, branch)["made.txt"] == "theirs"


async def test_what_was_taken_back_on_the_remote_is_not_merged_again(
    client: Client, bare: Path, git_server: GitServer, others: Callable[[str, str], str]
) -> None:
    session_id, branch = await pushed_session(client, git_server)
    await edited(client, session_id, "mine", "mine\n")
    git(bare, "branch", "--force", branch, "main")
    theirs = others(branch, "theirs")
    events = await client.run(session_id=session_id, prompt="go on", model="more.jsonl")
    assert events[-1].turn_completed.code == event_pb2.TURN_CODE_REPOSITORY
    assert "its history was rewritten" in events[-1].turn_completed.message
    assert git(bare, "rev-parse", branch) == theirs


async def test_a_turn_that_changes_nothing_brings_what_was_left(client: Client, bare: Path, git_server: GitServer) -> None:
    session_id, branch, commit = await unpushed(client, git_server)
    (bare / "hooks" / "pre-receive").unlink()
    events = await client.run(session_id=session_id, prompt="look", model="nothing.jsonl")
    assert (events[-1].turn_completed.commit, events[-1].turn_completed.pushed) == ("", True)
    assert git(bare, "rev-parse", branch) == commit
    assert (await session_of(client, session_id)).unpushed_commit == ""


async def test_a_session_without_work_has_nothing_to_push(client: Client, bare: Path, git_server: GitServer) -> None:
    made = await client.call("CreateSession", pb.CreateSessionRequest(repository_url=f"{git_server.url}/acme/app.git"))
    assert await push(client, made.session.session_id) == made.session
    events = await client.run(**request(git_server, "nothing.jsonl"))
    assert "git_updated" in kinds(events)
    assert (await push(client, events[0].session_id)).unpushed_commit == ""


async def test_a_turn_pushes_by_itself(client: Client, bare: Path, git_server: GitServer) -> None:
    wait = recording({"write": "made.txt", "content": "made\n"}, {"run": ["sleep", "1000"]})
    git_server.commit("acme/app", {"wait.jsonl": wait})
    async for frame in client.execute(**request(git_server, "wait.jsonl")):
        if any(event.HasField("file_changed") for event in frame.events.events):
            session_id = frame.events.events[0].session_id
            break
    assert (await refused(client, session_id))[1] == "TURN_ACTIVE"
    await client.call("Interrupt", pb.InterruptRequest(session_id=session_id))


async def test_a_branch_name_that_is_taken_makes_no_session(client: Client, bare: Path, git_server: GitServer) -> None:
    git(bare, "branch", "treadle/taken", "main")
    before = await client.call("ListSessions", pb.ListSessionsRequest())
    new = request(git_server) | {"branch": "treadle/taken"}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.run(**new)
    assert error_info(caught.value)[:2] == (grpc.StatusCode.ALREADY_EXISTS, "BRANCH_EXISTS")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call("CreateSession", pb.CreateSessionRequest(repository_url=new["repository_url"], branch="treadle/taken"))
    assert error_info(caught.value)[1] == "BRANCH_EXISTS"
    assert await client.call("ListSessions", pb.ListSessionsRequest()) == before
    session_id, _ = await pushed_session(client, git_server)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call("ForkSession", pb.ForkSessionRequest(session_id=session_id, branch="treadle/taken"))
    assert error_info(caught.value)[1] == "BRANCH_EXISTS"


async def test_a_branch_that_is_taken_meanwhile_is_given_up_for_another(client: Client, bare: Path, git_server: GitServer) -> None:
    new = pb.CreateSessionRequest(repository_url=request(git_server)["repository_url"], branch="treadle/wanted")
    session = (await client.call("CreateSession", new)).session
    git_server.commit("acme/app", {"theirs": "1"}, branch="treadle/wanted")
    events = await client.run(session_id=session.session_id, prompt="go", provider="replay", model="work.jsonl")
    (told,) = [each.git_updated for each in events if each.git_updated.action == event_pb2.GIT_ACTION_PUSH_FAILED]
    assert (told.refusal, told.sha) == (event_pb2.PUSH_REFUSAL_BRANCH_EXISTS, "")
    kept = await session_of(client, session.session_id)
    assert (kept.push_refusal, kept.push_message) == (told.refusal, told.message)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.run(session_id=session.session_id, prompt="go", branch="treadle/free")
    assert f"push {session.session_id} --branch" in str(caught.value.details())
    moved = await push(client, session.session_id, "treadle/free")
    assert (moved.branch, moved.head_commit, moved.push_refusal) == ("treadle/free", "", event_pb2.PUSH_REFUSAL_UNSPECIFIED)
    assert git(bare, "rev-parse", "treadle/free") == git(bare, "rev-parse", "main")
    events = await client.run(session_id=session.session_id, prompt="go", provider="replay", model="work.jsonl")
    assert events[-1].turn_completed.pushed
    assert "made.txt" in pushed_files(bare, "treadle/free")
