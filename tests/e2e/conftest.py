from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.treadle import Client, in_process, settings_for

from server.embedded.postgres_home import DatabaseUrls


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    """A Git host on loopback."""
    with serving(tmp_path / "host") as server:
        yield server


@pytest.fixture
def changes() -> dict[str, Any]:
    """Settings that a test wants otherwise: override it, or parametrise it indirectly."""
    return {}


@pytest.fixture
async def treadle(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, changes: dict[str, Any]
) -> AsyncIterator[tuple[Any, Client]]:
    """(the server, a client of its local user)."""
    async with in_process(settings_for(database, server_data_dir, git_server, **changes)) as both:
        yield both


@pytest.fixture
def client(treadle: tuple[Any, Client]) -> Client:
    """A client of the local user."""
    return treadle[1]


@pytest.fixture
def server(treadle: tuple[Any, Client]) -> Any:
    """The server, in this process."""
    return treadle[0]
