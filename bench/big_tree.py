"""A workspace of 80,000 files, read back with nothing changed and with 100 files changed, git beside it; and an agent's own 200 commits.
What of it is the kernel's, git's, and the same for any tree stands beside it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.report import spread
from bench.workspaces import SMALL, WIDE, Shape, path_of, stream
from server.config import Settings
from server.git.repository import GitRepositories, open_git
from server.kernel.ports.repositories import Author, Repository
from server.sandbox.listing import beside, is_as_listed, read, take

CHANGED = 100
COMMITS = 200
REPEATS = 3
URL = "https://example.org/acme/"
STARTED = datetime.fromtimestamp(1_700_000_000, UTC)


async def measure() -> list[tuple[str, str, str]]:
    """Rows for the table."""
    with tempfile.TemporaryDirectory(prefix="bench-tree-") as folder:
        tmp = Path(folder)
        tmp.chmod(0o755)
        async with open_git(Settings(data_dir=tmp / "data", git_allowed_hosts="example.org")) as opened:
            assert isinstance(opened, GitRepositories)
            small, _ = await _given(opened, SMALL, tmp / "small")
            fixed = [await small() for _ in range(REPEATS)]
            workspace = tmp / "workspace"
            read_back, mirror = await _given(opened, WIDE, workspace)
            listed = await asyncio.to_thread(_hand_over, workspace)
            told = [_timed(mirror, "ls-tree", "-r", "-z", "-l", "main") for _ in range(REPEATS)]
            status = [_timed(workspace, "status", "--porcelain") for _ in range(REPEATS)]
            unchanged, every = await _with_and_without(workspace, read_back)
            looked = [_looked_at(workspace) for _ in range(REPEATS)]
            changed, added = [], []
            for round_ in range(REPEATS):
                _change(workspace, round_)
                changed.append(await read_back())
                added.append(_timed(workspace, "add", "-A"))
            _commit(workspace)
            kept = [await read_back() for _ in range(REPEATS)]
    return [
        (f"{WIDE.name}: the list at the handover, s", f"{listed:.2f}", "once for each turn"),
        (f"{WIDE.name}: import, nothing changed, s", spread(unchanged, 2), f"`git status`: {spread(status, 2)}"),
        ("... of this, as for a tree of 100 files, s", spread(fixed, 2), "processes: the wall, Python, git"),
        ("... `git ls-tree` of the base, while the walker starts, s", spread(told, 2), ""),
        ("... to open each directory and `stat` each file, one process, s", spread(looked, 2), "two share it"),
        ("... without the list: every file is read, s", spread(every, 2), ""),
        (f"{WIDE.name}: import, {CHANGED} of them changed, s", spread(changed, 2), f"`git add -A`: {spread(added, 2)}"),
        (f"{WIDE.name}: import, {COMMITS} commits of the agent besides, s", spread(kept, 2), "aim 2 s"),
    ]


async def _given(opened: GitRepositories, shape: Shape, workspace: Path) -> tuple[Callable[[], Awaitable[float]], Path]:
    """A workspace; what reads it back, in seconds; and its mirror."""
    repository = Repository("tenant", "owner", opened.check_url(URL + workspace.name))
    mirror = opened.mirrors.path(repository)
    base = await asyncio.to_thread(_make_mirror, mirror, shape)
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
            at=STARTED,
            until=datetime.now(UTC),
            listed=True,
        )
        return time.perf_counter() - begun

    return read_back, mirror


def _make_mirror(mirror: Path, shape: Shape) -> str:
    """As after a fetch; the commit's id."""
    subprocess.run(["git", "init", "-q", "--bare", str(mirror)], check=True)
    _fast_import(mirror, stream(shape))
    return _git(mirror, "rev-parse", "refs/heads/main")


def _hand_over(workspace: Path) -> float:
    """As a launcher does it; seconds."""
    begun = time.perf_counter()
    beside(workspace).write_bytes(take(str(workspace)))
    return time.perf_counter() - begun


async def _with_and_without(workspace: Path, read_back: Callable[[], Awaitable[float]]) -> tuple[list[float], list[float]]:
    """Nothing changed: by the list, and as if there were none."""
    with_list = [await read_back() for _ in range(REPEATS)]
    aside = beside(workspace).rename(workspace.with_name("aside"))
    without = [await read_back() for _ in range(2)]
    aside.rename(beside(workspace))
    return with_list, without


def _looked_at(workspace: Path) -> float:
    listed = read(beside(workspace).read_bytes())
    begun = time.perf_counter()
    for path, directory in listed.items():
        here = os.open(b"%s/%s" % (os.fsencode(workspace), path), os.O_RDONLY | os.O_DIRECTORY)
        is_as_listed(here, directory)
        os.close(here)
    return time.perf_counter() - begun


def _change(workspace: Path, round_: int) -> None:
    for number in range(CHANGED):
        path = workspace / path_of(number * 797 % WIDE.files)
        path.write_text(path.read_text() + f"changed {round_}\n")


def _commit(workspace: Path) -> None:
    """One small file each."""
    _fast_import(workspace, _commits())
    _git(workspace, "reset", "-q")
    _git(workspace, "checkout", "-q", "--", "new")


def _commits() -> Iterator[bytes]:
    for number in range(COMMITS):
        yield b"commit refs/heads/work\ncommitter a <a@example.org> %d +0000\ndata 1\n.\n" % (STARTED.timestamp() + 1 + number)
        yield b"from refs/heads/work^0\n" if number == 0 else b""
        yield b"M 100644 inline new/%d/%d\ndata 4\nnew\n\n" % (number % 7, number)


def _fast_import(repository: Path, commands: Iterator[bytes]) -> None:
    command = ["git", "-c", "safe.directory=*", "-C", str(repository), "fast-import", "--quiet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        importing.stdin.writelines(commands)
    if importing.returncode:
        raise RuntimeError("git fast-import failed")


def _timed(workspace: Path, *arguments: str) -> float:
    begun = time.perf_counter()
    _git(workspace, *arguments)
    return time.perf_counter() - begun


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-c", "safe.directory=*", "-C", str(directory), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()
