from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.git_server import GitServer
from support.git_server import git_server as serving


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    """A Git host on loopback."""
    with serving(tmp_path / "host") as server:
        yield server
