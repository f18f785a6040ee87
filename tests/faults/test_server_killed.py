"""`kill -9` of the main server at named points of a turn, and a restart: the same worker goes on, and nothing is lost or doubled."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from support.git_server import GitServer, git
from support.git_server import git_server as serving
from support.treadle import Client, Killable, connected, kinds, pushed_files, settings_for

from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2

# Every named point of a turn that makes commits, with which passing of it is the last: before and after each commit, push,
# acknowledgement and spawn. `journal.append` and `acknowledge` are passed often, so several of their passings are points of their own.
STEPS = ["admit", "fetch", "branch", "assign", "ready", "conclude", "import", "push", "snapshot", "end"]
ACTIONS = ["fetch", "branch", "workspace", "spawn", "transcript", "import", "push", "snapshot"]
POINTS = [
    *[(f"{step}.commit.{side}", 1) for step in STEPS for side in ("before", "after")],
    *[(f"{action}.{side}", 1) for action in ACTIONS for side in ("before", "after")],
    *[(f"journal.append.{side}", nth) for nth in (1, 3) for side in ("before", "after")],
    *[(f"acknowledge.{side}", nth) for nth in (1, 3) for side in ("before", "after")],
    ("remove.before", 1),
]
FIRST_EVENT_SECONDS = 5.0

EVENTS = 40


def recording() -> str:
    """A turn of about a second with a file per step, so that a lost or repeated step shows in the tree and in the log."""
    steps: list[dict[str, object]] = []
    for number in range(EVENTS):
        steps.append({"say": f"step {number}"})
        if number % 10 == 0:
            steps.append({"run": ["sh", "-c", f"echo {number} >> journal.txt"]})
        steps.append({"wait_ms": 20})
    return "".join(json.dumps(step) + "\n" for step in steps)


@dataclass
class World:
    server: Killable
    git: GitServer

    def client(self) -> AsyncIterator[Client]:
        return connected(self.server.address, self.server.key)  # type: ignore[return-value]


@pytest.fixture
async def world(database: DatabaseUrls, server_data_dir: Path, tmp_path: Path) -> AsyncIterator[World]:
    with _git(tmp_path) as git_server:
        settings = settings_for(database, server_data_dir, git_server, log_format="json")
        server = Killable(settings, tmp_path / "server.log")
        git_server.create("acme/app", {"README.md": "# App\n", "r.jsonl": recording()})
        try:
            yield World(server, git_server)
        finally:
            await server.stop()


def _git(tmp_path: Path) -> Iterator[GitServer]:
    return serving(tmp_path / "host")  # type: ignore[return-value]


def test_there_are_at_least_forty_points() -> None:
    assert len(POINTS) == len(set(POINTS)) >= 40


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("point", "nth"), POINTS, ids=[f"{point}-{nth}" for point, nth in POINTS])
async def test_killed_at_a_named_point_the_turn_completes(world: World, point: str, nth: int) -> None:
    await world.server.start(kill_at=point, nth=nth)
    request = {
        "request_id": "one",
        "repository_url": f"{world.git.url}/acme/app.git",
        "prompt": "go",
        "provider": "replay",
        "model": "r.jsonl",
    }
    seen: list[event_pb2.Event] = []
    async with connected(world.server.address, world.server.key) as client:
        with pytest.raises(grpc.aio.AioRpcError):
            async for frame in client.execute(**request):
                seen.extend(frame.events.events)
            # The points after the terminal event are passed when the stream is complete: then the server's death is what is waited for.
            await world.server.wait_killed()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
    assert await world.server.wait_killed() == -9, "the point was not passed"

    await world.server.start()
    up = time.monotonic()
    async with connected(world.server.address, world.server.key) as client:
        log, first = await _follow(client, request, seen, up)
        assert first <= FIRST_EVENT_SECONDS
        whole = await client.log(log[0].session_id)
    assert log == whole
    _check(world, whole, point)


async def _follow(client: Client, request: dict[str, str], seen: list[event_pb2.Event], up: float) -> tuple[list[event_pb2.Event], float]:
    """As a client does: after its last event, or by its request_id when it saw none. Also the time to the first new event."""
    stream = client.resume(seen[-1].session_id, seen[-1].seq) if seen else client.execute(**request)
    log, first = [*seen], 0.0
    async for frame in stream:
        if frame.events.events and not first:
            first = time.monotonic() - up
        log.extend(frame.events.events)
    return log, first


def _check(world: World, log: list[event_pb2.Event], point: str) -> None:
    end = log[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), (point, end)
    said = [event.message.parts[0].text for event in log if event.HasField("message")]
    assert said == [f"step {number}" for number in range(EVENTS)]
    branch = next(event.git_updated.branch for event in log if event.git_updated.action == event_pb2.GIT_ACTION_BRANCHED)
    bare = world.git.root / "acme" / "app.git"
    assert pushed_files(bare, branch)["journal.txt"].split() == ["0", "10", "20", "30"]
    assert git(bare, "rev-list", "--count", f"main..{branch}") == "1"
    assert git(bare, "rev-parse", branch) == end.commit
    started = [event.worker_updated.phase for event in log if event.HasField("worker_updated")]
    assert started.count(event_pb2.WORKER_PHASE_STARTING) == 1
    assert kinds(log).count("turn_completed") == 1
