"""A replica dies in a turn, and another one, on another disk, takes the turn over: it never makes up what it cannot see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import grpc
import pytest
from support.git_server import GitServer, git
from support.git_server import git_server as serving
from support.log_checker import check_log
from support.nursery import Nursery
from support.postgres import open_directory
from support.treadle import Killable, connected, events_of, in_process, recording, settings_for
from support.workers import eventually, processes_with

from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2

STEPS = [step for n in range(40) for step in ({"say": f"s{n}"}, {"wait_ms": 20})]
FILES = {
    "README.md": "# App\n",
    "src/app.py": "print(1)\n",
    "quick.jsonl": recording({"say": "hi"}),
    "r.jsonl": recording(*STEPS, {"write": "new.txt", "content": "n\n"}),
}
LEASE = {"lease_seconds": 3.0}


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        yield server


@pytest.fixture
def second_dir() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory / "data"


@pytest.mark.parametrize(
    ("point", "nth", "model"),
    [("spawn.before", 1, ""), ("journal.append.after", 3, ""), ("journal.append.after", 3, "r.jsonl"), ("import.before", 1, "r.jsonl")],
)
async def test_a_turn_whose_worker_is_elsewhere_ends_as_lost_and_changes_nothing(
    database: DatabaseUrls,
    server_data_dir: Path,
    second_dir: Path,
    tmp_path: Path,
    git_server: GitServer,
    nursery: Nursery,
    point: str,
    nth: int,
    model: str,
) -> None:
    bare = git_server.create("acme/app", FILES)
    request = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay"}
    first = Killable(
        settings_for(database, server_data_dir, git_server, log_format="json", **LEASE), tmp_path / "first.log", nursery=nursery
    )
    try:
        async with in_process(settings_for(database, second_dir, git_server, **LEASE)) as (_, client):
            # It has worked on this repository before: its mirror has everything that an import would stand on.
            await client.run(**request, model="quick.jsonl")
            await first.start(kill_at=point, nth=nth)
            seen: list[event_pb2.Event] = []
            async with connected(first.address, first.key) as other:
                with pytest.raises(grpc.aio.AioRpcError):
                    async for frame in other.execute(**request, model=model):
                        seen.extend(frame.events.events)
                    await first.wait_killed()
                    raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
            assert await first.wait_killed() == -9

            events = await events_of(client.resume(seen[0].session_id))
            check_log(events, ended=True)
            end = events[-1].turn_completed
            assert (end.status, end.commit, end.pushed) == (event_pb2.TURN_STATUS_FAILED, "", False)
            assert end.code == event_pb2.TURN_CODE_WORKER_LOST, end
            branch = next(event.git_updated.branch for event in events if event.git_updated.action == event_pb2.GIT_ACTION_BRANCHED)
            assert git(bare, "diff", "--stat", "main", branch) == ""
            # The session is usable at once.
            again = await client.run(session_id=seen[0].session_id, prompt="again", provider="replay", model="quick.jsonl")
            assert again[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED
    finally:
        await first.stop()


async def test_a_worker_whose_turn_another_replica_has_ended_is_ended(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer
) -> None:
    """One on another disk: it does not see the worker, and ends the turn as soon as it has it."""
    git_server.create("acme/app", {"r.jsonl": recording({"say": "x"}, {"run": "sleep 1000.875"})})
    async with in_process(settings_for(database, server_data_dir, git_server, **LEASE)) as (_, client):
        stream = client.execute(repository_url=f"{git_server.url}/acme/app.git", prompt="go", provider="replay", model="r.jsonl")
        async for frame in stream:
            if any(event.HasField("tool_call") for event in frame.events.events):
                break
        await eventually(lambda: processes_with("1000.875"))
        admin = await asyncpg.connect(database.owner)
        try:
            await admin.execute(
                "UPDATE session_heads SET epoch = epoch + 1, lease_owner = 'other', lease_expires_at = now() + interval '1 hour'"
            )
            await admin.execute("UPDATE turns SET state = 'FAILED', imported = true")
        finally:
            await admin.close()
        await eventually(lambda: not processes_with("1000.875"), limit=20)
        await eventually(lambda: not [*server_data_dir.glob("workers/*/pid")], limit=10)


@pytest.mark.parametrize("point", ["journal.append.after", "import.before", "push.before", "snapshot.before"])
async def test_a_replica_on_the_same_disk_finishes_the_turn(
    database: DatabaseUrls, server_data_dir: Path, second_dir: Path, tmp_path: Path, git_server: GitServer, nursery: Nursery, point: str
) -> None:
    """With a data directory of its own, so its mirror has never seen the repository, and the worker root of both."""
    bare = git_server.create("acme/app", FILES)
    shared = LEASE | {"worker_root": server_data_dir / "workers"}
    request = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}
    first = Killable(
        settings_for(database, server_data_dir, git_server, log_format="json", **shared), tmp_path / "first.log", nursery=nursery
    )
    try:
        async with in_process(settings_for(database, second_dir, git_server, **shared)) as (_, client):
            await first.start(kill_at=point)
            async with connected(first.address, first.key) as other:
                with pytest.raises(grpc.aio.AioRpcError):
                    await events_of(other.execute(**request, request_id="1"))
            assert await first.wait_killed() == -9
            events = await events_of(client.execute(**request, request_id="1"))
            check_log(await client.log(events[0].session_id))
    finally:
        await first.stop()
    end = events[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), end
    branch = next(event.git_updated.branch for event in events if event.git_updated.branch)
    assert git(bare, "rev-parse", branch) == end.commit
    assert git(bare, "show", f"{branch}:new.txt") == "n"
