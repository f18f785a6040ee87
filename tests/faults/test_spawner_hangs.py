"""Who ends workers does not answer while an agent works, as a spawner that hangs: the turn ends all the same, and as it should."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.git_server import git_server as serving
from support.treadle import events_of, in_process, kinds, recording, settings_for
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


async def test_a_worker_that_cannot_be_ended_in_the_end_is_told_of_and_its_work_is_kept(
    database: DatabaseUrls, server_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still write, so nobody reads what it wrote. When it can be ended it is, and its files stay for a person."""
    again: list[bool] = []
    ended = asyncio.Event()
    with ExitStack() as stack, serving(tmp_path / "host") as git_server:
        git_server.create("acme/app", {"r.jsonl": recording({"write": "partial.txt", "content": "so far\n"}), "later.jsonl": recording()})
        settings = settings_for(database, server_data_dir, git_server, import_retry_seconds=0.6, lease_seconds=3)
        async with in_process(settings) as (server, client):
            logs = stack.enter_context(capture_logs())
            collect = server.launcher.collect

            async def hung(worker: Any) -> Any:
                if not again:
                    raise WorkerLost("the spawner does not answer")
                done = await collect(worker)
                ended.set()
                return done

            monkeypatch.setattr(server.launcher, "collect", hung)
            request = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay"}
            seen = await client.run(**request, model="r.jsonl")
            end = seen[-1].turn_completed
            assert (end.status, end.code, end.pushed) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_WORKER_LOST, False)
            worker = WorkerId(seen[0].turn_id, 1)
            slot = slot_of(server_data_dir / "workers", worker)
            for words in ("the spawner does not answer", "see that the spawner and the container engine answer", slot.path.name):
                assert words in end.message
            assert [event.error.code for event in seen if event.HasField("error")] == ["WORKSPACE"]
            assert not [event for event in seen if event.worker_updated.phase == event_pb2.WORKER_PHASE_EXITED]
            again.append(True)
            async with asyncio.timeout(20):
                await ended.wait()
            assert slot.exit() is not None
            told = {"event": "worker.kept", "worker_id": str(worker), "workspace": str(slot.workspace)}
            await eventually(lambda: any(told.items() <= each.items() for each in logs), limit=20)
            assert (slot.workspace / "partial.txt").read_text() == "so far\n"
            # The session goes on.
            after = await client.run(session_id=seen[0].session_id, prompt="go on", provider="replay", model="later.jsonl")
            assert after[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED
            assert (slot.workspace / "partial.txt").exists()
