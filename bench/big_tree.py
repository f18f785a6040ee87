"""A workspace of 80,000 files: made ready, and read back with nothing changed and with 100 files changed; git beside it."""

from __future__ import annotations

import asyncio
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.report import spread
from server.config import Settings
from server.git.repository import GitRepositories, open_git
from server.kernel.ports.repositories import Author, Repository

FILES = 80_000
FOLDER_FILES = 15
FILE_BYTES = 4000
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
            begun = time.perf_counter()
            await opened.build_workspace(repository, commit=base, branch="work", base_branch="", into=workspace)
            ready = time.perf_counter() - begun
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
        (f"{FILES:,} files, ready to be worked in, s", f"{ready:.1f}", ""),
        ("import, nothing changed, s", spread(unchanged, 2), f"`git status`: {spread(status, 2)}"),
        (f"import, {CHANGED} changed, s", spread(changed, 2), f"`git add -A`: {spread(added, 2)}"),
    ]


def _make_mirror(mirror: Path) -> str:
    """As after a fetch; the commit's id."""
    subprocess.run(["git", "init", "-q", "--bare", str(mirror)], check=True)
    with subprocess.Popen(["git", f"--git-dir={mirror}", "fast-import", "--quiet"], stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        importing.stdin.writelines(_stream())
    return _git(mirror, "rev-parse", "refs/heads/base")


def _stream() -> Iterator[bytes]:
    rng = random.Random(7)
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 12))) for _ in range(3000)]
    yield b"commit refs/heads/base\ncommitter bench <bench@example.org> 1700000000 +0000\ndata 4\nbase\n"
    for number in range(FILES):
        text = b" ".join(rng.choices(words, k=FILE_BYTES // 8))
        yield b"M 100644 inline %s\ndata %d\n%s\n" % (_path(number).encode(), len(text), text)


def _path(number: int) -> str:
    folder = number // FOLDER_FILES
    return f"package{folder // 100}/module{folder // 10}/part{folder}/file{number}.txt"


def _change(workspace: Path, round_: int) -> None:
    for number in range(CHANGED):
        path = workspace / _path((number * 797 + round_) % FILES)
        path.write_text(path.read_text() + f"changed {round_}\n")


def _timed(workspace: Path, *arguments: str) -> float:
    begun = time.perf_counter()
    _git(workspace, *arguments)
    return time.perf_counter() - begun


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-c", "safe.directory=*", "-C", str(directory), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()
