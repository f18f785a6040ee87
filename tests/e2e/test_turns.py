"""Turns that do not run straight to their end: stopped, too long, lost, refused; and those that follow."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.git_server import GitServer, git
from support.treadle import (
    Client,
    branch_of,
    error_info,
    events_of,
    in_process,
    kinds,
    pushed_files,
    recording,
    settings_for,
)
from support.workers import eventually

from server.embedded.postgres_home import DatabaseUrls
from server.kernel.ports.launcher import WorkerId
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

LONG = recording({"write": "partial.txt", "content": "so far\n"}, {"say": "waiting"}, {"run": ["sleep", "1000"]}, {"say": "never"})
QUICK = recording({"say": "hello"}, {"write": "second.txt", "content": "two\n"})


@pytest.fixture
def bare(git_server: GitServer) -> Path:
    return git_server.create("acme/app", {"README.md": "# App\n", "long.jsonl": LONG, "quick.jsonl": QUICK})


def request(git_server: GitServer, model: str = "long.jsonl") -> dict[str, str]:
    return {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": model}


async def until_waiting(stream: Any) -> list[event_pb2.Event]:
    """Read until the agent's command runs."""
    seen: list[event_pb2.Event] = []
    async for frame in stream:
        seen.extend(frame.events.events)
        if any(event.HasField("tool_call") and "sleep" in event.tool_call.command for event in seen):
            return seen
    raise AssertionError("the stream ended early")


def changed(events: list[event_pb2.Event]) -> tuple[int, int, int]:
    """Files, lines added and lines removed, as its commit was told."""
    (git,) = [event.git_updated for event in events if event.git_updated.action == event_pb2.GIT_ACTION_COMMITTED]
    return git.files_changed, git.additions, git.deletions


def ended(events: list[event_pb2.Event]) -> event_pb2.TurnCompleted:
    assert kinds(events)[-1] == "turn_completed"
    return events[-1].turn_completed


async def test_interrupt_stops_the_agent_and_publishes_its_work(client: Client, bare: Path, git_server: GitServer) -> None:
    stream = client.execute(**request(git_server))
    seen = await until_waiting(stream)
    session_id = seen[0].session_id
    begun = time.monotonic()
    stopped = await client.call("Interrupt", pb.InterruptRequest(session_id=session_id))
    assert stopped.turn_id == seen[0].turn_id
    seen += await events_of(stream)
    assert time.monotonic() - begun < 20
    end = ended(seen)
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_INTERRUPTED, True)
    assert pushed_files(bare, "refs/heads/" + branch_of(seen))["partial.txt"] == "so far"
    assert changed(seen) == (1, 1, 0)
    assert await client.log(session_id) == seen
    assert (await client.call("Interrupt", pb.InterruptRequest(session_id=session_id))).turn_id == ""


async def test_a_killed_worker_is_told_within_five_seconds_and_its_work_is_pushed(
    server: Any, client: Client, bare: Path, git_server: GitServer, server_data_dir: Path
) -> None:
    stream = client.execute(**request(git_server))
    seen = await until_waiting(stream)
    worker = WorkerId(seen[0].turn_id, 1)
    pids = [int(path.read_text().split()[0]) for path in server_data_dir.glob("workers/*/pid")]
    assert len(pids) == 1, worker
    begun = time.monotonic()
    os.kill(pids[0], signal.SIGKILL)
    async for frame in stream:
        seen.extend(frame.events.events)
    end = ended(seen)
    assert time.monotonic() - begun <= 5.0
    assert (end.status, end.code, end.pushed) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_WORKER_LOST, True)
    assert pushed_files(bare, branch_of(seen))["partial.txt"] == "so far"
    assert changed(seen) == (1, 1, 0)
    phases = [event.worker_updated.phase for event in seen if event.HasField("worker_updated")]
    assert event_pb2.WORKER_PHASE_LOST in phases
    # The session is usable at once, on the same branch.
    again = await client.run(session_id=seen[0].session_id, prompt="go on", model="quick.jsonl")
    assert ended(again).status == event_pb2.TURN_STATUS_COMPLETED
    assert branch_of(again) == branch_of(seen)
    # What the second turn starts from is the session's branch, and it says so.
    cloned = next(event.git_updated for event in again if event.git_updated.action == event_pb2.GIT_ACTION_CLONED)
    assert (cloned.branch, cloned.sha) == (branch_of(seen), ended(seen).commit)
    files = pushed_files(bare, branch_of(seen))
    assert (files["partial.txt"], files["second.txt"]) == ("so far", "two")
    assert git(bare, "rev-list", "--count", f"main..{branch_of(seen)}") == "2"
    await client.log(seen[0].session_id)
    assert [*server_data_dir.glob("workers/*/pid")] == []


