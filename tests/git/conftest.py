"""A server with one repository, and the adapter that may reach it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from support.git_server import GitServer, git_server
from support.git_world import BASE, World, open_world


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with git_server(tmp_path / "served") as started:
        started.create("demo", BASE)
        yield started


@pytest_asyncio.fixture
async def world(server: GitServer, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(server, tmp_path) as opened:
        yield opened
