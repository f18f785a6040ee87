"""Work that cannot be read back when the turn ends: tried again for a while, then kept; never thrown away."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.git_server import GitServer
from support.treadle import Client, branch_of, events_of, in_process, kinds, pushed_files, recording, settings_for
from support.workers import eventually

from server.embedded.postgres_home import DatabaseUrls
from server.git import diff
from server.kernel.ports.launcher import WorkerId
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

WORK = recording({"write": "work.txt", "content": "hours of work\n"}, {"say": "done"}, {"run": ["sleep", "1000"]})


@pytest.fixture
def bare(git_server: GitServer) -> Path:
    return git_server.create("acme/app", {"README.md": "# App\n", "r.jsonl": WORK})


def request(git_server: GitServer) -> dict[str, str]:
    return {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}


@contextmanager
def mirror_in_use(data_dir: Path) -> Iterator[None]:
    """Another process holds the mirror's lock, as a second server on this machine may."""
    (lock,) = (data_dir / "mirrors").glob("*.lock")
    descriptor = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


async def until_working(stream: Any) -> list[event_pb2.Event]:
    """Read until the agent's last command runs."""
    seen: list[event_pb2.Event] = []
    async for frame in stream:
        seen.extend(frame.events.events)
        if any(event.HasField("tool_call") and "sleep" in event.tool_call.command for event in seen):
            return seen
    raise AssertionError("the stream ended early")


async def test_what_cannot_be_read_now_is_read_a_moment_later(
    database: DatabaseUrls, bare: Path, git_server: GitServer, server_data_dir: Path
) -> None:
    tried: asyncio.Queue[str] = asyncio.Queue()
    settings = settings_for(database, server_data_dir, git_server, git_timeout_seconds=0.5)
    async with in_process(settings, mark=lambda point: tried.put_nowait(point) if point == "import.before" else None) as (_, client):
        stream = client.execute(**request(git_server))
        seen = await until_working(stream)
        with mirror_in_use(server_data_dir):
            await client.call("Interrupt", pb.InterruptRequest(session_id=seen[0].session_id))
            async with asyncio.timeout(30):
                await tried.get()
                await tried.get()
        seen += await events_of(stream)
        end = seen[-1].turn_completed
        assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_INTERRUPTED, True)
        assert pushed_files(bare, branch_of(seen))["work.txt"] == "hours of work"
        await client.log(seen[0].session_id)


async def test_work_that_cannot_be_read_back_is_kept_and_published_later(
    database: DatabaseUrls, bare: Path, git_server: GitServer, server_data_dir: Path
) -> None:
    settings = settings_for(database, server_data_dir, git_server, git_timeout_seconds=0.5, import_retry_seconds=0.1)
    async with in_process(settings) as (_, client):
        stream = client.execute(**request(git_server))
        seen = await until_working(stream)
        in_use = ExitStack()
        in_use.enter_context(mirror_in_use(server_data_dir))
        await client.call("Interrupt", pb.InterruptRequest(session_id=seen[0].session_id))
        seen += await events_of(stream)
        end = seen[-1].turn_completed
        assert (end.status, end.code, end.commit) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_WORKSPACE, "")
        told = next(event.error.message for event in seen if event.HasField("error"))
        (slot,) = [path for path in (server_data_dir / "workers").iterdir() if path.is_dir()]
        assert f"{slot.name}/workspace" in told
        assert (slot / "workspace/work.txt").read_text() == "hours of work\n"
        assert kinds(seen).count("turn_completed") == 1
        await client.log(seen[0].session_id)
    # Nor does the next start take it for a leftover.
    with in_use, capture_logs() as logs:
        async with in_process(settings) as (server, _):
            assert await server.launcher.leftovers() == [WorkerId(seen[0].turn_id, 1)]
            told = {"event": "worker.kept", "workspace": str(slot / "workspace")}
            await eventually(lambda: any(told.items() <= each.items() for each in logs), limit=20)
            assert (slot / "workspace/work.txt").read_text() == "hours of work\n"
    # With as much time as it needs, for the next try would come half a minute later.
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        await eventually(lambda: not slot.exists(), limit=60)
        assert pushed_files(bare, branch_of(seen))["work.txt"] == "hours of work"
        committed, pushed = (await client.log(seen[0].session_id))[-2:]
        assert committed.git_updated.action == event_pb2.GIT_ACTION_COMMITTED
        assert pushed.git_updated.action == event_pb2.GIT_ACTION_PUSHED
        session = (await client.call("GetSession", pb.GetSessionRequest(session_id=seen[0].session_id))).session
        assert (session.head_commit, session.unpushed_commit) == (committed.git_updated.sha, "")


async def test_a_change_that_cannot_be_summed_up_is_pushed_all_the_same(
    client: Client, bare: Path, git_server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ValueError("zip() argument 2 is longer than argument 1")

    monkeypatch.setattr(diff, "compare", broken)
    stream = client.execute(**request(git_server))
    seen = await until_working(stream)
    await client.call("Interrupt", pb.InterruptRequest(session_id=seen[0].session_id))
    seen += await events_of(stream)
    end = seen[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_INTERRUPTED, True)
    assert pushed_files(bare, branch_of(seen))["work.txt"] == "hours of work"
