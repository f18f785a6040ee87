"""Who ends workers does not answer while an agent works, as a spawner that hangs: the turn ends all the same, and as it should."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.git_server import git_server as serving
from support.treadle import branch_of, events_of, in_process, kinds, pushed_files, recording, settings_for
from support.workers import eventually, python_of

from server.embedded.postgres_home import DatabaseUrls
from server.kernel.errors import WorkerLost
from server.kernel.ports.launcher import WorkerId
from server.workers.slot import slot_of
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

LONG = recording({"write": "partial.txt", "content": "so far\n"}, {"say": "working"}, {"run": "sleep 600"})


@pytest.mark.parametrize(
    ("struck", "status", "code"),
    [
        (signal.SIGKILL, event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_WORKER_LOST),
        (signal.SIGSTOP, event_pb2.TURN_STATUS_INTERRUPTED, event_pb2.TURN_CODE_UNSPECIFIED),
    ],
    ids=["its worker is killed", "its worker cannot be stopped"],
)
async def test_a_worker_that_cannot_be_ended_is_given_up_at_once(
    struck: signal.Signals,
    status: int,
    code: int,
    database: DatabaseUrls,
    server_data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each try takes a minute."""
    tries: list[str] = []
    answers_again: list[str] = []

    def mark(point: str) -> None:
        if point == "conclude.commit.after":
            answers_again.append(point)

    with serving(tmp_path / "host") as git_server:
        git_server.create("acme/app", {"r.jsonl": LONG})
        async with in_process(settings_for(database, server_data_dir, git_server), mark=mark) as (server, client):
            collect = server.launcher.collect

            async def hung(worker: Any) -> Any:
                if answers_again:
                    return await collect(worker)
                tries.append(str(worker))
                raise WorkerLost("the spawner does not answer")

            monkeypatch.setattr(server.launcher, "collect", hung)
            stream = client.execute(repository_url=f"{git_server.url}/acme/app.git", prompt="go", provider="replay", model="r.jsonl")
            seen: list[event_pb2.Event] = []
            async for frame in stream:
                seen.extend(frame.events.events)
                if "message" in kinds(seen):
                    break
            os.kill(python_of(server.launcher, WorkerId(seen[0].turn_id, 1)), struck)
            if struck == signal.SIGSTOP:
                await client.call("Interrupt", pb.InterruptRequest(session_id=seen[0].session_id))
            seen += await events_of(client.resume(seen[0].session_id, seen[-1].seq))
    end = seen[-1].turn_completed
    assert (end.status, end.code, end.pushed) == (status, code, True)
    assert len(tries) == 1
    phases = [event.worker_updated.phase for event in seen if event.HasField("worker_updated")]
    assert phases[-2:] == [event_pb2.WORKER_PHASE_LOST, event_pb2.WORKER_PHASE_EXITED]


@pytest.mark.parametrize("moved", [False, True], ids=["the session waits", "the session goes on"])
async def test_work_of_a_worker_that_cannot_be_ended_is_published_when_it_can(
    moved: bool, database: DatabaseUrls, server_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still write, so nobody reads what it wrote, and the turn ends without it. Where the session has work of a later turn by then,
    what is published gets a branch of its own."""
    hangs: list[str] = []
    answers: list[str] = []
    with serving(tmp_path / "host") as git_server:
        partial = recording({"write": "partial.txt", "content": "so far\n"})
        later = recording({"write": "later.txt", "content": "later\n"})
        bare = git_server.create("acme/app", {"r.jsonl": partial, "later.jsonl": later})
        settings = settings_for(database, server_data_dir, git_server, import_retry_seconds=0.6, lease_seconds=3)
        async with in_process(settings) as (server, client):
            collect = server.launcher.collect

            async def hung(worker: WorkerId) -> Any:
                hangs.append(worker.turn_id)
                if worker.turn_id == hangs[0] and not answers:
                    raise WorkerLost("the spawner does not answer")
                return await collect(worker)

            monkeypatch.setattr(server.launcher, "collect", hung)
            request = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay"}
            seen = await client.run(**request, model="r.jsonl")
            session, end = seen[0].session_id, seen[-1].turn_completed
            assert (end.status, end.code, end.pushed) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_WORKER_LOST, False)
            slot = slot_of(server_data_dir / "workers", WorkerId(seen[0].turn_id, 1))
            for words in ("the spawner does not answer", "see that the spawner and the container engine answer", slot.path.name):
                assert words in end.message
            assert [event.error.code for event in seen if event.HasField("error")] == ["WORKSPACE"]
            assert not [event for event in seen if event.worker_updated.phase == event_pb2.WORKER_PHASE_EXITED]
            if moved:
                after = await client.run(session_id=session, prompt="go on", model="later.jsonl")
                assert after[-1].turn_completed.pushed
            assert (slot.workspace / "partial.txt").exists()
            answers.append("again")
            await eventually(lambda: not slot.path.exists(), limit=60)
            branch = f"{branch_of(seen)}-turn-1" if moved else branch_of(seen)
            assert pushed_files(bare, branch)["partial.txt"] == "so far"
            log = await client.log(session)
            committed, pushed = [event for event in log if event.HasField("git_updated") and not event.turn_id]
            assert (committed.git_updated.action, pushed.git_updated.action) == (
                event_pb2.GIT_ACTION_COMMITTED,
                event_pb2.GIT_ACTION_PUSHED,
            )
            assert (committed.git_updated.branch, committed.git_updated.files_changed, committed.git_updated.additions) == (branch, 1, 1)
            if not moved:
                after = await client.run(session_id=session, prompt="go on", model="later.jsonl")
                assert after[-1].turn_completed.pushed
            files = pushed_files(bare, branch_of(seen))
            assert ("later.txt" in files, "partial.txt" in files) == (True, not moved)
