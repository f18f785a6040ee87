"""`kill -9` of the main server at named points of turns whose workers are containers: the same containers go on, and nothing is lost,
doubled or left.

A turn is walked from point to point. Each server takes up what the one before it left, goes on to the next point and dies there; so every
server both recovers and is killed, and a turn that has been killed at every step must still be one whole turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.containers import containers_of, no_containers_left, socket_for, spawner_process, spawner_settings
from support.git_server import GitServer, git
from support.git_server import git_server as serving
from support.nursery import Nursery
from support.postgres import open_directory
from support.treadle import Client, Killable, connected, kinds, pushed_files, recording, settings_for
from support.workers import eventually

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from server.workers.inside import MODELS
from server.workers.pool import PREFIX
from server.workers.slot import Slot, slots
from treadle.session.v1 import event_pb2


def around(*names: str) -> list[str]:
    return [f"{name}.{side}" for name in names for side in ("before", "after")]


PREPARED = around("admit.commit", "fetch", "fetch.commit", "branch", "branch.commit", "claim", "furnish")
TAKEN = [*around("workspace", "assign.commit")]
STARTED = [*around("start", "dial"), "spawn.after", *around("ready.commit", "execute")]
ADOPTED = ["spawn.before", *around("start", "dial", "ready.commit", "execute")]
SAYING = [*around("journal.append", "acknowledge")]
"""With something new to say each time."""
WORKED = [*SAYING, *ADOPTED, *SAYING, *SAYING, *SAYING]
PUBLISHED = [
    *around("transcript", "conclude.commit", "collect", "kill", "import", "import.commit", "push", "push.commit", "snapshot"),
    *around("snapshot.commit", "end.commit"),
]
REMOVED = ["discard.before", *around("release")]
"""With the last call the slot is gone, and nothing is left to come back to."""
WHOLE = [*PREPARED, *TAKEN, *STARTED, *WORKED, *PUBLISHED, *REMOVED]
GATES = sum(point in SAYING for point in WORKED)
"""The agent goes on at each when the test lets it; one more leads to its end."""

WALKS: dict[str, tuple[int, list[str]]] = {
    "made for the turn": (1, WHOLE),
    "that waited": (1, ["claim.after", *TAKEN, *STARTED, *WORKED, *PUBLISHED[:-2], "end.commit.before", "remove.before", *REMOVED]),
    "both at once": (2, ["claim.after", *TAKEN, *STARTED, *WORKED, *PUBLISHED, *REMOVED]),
}
ROLLED = 5
POINTS = sum(len(points) for _, points in WALKS.values())


def played() -> str:
    steps: list[dict[str, object]] = []
    for gate in range(GATES + 1):
        steps.append({"run": f"until test -e {MODELS}/gate{gate}; do sleep 0.02; done; echo {gate} >> journal.txt"})
        steps += [{"say": f"{gate} {number}"} for number in range(3)]
    return recording(*steps)


@dataclass
class Asked:
    """One turn, and what its caller has seen of it, over all servers."""

    request: dict[str, str]
    seen: list[event_pb2.Event] = field(default_factory=list)

    async def follow(self, client: Client) -> None:
        """As a client does: after the last event, or by the request_id when none was seen."""
        stream = client.resume(self.seen[-1].session_id, self.seen[-1].seq) if self.seen else client.execute(**self.request)
        async for frame in stream:
            self.seen.extend(frame.events.events)

    @property
    def ended(self) -> bool:
        return bool(self.seen) and self.seen[-1].HasField("turn_completed")


@dataclass
class World:
    server: Killable
    settings: Settings
    git: GitServer
    database: DatabaseUrls
    hit: list[str] = field(default_factory=list)
    containers: dict[str, set[str]] = field(default_factory=dict)
    gates: int = 0

    async def live(self, asked: Sequence[Asked], point: str, **changes: object) -> None:
        """Of one server, to the point."""
        await self.server.start(kill_at=point, **changes)
        if "worker_pool" in changes:
            root = self.settings.slots_dir
            await eventually(lambda: [each for each in slots(root) if each.path.name.startswith(PREFIX) and each.is_ready], limit=60)
        async with connected(self.server.address or "127.0.0.1:1", self.server.key) as client:
            following = [asyncio.create_task(each.follow(client)) for each in asked if not each.ended]
            try:
                assert await self.server.wait_killed() == -9
            except TimeoutError:
                pytest.fail(f"{point} was not passed: {[kinds(each.seen) for each in asked]}")
            finally:
                for ended in await asyncio.gather(*following, return_exceptions=True):
                    assert ended is None or isinstance(ended, grpc.aio.AioRpcError), ended
        self.hit.append(point)
        for slot in self.slots:
            if name := slot.container():
                self.containers.setdefault(str(slot.worker()), set()).add(name)

    async def keep_open(self) -> None:
        """All gates up to now, in every slot: also in one that is made only later. Runs beside, so not where a server builds something."""
        while True:
            for slot in self.slots:
                for gate in range(self.gates):
                    with suppress(FileNotFoundError):
                        (slot.models / f"gate{gate}").touch()
            await asyncio.sleep(0.1)

    @property
    def slots(self) -> list[Slot]:
        return [slot for slot in slots(self.settings.slots_dir) if slot.worker() is not None]

    def left(self) -> list[str]:
        """Slots, scratch, containers."""
        found = [str(path) for folder in ("workers", "scratch") for path in (self.settings.data_dir / folder).iterdir() if path.is_dir()]
        return found + [container.name for container in containers_of(self.settings.slots_dir)]


@pytest.fixture
async def world(database: DatabaseUrls, server_data_dir: Path, tmp_path: Path, nursery: Nursery) -> AsyncIterator[World]:
    server_data_dir.mkdir(mode=0o700)
    memory = {"worker_memory_mib": 256}
    spawner = spawner_settings(server_data_dir, "replay", **memory)
    with serving(tmp_path / "host") as git_server, no_containers_left(spawner.slots_dir):
        git_server.create("acme/app", {"README.md": "# App\n", "r.jsonl": played()})
        async with spawner_process(spawner, tmp_path / "spawner.log"):
            given = {"launcher": "docker", "spawner_socket": socket_for(server_data_dir), "log_format": "json"} | memory
            settings = settings_for(database, server_data_dir, git_server, **given)
            server = Killable(settings, tmp_path / "server.log", nursery=nursery)
            try:
                yield World(server, settings, git_server, database)
            finally:
                await server.stop()


def test_there_are_at_least_two_hundred_points() -> None:
    assert POINTS >= 200


@pytest.mark.timeout(600)
@pytest.mark.parametrize("walk", WALKS)
async def test_killed_at_every_step_turns_in_containers_are_whole(world: World, walk: str) -> None:
    turns, points = WALKS[walk]
    url = f"{world.git.url}/acme/app.git"
    request = {"repository_url": url, "prompt": "go", "provider": "replay", "model": "r.jsonl"}
    asked = [Asked(request | {"request_id": f"{number}"}) for number in range(turns)]
    waited = points[0] == "claim.after"
    async with beside(world.keep_open()):
        for number, point in enumerate(points):
            world.gates += point in SAYING or point == PUBLISHED[0]
            await world.live(asked, point, **({"worker_pool": "replay=1"} if waited and not number else {}))
        await world.server.start()
        async with connected(world.server.address, world.server.key) as client:
            for each in asked:
                if not each.ended:
                    await each.follow(client)
                log = await client.log(each.seen[0].session_id)
                assert log == each.seen
                check(log, world.git.root / "acme" / "app.git")
    # A container that was being made for the pool when its server died has no slot when the next one has cleared up: the spawner finds it.
    with suppress(TimeoutError):
        await eventually(lambda: not world.left(), limit=60)
    assert world.left() == []
    assert world.hit == points
    assert sorted(len(names) for names in world.containers.values()) == [1] * turns, world.containers
    pooled = [name for names in world.containers.values() for name in names if PREFIX in name]
    assert len(pooled) == waited


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def check(log: list[event_pb2.Event], bare: Path) -> None:
    end = log[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), end
    said = [event.message.parts[0].text for event in log if event.HasField("message")]
    assert said == [f"{gate} {number}" for gate in range(GATES + 1) for number in range(3)]
    phases = [event.worker_updated.phase for event in log if event.HasField("worker_updated")]
    assert (phases.count(event_pb2.WORKER_PHASE_STARTING), phases[-1]) == (1, event_pb2.WORKER_PHASE_EXITED)
    branch = next(event.git_updated.branch for event in log if event.git_updated.action == event_pb2.GIT_ACTION_BRANCHED)
    assert pushed_files(bare, branch)["journal.txt"].split() == [str(gate) for gate in range(GATES + 1)]
    assert git(bare, "rev-list", "--count", f"main..{branch}") == "1"
    assert git(bare, "rev-parse", branch) == end.commit


@pytest.mark.timeout(300)
async def test_a_server_that_replaces_another_beside_it_takes_its_turns(
    database: DatabaseUrls, server_data_dir: Path, tmp_path: Path
) -> None:
    """A rolling restart: both run for a while, each with a data directory of its own, over one worker root."""
    server_data_dir.mkdir(mode=0o700)
    root = server_data_dir / "workers"
    memory = {"worker_memory_mib": 256}
    shared = {"launcher": "docker", "spawner_socket": socket_for(server_data_dir), "worker_root": root, "lease_seconds": 3} | memory
    with serving(tmp_path / "host") as git_server, no_containers_left(root), open_directory() as other:
        git_server.create("acme/app", {"README.md": "# App\n", "r.jsonl": played()})
        request = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}
        asked = [Asked(request | {"request_id": f"{number}"}) for number in range(ROLLED)]
        old, new = (
            Killable(settings_for(database, folder, git_server, **shared, log_format="json"), tmp_path / f"{name}.log")
            for name, folder in (("old", server_data_dir), ("new", other / "data"))
        )
        spawner = spawner_settings(server_data_dir, "replay", worker_root=root, **memory)
        async with spawner_process(spawner, tmp_path / "spawner.log"):
            try:
                await old.start()
                world = World(old, old._settings, git_server, database, gates=2)
                async with connected(old.address, old.key) as client:
                    following = [asyncio.create_task(each.follow(client)) for each in asked]
                    async with beside(world.keep_open()):
                        await eventually(lambda: all("message" in kinds(each.seen) for each in asked), limit=60)
                        before = {container.id for container in containers_of(root)}
                        await new.start()
                        await old.stop()
                        for ended in await asyncio.gather(*following, return_exceptions=True):
                            assert isinstance(ended, grpc.aio.AioRpcError), ended
                        async with connected(new.address, new.key) as successor:
                            following = [asyncio.create_task(each.follow(successor)) for each in asked]
                            adopted = event_pb2.WORKER_PHASE_ADOPTED
                            await eventually(
                                lambda: all(any(event.worker_updated.phase == adopted for event in each.seen) for each in asked), limit=60
                            )
                            assert {container.id for container in containers_of(root)} == before
                            world.gates = GATES + 1
                            await asyncio.gather(*following)
                            for each in asked:
                                log = await successor.log(each.seen[0].session_id)
                                assert log == each.seen
                                check(log, git_server.root / "acme" / "app.git")
                await eventually(lambda: not containers_of(root), limit=60)
            finally:
                await new.stop()
                await old.stop()
    assert len(before) == ROLLED
