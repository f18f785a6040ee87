"""`kill -9` of the main server at named points of a turn, and a restart: the same worker goes on, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import grpc
import pytest
from support.git_server import GitServer, git
from support.git_server import git_server as serving
from support.nursery import Nursery
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

# Where it is killed first, and where again while the next process takes up what the first one left.
AGAIN = [
    (("fetch.after", 1), ("branch.before", 1)),
    (("workspace.before", 1), ("workspace.after", 1)),
    (("spawn.before", 1), ("spawn.before", 1)),
    (("spawn.after", 1), ("journal.append.after", 1)),
    (("journal.append.before", 3), ("journal.append.before", 1)),
    (("journal.append.after", 3), ("conclude.commit.before", 1)),
    (("conclude.commit.after", 1), ("import.before", 1)),
    (("import.after", 1), ("import.after", 1)),
    (("push.after", 1), ("push.after", 1)),
    (("end.commit.before", 1), ("end.commit.after", 1)),
]

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
    database: DatabaseUrls
    data_dir: Path

    def request(self, request_id: str) -> dict[str, str]:
        return {
            "request_id": request_id,
            "session_id": "",
            "repository_url": f"{self.git.url}/acme/app.git",
            "prompt": "go",
            "provider": "replay",
            "model": "r.jsonl",
        }

    async def stored(self, request_id: str) -> tuple[int, bool]:
        """The last event of the request's session in the database, and whether its turn has ended."""
        connection = await asyncpg.connect(self.database.owner)
        try:
            row = await connection.fetchrow(
                "SELECT next_seq - 1, NOT active FROM turns JOIN session_heads USING (session_id) WHERE request_id = $1", request_id
            )
        finally:
            await connection.close()
        return (row[0], row[1]) if row else (0, False)

    def leftovers(self) -> list[str]:
        """Slots, scratch, and processes that name the directory of slots."""
        slots, scratch = self.data_dir / "workers", self.data_dir / "scratch"
        found = [str(path) for path in (*slots.iterdir(), *scratch.iterdir()) if path.is_dir()]
        for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if str(slots).encode() in (words := cmdline.read_bytes()):
                    found.append(words.replace(b"\0", b" ").decode(errors="replace"))
        return found


@pytest.fixture
async def world(database: DatabaseUrls, server_data_dir: Path, tmp_path: Path, nursery: Nursery) -> AsyncIterator[World]:
    with _git(tmp_path) as git_server:
        settings = settings_for(database, server_data_dir, git_server, log_format="json")
        server = Killable(settings, tmp_path / "server.log", nursery=nursery)
        git_server.create("acme/app", {"README.md": "# App\n", "r.jsonl": recording()})
        try:
            yield World(server, git_server, database, server_data_dir)
        finally:
            await server.stop()


def _git(tmp_path: Path) -> Iterator[GitServer]:
    return serving(tmp_path / "host")  # type: ignore[return-value]


def test_there_are_at_least_forty_points() -> None:
    assert len(POINTS) == len(set(POINTS)) >= 40


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("point", "nth"), POINTS, ids=[f"{point}-{nth}" for point, nth in POINTS])
async def test_killed_at_a_named_point_the_turn_completes(world: World, point: str, nth: int) -> None:
    seen = await _until_killed(world, world.request("one"), point, nth)
    log = await _completed(world, world.request("one"), seen)
    _check(world, log, point)
    await _nothing_is_left(world)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("first", "second"), AGAIN, ids=[f"{first[0]}, {second[0]}" for first, second in AGAIN])
async def test_killed_again_while_it_recovers_the_turn_completes(world: World, first: tuple[str, int], second: tuple[str, int]) -> None:
    seen = await _until_killed(world, world.request("one"), *first)
    await world.server.start(kill_at=second[0], nth=second[1])
    assert await world.server.wait_killed() == -9, "the second point was not passed"
    log = await _completed(world, world.request("one"), seen)
    _check(world, log, f"{first}, {second}")
    await _nothing_is_left(world)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("point", ["fetch.commit.after", "spawn.after", "import.after", "push.before", "end.commit.before"])