@pytest.mark.parametrize("changes", [{"commit_coauthor": "agent", "session_link": "https://t.example/{session_id}"}])
async def test_a_commit_is_its_user_s_and_says_where_it_came_from(client: Client, bare: Path, git_server: GitServer) -> None:
    events = await client.run(**request(git_server, "quick.jsonl"))
    author, committer, trailers = git(bare, "log", "-1", "--format=%an <%ae>|%cn <%ce>|%(trailers)", branch_of(events)).split("|")
    assert author == committer
    assert trailers.splitlines() == [f"Session: https://t.example/{events[0].session_id}"]


@pytest.mark.parametrize("changes", [{"turn_timeout_seconds": 2.0}])
async def test_a_turn_over_its_time_is_stopped_and_published(client: Client, bare: Path, git_server: GitServer) -> None:
    events = await client.run(**request(git_server))
    end = ended(events)
    assert (end.status, end.code, end.pushed) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_TIMEOUT, True)
    assert pushed_files(bare, branch_of(events))["partial.txt"] == "so far"
    assert changed(events) == (1, 1, 0)


async def test_an_agents_failure_is_the_turns(client: Client, git_server: GitServer) -> None:
    broken = recording({"write": "half.txt", "content": "half\n"}, {"fail": "the model said no"})
    bare = git_server.create("acme/broken", {"r.jsonl": broken})
    events = await client.run(repository_url=f"{git_server.url}/acme/broken.git", prompt="go", provider="replay", model="r.jsonl")
    end = ended(events)
    assert (end.status, end.code, end.pushed) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_PROVIDER, True)
    assert "the model said no" in end.message
    assert pushed_files(bare, branch_of(events))["half.txt"] == "half"
    assert changed(events) == (1, 1, 0)


@pytest.mark.parametrize(("point", "pushed"), [("transcript.before", True), ("import.before", False)])
async def test_a_defect_of_the_server_loses_no_work(
    point: str, pushed: bool, database: DatabaseUrls, server_data_dir: Path, bare: Path, git_server: GitServer
) -> None:
    """Where it strikes before the work is published, the turn goes on to that; else the work is published behind the turn."""
    struck: list[str] = []

    def mark(passed: str) -> None:
        if passed == point and not struck:
            struck.append(passed)
            raise RuntimeError("a defect")

    async with in_process(settings_for(database, server_data_dir, git_server, lease_seconds=3), mark=mark) as (_, client):
        events = await client.run(**request(git_server, "quick.jsonl"))
        end = ended(events)
        assert (end.status, end.code, end.pushed) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_INTERNAL, pushed)
        slots = server_data_dir / "workers"
        await eventually(lambda: not [path for path in slots.iterdir() if path.is_dir()], limit=60)
        assert pushed_files(bare, branch_of(events))["second.txt"] == "two"
        assert changed(await client.log(events[0].session_id)) == (1, 1, 0)


async def test_a_second_turn_while_one_runs_is_refused(client: Client, bare: Path, git_server: GitServer, server_data_dir: Path) -> None:
    stream = client.execute(**request(git_server))
    seen = await until_waiting(stream)
    session_id = seen[0].session_id
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.run(session_id=session_id, prompt="more")
    assert error_info(caught.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "TURN_ACTIVE")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call("DeleteSession", pb.DeleteSessionRequest(session_id=session_id))
    assert error_info(caught.value)[1] == "TURN_ACTIVE"
    await client.call("Interrupt", pb.InterruptRequest(session_id=session_id))
    await events_of(stream)
    assert [*server_data_dir.glob("mirrors/*.forgotten/*")] == []
    await client.call("DeleteSession", pb.DeleteSessionRequest(session_id=session_id))
    assert [note.name for note in server_data_dir.glob("mirrors/*.forgotten/*")] == [session_id]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call("GetSession", pb.GetSessionRequest(session_id=session_id))
    assert error_info(caught.value)[1] == "SESSION_NOT_FOUND"


