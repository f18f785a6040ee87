"""A workspace of 80,000 files, read back with nothing changed and with 100 files changed; git beside it."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.report import spread
from bench.workspaces import WIDE, path_of, stream
from server.config import Settings
from server.git.repository import GitRepositories, open_git
from server.kernel.ports.repositories import Author, Repository

CHANGED = 100
REPEATS = 5
URL = "https://example.org/acme/big"


async def measure() -> list[tuple[str, str, str]]:
    """Rows for the table."""
    with tempfile.TemporaryDirectory(prefix="bench-tree-") as folder:
        tmp = Path(folder)
        tmp.chmod(0o755)
        async with open_git(Settings(data_dir=tmp / "data", git_allowed_hosts="example.org")) as opened:
            assert isinstance(opened, GitRepositories)
            repository = Repository("tenant", "owner", opened.check_url(URL))
            base = await asyncio.to_thread(_make_mirror, opened.mirrors.path(repository))
            workspace = tmp / "workspace"
            await opened.build_workspace(repository, commit=base, branch="work", base_branch="", into=workspace)
            _git(workspace, "update-index", "-q", "--refresh")

            async def read_back() -> float:
                begun = time.perf_counter()
                await opened.import_workspace(
                    repository,
                    session_id="bench",
                    workspace=workspace,
                    parent=base,
                    message="bench",
                    author=Author("bench", "bench@example.org"),
                    at=datetime.now(UTC),
                )
                return time.perf_counter() - begun

            unchanged = [await read_back() for _ in range(REPEATS)]
            status = [_timed(workspace, "status", "--porcelain") for _ in range(REPEATS)]
            changed, added = [], []
            for round_ in range(REPEATS):
                _change(workspace, round_)
                changed.append(await read_back())
                added.append(_timed(workspace, "add", "-A"))
    return [
        (f"{WIDE.name}: import, nothing changed, s", spread(unchanged, 2), f"`git status`: {spread(status, 2)}"),
        (f"{WIDE.name}: import, {CHANGED} of them changed, s", spread(changed, 2), f"`git add -A`: {spread(added, 2)}"),
    ]


def _make_mirror(mirror: Path) -> str:
    """As after a fetch; the commit's id."""
    subprocess.run(["git", "init", "-q", "--bare", str(mirror)], check=True)
    with subprocess.Popen(["git", f"--git-dir={mirror}", "fast-import", "--quiet"], stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        importing.stdin.writelines(stream(WIDE))
    return _git(mirror, "rev-parse", "refs/heads/main")


def _change(workspace: Path, round_: int) -> None:
    for number in range(CHANGED):
        path = workspace / path_of(number * 797 % WIDE.files)
        path.write_text(path.read_text() + f"changed {round_}\n")


def _timed(workspace: Path, *arguments: str) -> float:
    begun = time.perf_counter()
    _git(workspace, *arguments)
    return time.perf_counter() - begun


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-c", "safe.directory=*", "-C", str(directory), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()