async def test_killed_in_the_second_turn_both_are_whole(world: World, point: str) -> None:
    await world.server.start()
    async with connected(world.server.address, world.server.key) as client:
        one = [event async for frame in client.execute(**world.request("one")) for event in frame.events.events]
    await world.server.stop()
    again = world.request("two") | {"session_id": one[0].session_id, "repository_url": ""}
    seen = await _until_killed(world, again, point, 1)
    log = await _completed(world, again, seen)
    assert log[: len(one)] == one
    two = log[len(one) :]
    assert len({event.turn_id for event in two}) == 1
    _check_turn(two, point)
    branch, bare = _branch(one), world.git.root / "acme" / "app.git"
    assert pushed_files(bare, branch)["journal.txt"].split() == ["0", "10", "20", "30"] * 2
    assert git(bare, "rev-list", "--count", f"main..{branch}") == "2"
    assert git(bare, "rev-parse", branch) == two[-1].turn_completed.commit
    await _nothing_is_left(world)


async def _until_killed(world: World, request: dict[str, str], point: str, nth: int) -> list[event_pb2.Event]:
    """Ask a server that kills itself at the point; the events that the caller saw."""
    await world.server.start(kill_at=point, nth=nth)
    seen: list[event_pb2.Event] = []
    async with connected(world.server.address, world.server.key) as client:
        with pytest.raises(grpc.aio.AioRpcError):
            async for frame in client.execute(**request):
                seen.extend(frame.events.events)
            # The points after the terminal event are passed when the stream is complete: then the server's death is what is waited for.
            await world.server.wait_killed()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
    assert await world.server.wait_killed() == -9, "the point was not passed"
    return seen


async def _completed(world: World, request: dict[str, str], seen: list[event_pb2.Event]) -> list[event_pb2.Event]:
    """Start once more, follow as a client does, and compare with the whole log, which is returned."""
    stored, ended = await world.stored(request["request_id"])
    await world.server.start()
    up = time.monotonic()
    async with connected(world.server.address, world.server.key) as client:
        log, first_new = await _follow(client, request, seen, stored, up)
        # What was stored before the kill says nothing about recovery: the first event that it did not hold does.
        assert ended if first_new is None else first_new <= FIRST_EVENT_SECONDS, (stored, ended, first_new)
        whole = await client.log(log[-1].session_id)
    assert log == whole[-len(log) :]
    assert log[0].seq == 1 or request["session_id"]
    return whole


async def _follow(
    client: Client, request: dict[str, str], seen: list[event_pb2.Event], stored: int, up: float
) -> tuple[list[event_pb2.Event], float | None]:
    """After the last event, or by the request_id when none was seen. Also the time to the first event that was not `stored` before."""
    stream = client.resume(seen[-1].session_id, seen[-1].seq) if seen else client.execute(**request)
    log, first_new = [*seen], None
    async for frame in stream:
        log.extend(frame.events.events)
        if first_new is None and log and log[-1].seq > stored:
            first_new = time.monotonic() - up
    return log, first_new


async def _nothing_is_left(world: World) -> None:
    """No process of a worker, no slot, no scratch: at the latest a moment after the terminal event."""
    async with asyncio.timeout(20):
        while left := world.leftovers():
            assert world.server.process is not None
            assert world.server.process.returncode is None, left
            await asyncio.sleep(0.05)


def _branch(log: list[event_pb2.Event]) -> str:
    return next(event.git_updated.branch for event in log if event.git_updated.action == event_pb2.GIT_ACTION_BRANCHED)


def _check(world: World, log: list[event_pb2.Event], point: str) -> None:
    _check_turn(log, point)
    end, branch = log[-1].turn_completed, _branch(log)
    bare = world.git.root / "acme" / "app.git"
    assert pushed_files(bare, branch)["journal.txt"].split() == ["0", "10", "20", "30"]
    assert git(bare, "rev-list", "--count", f"main..{branch}") == "1"
    assert git(bare, "rev-parse", branch) == end.commit


def _check_turn(log: list[event_pb2.Event], point: str) -> None:
    end = log[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), (point, end)
    said = [event.message.parts[0].text for event in log if event.HasField("message")]
    assert said == [f"step {number}" for number in range(EVENTS)]
    started = [event.worker_updated.phase for event in log if event.HasField("worker_updated")]
    assert started.count(event_pb2.WORKER_PHASE_STARTING) == 1
    assert kinds(log).count("turn_completed") == 1