async def test_a_refused_push_keeps_the_commit_and_the_next_turn_brings_it(client: Client, bare: Path, git_server: GitServer) -> None:
    stream = client.execute(**request(git_server))
    seen = await until_waiting(stream)
    git_server.refuse_pushes("acme/app", "GH006: this branch is protected")
    await client.call("Interrupt", pb.InterruptRequest(session_id=seen[0].session_id))
    seen += await events_of(stream)
    end = ended(seen)
    assert not end.pushed
    assert end.commit
    refusal = next(event.git_updated for event in seen if event.git_updated.action == event_pb2.GIT_ACTION_PUSH_FAILED)
    assert "GH006" in refusal.message
    assert refusal.refusal == event_pb2.PUSH_REFUSAL_PROTECTED_BRANCH
    (bare / "hooks" / "pre-receive").unlink()
    again = await client.run(session_id=seen[0].session_id, prompt="go on", model="quick.jsonl")
    assert ended(again).pushed
    files = pushed_files(bare, branch_of(seen))
    assert (files["partial.txt"], files["second.txt"]) == ("so far", "two")
    assert git(bare, "rev-parse", f"{branch_of(seen)}^") == end.commit


async def test_a_client_that_leaves_changes_nothing(client: Client, git_server: GitServer) -> None:
    slow = recording(*[{"say": f"m{n}"} for n in range(5)], {"wait_ms": 300}, {"write": "late.txt", "content": "late\n"})
    bare = git_server.create("acme/slow", {"r.jsonl": slow})
    stream = client.execute(repository_url=f"{git_server.url}/acme/slow.git", prompt="go", provider="replay", model="r.jsonl")
    session_id = ""
    async for frame in stream:
        if frame.events.events:
            session_id = frame.events.events[0].session_id
            break
    stream.cancel()
    events = await events_of(client.resume(session_id))
    assert ended(events).pushed
    assert pushed_files(bare, branch_of(events))["late.txt"] == "late"


async def test_secrets_that_the_server_knows_are_in_no_event(client: Client, git_server: GitServer) -> None:
    half = len(client.key) // 2
    steps = recording(
        {"say": f"the key is {client.key}."},
        {"run": ["sh", "-c", f"printf %s {client.key[:half]}; sleep 0.4; printf %s {client.key[half:]}; echo; exit 3"]},
    )
    git_server.create("acme/leaky", {"r.jsonl": steps})
    events = await client.run(
        repository_url=f"{git_server.url}/acme/leaky.git", prompt=f"use {client.key}", provider="replay", model="r.jsonl"
    )
    assert ended(events).status == event_pb2.TURN_STATUS_COMPLETED
    raw = b"".join(event.SerializeToString() for event in events)
    assert client.key.encode() not in raw
    shown = "".join(event.content_delta.data for event in events if event.HasField("content_delta"))
    assert client.key not in shown
    session = (await client.call("GetSession", pb.GetSessionRequest(session_id=events[0].session_id))).session
    assert client.key not in session.title
    assert client.key.lower() not in session.branch


async def test_a_stream_cut_and_resumed_at_every_event_of_300_is_whole(client: Client, git_server: GitServer) -> None:
    git_server.create("acme/many", {"r.jsonl": recording(*[{"say": f"message {n}"} for n in range(290)])})
    request = {"repository_url": f"{git_server.url}/acme/many.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}
    whole = await client.run(**request)
    assert len(whole) >= 300
    for boundary in range(len(whole) + 1):
        seen: list[event_pb2.Event] = []
        if boundary:
            stream = client.resume(whole[0].session_id)
            async for frame in stream:
                seen.extend(frame.events.events)
                if len(seen) >= boundary:
                    break
            stream.cancel()
            # What a client has read of a frame when it is cut is its own affair: it counts what it has kept.
            seen = seen[:boundary]
        seen += await events_of(client.resume(whole[0].session_id, len(seen)))
        assert seen == whole
