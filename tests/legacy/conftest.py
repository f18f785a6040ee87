"""A reader behind this machine's sandbox; and a whole server's database and data directory, for imports."""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.legacy_archives import Old
from support.sandbox import require_sandbox
from support.treadle import settings_for

from server.cli.legacy import bring_in
from server.config import Settings
from server.db.stores import Stores, open_postgres
from server.embedded.postgres_home import DatabaseUrls
from server.identity.local_user import TENANT, USER
from server.kernel.identity import Principal
from server.legacy.isolation import Reader
from server.legacy.owners import Owners

OWNER = Principal(TENANT, USER, "Local", "local@example.org")
BASE = {"README.md": "# demo\n", "src/app.py": "print('hello')\n", "gone.txt": "deleted by the old worker\n"}


@pytest.fixture
def reader() -> Reader:
    return Reader(require_sandbox(), seconds=60)


@dataclass
class Move:
    """The old system's archives in a directory, and the command that brings them in."""

    settings: Settings
    stores: Stores
    git_server: GitServer
    place: Path
    scratch: Path

    @property
    def url(self) -> str:
        return f"{self.git_server.url}/example/demo.git"

    def put(self, old: Old, *, key: str = "") -> Path:
        folder = self.place / (key or old.session)
        folder.mkdir(exist_ok=True)
        archive = folder / "session.tar.gz"
        scratch = self.scratch / str(len(list(self.scratch.iterdir())))
        scratch.mkdir()
        old.archive(scratch).replace(archive)
        return archive

    async def bring(self, *, owner: str = USER, dry_run: bool = False, place: str = "", limit: int = -1) -> dict[str, dict[str, Any]]:
        """Import all; the report's lines by key."""
        report = self.scratch / "report.json"
        options = argparse.Namespace(source=place or str(self.place), tenant="", dry_run=dry_run, report=report, limit=limit)
        await bring_in(options, self.settings, Owners.parse(owner))
        return {line["key"]: line for line in map(json.loads, report.read_text().splitlines())}


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        server.create("example/demo", BASE)
        yield server


@pytest.fixture
async def move(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, tmp_path: Path) -> AsyncIterator[Move]:
    require_sandbox()
    place, scratch = tmp_path / "bucket", tmp_path / "scratch"
    place.mkdir()
    scratch.mkdir()
    settings = settings_for(database, server_data_dir, git_server)
    async with open_postgres(settings) as stores:
        await stores.keys.ensure_user(OWNER)
        yield Move(settings, stores, git_server, place, scratch)
