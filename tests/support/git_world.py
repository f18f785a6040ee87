"""One owner's view of one repository on a test server, and the acts of a turn on it."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.git_server import GitServer, git

from server.config import Settings
from server.git.command import Git
from server.git.remote import TokenSupplier, no_token
from server.git.repository import GitRepositories, open_git
from server.git.walker.protocol import Limits
from server.kernel.ports.repositories import Author, Imported, Repository
from server.sandbox import listing
from server.sandbox.bubblewrap import SANDBOX_ID

BASE = {
    "README.md": "# demo\n",
    "src/app.py": "print('hello')\n",
    "src/deep/er.py": "x = 1\n",
    "docs/guide.md": "guide\n",
    ".gitignore": "*.o\nbuild/\n",
}
BRANCH = "treadle/work-12345678"
SESSION = "7a1c2f7e-0000-4000-8000-000012345678"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UNTIL = datetime(2026, 1, 3, tzinfo=UTC)
AUTHOR = Author("Treadle", "treadle@example.org")


@dataclass
class World:
    """Acts as the turn's steps do; workspaces belong to the worker's uid, as after a real turn."""

    server: GitServer
    git: GitRepositories
    repository: Repository
    tmp: Path
    remote: Path
    _workspaces: list[Path] = field(default_factory=list)

    @property
    def mirror(self) -> Path:
        return self.git.mirrors.path(self.repository)

    def at(self, name: str) -> Repository:
        """Another repository of the same server."""
        return replace(self.repository, url=f"{self.server.url}{name}.git")

    async def fetch(self, head_commit: str = "") -> str:
        return await self.git.fetch(self.repository, branch="main", session_branch=BRANCH, head_commit=head_commit)

    async def workspace(self, commit: str) -> Path:
        """A fresh workspace, handed over to the agent."""
        into = self.tmp / f"workspace-{len(self._workspaces)}"
        into.mkdir(mode=0o700)
        self._workspaces.append(into)
        await self.git.build_workspace(self.repository, commit=commit, branch=BRANCH, base_branch="main", into=into)
        give_to_agent(into)
        return into

    async def import_(
        self, workspace: Path, parent: str, *, message: str = "work", session_id: str = SESSION, keep_missing: bool = False
    ) -> Imported:
        give_to_agent(workspace)
        return await self.git.import_workspace(
            self.repository,
            session_id=session_id,
            workspace=workspace,
            parent=parent,
            message=message,
            author=AUTHOR,
            at=AT,
            until=UNTIL,
            listed=True,
            keep_missing=keep_missing,
        )

    async def push(self, commit: str, *, create: bool = False) -> None:
        await self.git.push(self.repository, branch=BRANCH, commit=commit, create=create)

    def pushed(self, *arguments: str) -> str:
        """Ask git about the served repository."""
        return git(self.remote, *arguments)


def give_to_agent(tree: Path) -> None:
    """What the launcher does before a turn, and what is true after one."""
    if os.geteuid() != 0:
        return
    for folder, folders, files in os.walk(tree):
        for name in ["", *folders, *files]:
            path = Path(folder, name)
            with suppress(FileNotFoundError):  # where somebody writes on meanwhile
                status = path.lstat()
                # What is the agent's already shall look as it did.
                if not stat.S_ISSOCK(status.st_mode) and status.st_uid != SANDBOX_ID:
                    os.chown(path, SANDBOX_ID, SANDBOX_ID, follow_symlinks=False)


def list_workspace(workspace: Path) -> None:
    """What a launcher does after it; when that tells something, some ticks of the clock after the last change."""
    newest = max(path.lstat().st_ctime_ns for path in workspace.rglob("*"))
    while time.time_ns() <= newest + listing._RACY_NS:
        os.sched_yield()
    listing.beside(workspace).write_bytes(listing.take(str(workspace)))


@asynccontextmanager
async def open_world(
    server: GitServer, tmp: Path, *, limits: Limits | None = None, token: TokenSupplier = no_token, name: str = "demo"
) -> AsyncIterator[World]:
    settings = Settings(data_dir=tmp / "data", git_allowed_prefixes=server.url)
    async with open_git(settings, limits=limits, token=token) as opened:
        assert isinstance(opened, GitRepositories)
        repository = Repository("tenant", "owner", opened.check_url(f"{server.url}{name}.git"))
        yield World(server, opened, repository, tmp, server.root / f"{name}.git")


def started_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands of git that are started from here on."""
    started: list[str] = []
    start = Git.start

    async def counted(self: Git, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
        started.append(arguments[0])
        return await start(self, *arguments, **options)

    monkeypatch.setattr(Git, "start", counted)
    return started
