"""A real server with a session of 300 events, shared by all tests of a module; and both clients."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.clients import Driver
from support.frame_relay import FrameRelay, frame_relay
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.postgres import PostgresServer, open_directory
from support.treadle import Client, in_process, recording, settings_for

from treadle.session.v1 import event_pb2 as pb

EVENTS = 300
STEPS = [{"say": "hello"}, {"run": "echo one; echo two >&2"}, {"write": "a.txt", "content": "ä\n"}]


@dataclass
class World:
    """What the tests of a module share."""

    server: Any
    client: Client
    git: GitServer
    session_id: str = ""
    log: list[pb.Event] = field(default_factory=list)
    """The session's events, as a plain stub reads them."""

    def repository(self, name: str, *steps: dict[str, Any]) -> dict[str, str]:
        """A repository that holds a recording, and what to give to `execute` for it to be played."""
        self.git.create(name, {"r.jsonl": recording(*steps)})
        return request(f"{self.git.url}/{name}.git")


def request(url: str) -> dict[str, str]:
    return {"repository": url, "prompt": "go", "provider": "replay", "model": "r.jsonl"}


@asynccontextmanager
async def opened(postgres: PostgresServer, **changes: Any) -> AsyncIterator[World]:
    """A server with a database of its own."""
    async with postgres.fresh(f"clients_{uuid.uuid4().hex}") as urls:
        with open_directory() as directory, serving(directory / "host") as git:
            async with in_process(settings_for(urls, directory / "data", git, **changes)) as (server, client):
                yield World(server, client, git)


@pytest.fixture(scope="module")
async def world(postgres18: PostgresServer) -> AsyncIterator[World]:
    """A server with a session that ended, of at least 300 events. Heartbeats come after half a second; who does not read
    for two is cut off."""
    async with opened(postgres18, heartbeat_seconds=0.5, write_timeout_seconds=2.0) as world:
        # At a pace, so that the log is made of many commits.
        steps = [*STEPS, {"burst": EVENTS, "text": "x" * 40, "per_second": 600}]
        fields = world.repository("acme/app", *steps)
        events = await world.client.run(**_as_message(fields))
        world.session_id = events[0].session_id
        world.log = await world.client.log(world.session_id)
        assert len(world.log) > EVENTS
        yield world


def _as_message(fields: dict[str, str]) -> dict[str, str]:
    return {"repository_url" if name == "repository" else name: value for name, value in fields.items()}


@pytest.fixture(params=["async", "blocking"])
def driver(request: pytest.FixtureRequest) -> Driver:
    return Driver(request.param)


@pytest.fixture
async def connect(driver: Driver) -> AsyncIterator[Callable[..., Any]]:
    """Makes clients, and closes them at the end."""
    clients: list[Any] = []

    def make(address: str, key: str, **options: Any) -> Any:
        clients.append(driver.client(address, key, **options))
        return clients[-1]

    yield make
    for client in clients:
        await driver.close(client)


@pytest.fixture
async def relay(world: World) -> AsyncIterator[FrameRelay]:
    async with frame_relay(world.client.address) as relay:
        yield relay


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sends the past in many small frames, not in few large ones."""
    monkeypatch.setattr("server.kernel.journal.follow.PAGE_BYTES", 1000)


@pytest.fixture
def data_dir() -> Any:
    with open_directory() as directory:
        yield directory / "data"
