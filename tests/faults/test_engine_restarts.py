"""The container engine is restarted, with and without its containers, and killed for good, while workers work."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.containers import socket_for, spawner_process, spawner_settings
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.own_engine import OwnEngine, own_engine
from support.treadle import Client, in_process, pushed_files, recording, settings_for
from support.workers import eventually

from server.embedded.postgres_home import DatabaseUrls
from server.workers.slot import slots
from treadle.session.v1 import event_pb2

LOST_SECONDS = 5.0
WAITS = "until test -e .git/go; do sleep 0.02; done"
JOB = recording({"write": "partial.txt", "content": "{turn}\n"}, {"say": "working"}, {"run": WAITS}, {"say": "done"})


class Turn:
    """One that waits in its agent's command until it may go on."""

    def __init__(self, client: Client, git_server: GitServer, root: Path, session_id: str = "") -> None:
        url = "" if session_id else f"{git_server.url}/acme/app.git"
        self._stream = client.execute(repository_url=url, session_id=session_id, prompt="go", provider="replay", model="r.jsonl")
        self._client = client
        self._bare = git_server.root / "acme" / "app.git"
        self._root = root
        self.seen: list[event_pb2.Event] = []

    async def until(self, condition: Callable[[event_pb2.Event], bool]) -> event_pb2.Event:
        async with asyncio.timeout(60):
            async for frame in self._stream:
                self.seen.extend(frame.events.events)
                if found := [event for event in frame.events.events if condition(event)]:
                    return found[0]
        raise AssertionError(self.seen)

    async def works(self) -> None:
        await self.until(lambda event: event.HasField("message"))

    def go_on(self) -> None:
        (slot,) = [slot for slot in slots(self._root) if slot.worker() is not None]
        (slot.workspace / ".git" / "go").touch()

    async def ends(self, status: int, code: int = event_pb2.TURN_CODE_UNSPECIFIED) -> None:
        """As said, with its work pushed, whatever there is of it."""
        end = (await self.until(lambda event: event.HasField("turn_completed"))).turn_completed
        assert (end.status, end.code, end.pushed) == (status, code, True), end
        branch = next(event.git_updated.branch for event in self.seen if event.git_updated.branch)
        assert pushed_files(self._bare, branch)["partial.txt"] == str(self.seen[0].turn_started.number)
        await self._client.log(self.seen[0].session_id)


@pytest.fixture
async def engine() -> AsyncIterator[OwnEngine]:
    async with own_engine(live_restore=True) as started:
        yield started


def running(engine: OwnEngine) -> list[Any]:
    client = engine.client()
    try:
        return client.containers.list(ignore_removed=True)
    finally:
        client.close()


def left(engine: OwnEngine) -> list[Any]:
    client = engine.client()
    try:
        return client.containers.list(all=True, ignore_removed=True)
    finally:
        client.close()


@pytest.mark.timeout(300)
async def test_an_engine_that_goes_takes_no_turn_with_it_that_it_does_not_end(
    engine: OwnEngine, database: DatabaseUrls, server_data_dir: Path, tmp_path: Path
) -> None:
    server_data_dir.mkdir(mode=0o700)
    spawner = spawner_settings(server_data_dir, docker_host=engine.host, worker_memory_mib=256)
    root = spawner.slots_dir
    with serving(tmp_path / "host") as git_server:
        git_server.create("acme/app", {"README.md": "# App\n", "r.jsonl": JOB})
        changes = {"launcher": "docker", "spawner_socket": socket_for(server_data_dir), "worker_memory_mib": 256}
        async with (
            spawner_process(spawner, tmp_path / "spawner.log"),
            in_process(settings_for(database, server_data_dir, git_server, **changes)) as (_, client),
        ):

            async def begun(session_id: str = "") -> Turn:
                turn = Turn(client, git_server, root, session_id)
                await turn.works()
                return turn

            await _its_containers_live(engine, await begun())
            await _it_hangs(engine, await begun())
            await _it_is_killed_and_not_back(engine, await begun())
            await _it_is_killed_and_then_the_worker(engine, await begun())
            await engine.start()
            await eventually(lambda: not left(engine) and not [*slots(root)], limit=60)
            await engine.end()
            engine.live_restore = False
            await engine.start()
            lost = await begun()
            await _its_containers_die(engine, lost)
            await engine.start()
            again = await begun(lost.seen[0].session_id)
            again.go_on()
            await again.ends(event_pb2.TURN_STATUS_COMPLETED)
            await eventually(lambda: not left(engine), limit=60)


async def _its_containers_live(engine: OwnEngine, turn: Turn) -> None:
    """The turn does not notice."""
    before = [container.id for container in running(engine)]
    await engine.end()
    await engine.start()
    assert [container.id for container in running(engine)] == before
    turn.go_on()
    await turn.ends(event_pb2.TURN_STATUS_COMPLETED)
    assert not [event for event in turn.seen if event.worker_updated.phase == event_pb2.WORKER_PHASE_LOST]


async def _it_hangs(engine: OwnEngine, turn: Turn) -> None:
    """It takes connections, and answers none."""
    assert engine.process is not None
    engine.process.send_signal(signal.SIGSTOP)
    try:
        turn.go_on()
        await turn.ends(event_pb2.TURN_STATUS_COMPLETED)
    finally:
        engine.process.send_signal(signal.SIGCONT)


async def _it_is_killed_and_not_back(engine: OwnEngine, turn: Turn) -> None:
    """Its containers live. The worker is ended without it, so what it wrote can be read."""
    await engine.end(signal.SIGKILL)
    turn.go_on()
    await turn.ends(event_pb2.TURN_STATUS_COMPLETED)
    await engine.start()


async def _it_is_killed_and_then_the_worker(engine: OwnEngine, turn: Turn) -> None:
    (container,) = running(engine)
    pid = container.attrs["State"]["Pid"]
    await engine.end(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    died = time.monotonic()
    await turn.ends(event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_WORKER_LOST)
    assert time.monotonic() - died < LOST_SECONDS


async def _its_containers_die(engine: OwnEngine, turn: Turn) -> None:
    (container,) = running(engine)
    pidfd = os.pidfd_open(container.attrs["State"]["Pid"])
    died: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(pidfd, lambda: died.done() or died.set_result(time.monotonic()))
    ending = asyncio.create_task(engine.end())
    try:
        await turn.ends(event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_WORKER_LOST)
        assert time.monotonic() - await asyncio.wait_for(died, 1) < LOST_SECONDS
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        await ending
