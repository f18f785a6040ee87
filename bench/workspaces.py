"""From a session's wish to a workspace that its agent can work in; `git clone` of the same URL beside it."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.report import spread

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.git_server import GitServer, git_server

from server.config import Settings
from server.git.repository import open_git
from server.kernel.ports.repositories import Repositories, Repository

REPEATS = 5


@dataclass(frozen=True)
class Shape:
    """A repository: files of text, of which each commit changes three, and besides writes `noise` bytes that nothing compresses."""

    name: str
    files: int
    commits: int
    noise: int = 0
    repeats: int = REPEATS


SMALL = Shape("small", files=100, commits=50)
LONG = Shape("1 GiB of history", files=2_000, commits=4_096, noise=256 * 1024)
WIDE = Shape("80,000 files", files=80_000, commits=1, repeats=2)
_NOISE_FILES = 64


async def measure() -> list[tuple[str, str, str]]:
    """Rows for the table: a session's first and later workspaces."""
    rows: list[tuple[str, str, str]] = []
    for shape, aim in ((SMALL, ""), (LONG, "aim 1 s")):
        first, later, cloned = await _workspaces(shape)
        rows += [
            (f"{shape.name}: first session on it ready, s", f"{first:.2f}", f"`git clone`: {spread(cloned, 2)}"),
            (f"{shape.name}: later sessions ready, s", spread(later, 2), aim or f"`git clone`: {spread(cloned, 2)}"),
        ]
    return rows


async def check_out() -> list[tuple[str, str, str]]:
    """Rows for the table: many files."""
    _, later, cloned = await _workspaces(WIDE)
    return [(f"{WIDE.name}: later sessions ready, s", spread(later, 1), f"`git clone`: {spread(cloned, 1)}")]


async def _workspaces(shape: Shape) -> tuple[float, list[float], list[float]]:
    """Seconds for the first session, for later ones, and for clones."""
    with tempfile.TemporaryDirectory(prefix="bench-workspaces-") as folder, git_server(Path(folder) / "served") as server:
        tmp = Path(folder)
        await asyncio.to_thread(_make, server, shape)
        async with open_git(Settings(data_dir=tmp / "data", git_allowed_prefixes=server.url)) as opened:
            repository = Repository("tenant", "owner", opened.check_url(f"{server.url}bench.git"))
            first, *later = [await _ready(opened, repository, tmp / "workspace", number) for number in range(1 + shape.repeats)]
        cloned = [await asyncio.to_thread(_cloned, server, tmp / "clone") for _ in range(shape.repeats)]
    return first, later, cloned


async def _ready(opened: Repositories, repository: Repository, into: Path, number: int) -> float:
    """What a session's first turn does before its worker starts."""
    _without(into)
    into.mkdir()
    branch = f"treadle/bench-{number}"
    begun = time.perf_counter()
    base = await opened.fetch(repository, branch="main", session_branch="", head_commit="")
    await opened.push(repository, branch=branch, commit=base, create=True)
    await opened.build_workspace(repository, commit=base, branch=branch, base_branch="main", into=into)
    return time.perf_counter() - begun


def _cloned(server: GitServer, into: Path) -> float:
    _without(into)
    begun = time.perf_counter()
    subprocess.run(["git", "clone", "--quiet", "--single-branch", "--branch=main", f"{server.url}bench.git", str(into)], check=True)
    return time.perf_counter() - begun


def _without(directory: Path) -> None:
    """And with nothing left to be written: that would be the next one's time."""
    if directory.exists():
        shutil.rmtree(directory)
    os.sync()


def _make(server: GitServer, shape: Shape) -> None:
    bare = server.root / "bench.git"
    subprocess.run(["git", "init", "-q", "--bare", "--initial-branch=main", str(bare)], check=True)
    with subprocess.Popen(["git", f"--git-dir={bare}", "fast-import", "--quiet", "--depth=5"], stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        importing.stdin.writelines(stream(shape))
    if importing.returncode:
        raise RuntimeError("git fast-import failed")


def stream(shape: Shape) -> Iterator[bytes]:
    """For `git fast-import`."""
    rng = random.Random(7)  # the same repository each time
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 12))) for _ in range(3_000)]
    for commit in range(shape.commits):
        yield b"commit refs/heads/main\ncommitter bench <bench@example.org> %d +0000\ndata 1\n.\n" % (1_700_000_000 + 600 * commit)
        for number in range(shape.files) if commit == 0 else rng.choices(range(shape.files), k=3):
            yield _file(path_of(number), b" ".join(rng.choices(words, k=500)))
        if shape.noise:
            yield _file(f"data/{commit % _NOISE_FILES}", os.urandom(shape.noise))


def path_of(number: int) -> str:
    """Where a file lies: 15 in a directory."""
    return f"package{number // 1500}/module{number // 150}/part{number // 15}/file{number}.txt"


def _file(path: str, content: bytes) -> bytes:
    return b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(content), content)
