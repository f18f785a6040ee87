"""What a turn's snapshot moves into the object store, beside what its change takes compressed."""

from __future__ import annotations

import asyncio
import random
import subprocess
import tempfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

from bench.workspaces import Shape, path_of, stream
from server.config import Settings
from server.git.repository import GitRepositories, open_git
from server.kernel.ports.repositories import Author, Repository

SHAPE = Shape("2,000 files", files=2_000, commits=1)
URL = "https://example.org/acme/moved"
TURNS = (("one line of one file", 1, 0), ("100 files, a line each", 100, 0), ("a new file of 1 MiB of random bytes", 0, 1 << 20))


async def measure() -> list[tuple[str, str, str]]:
    """Rows for the table."""
    rows, rng = [], random.Random(5)
    with tempfile.TemporaryDirectory(prefix="bench-moved-") as folder:
        tmp = Path(folder)
        tmp.chmod(0o755)
        async with open_git(Settings(data_dir=tmp / "data", git_allowed_hosts="example.org")) as opened:
            assert isinstance(opened, GitRepositories)
            repository = Repository("tenant", "owner", opened.check_url(URL))
            base = await asyncio.to_thread(_make_mirror, opened.mirrors.path(repository))
            workspace = tmp / "workspace"
            await opened.build_workspace(repository, commit=base, branch="work", base_branch="", into=workspace)
            for name, lines, fresh in TURNS:
                change = _change(workspace, lines, rng.randbytes(fresh))
                now = datetime.now(UTC)
                made = await opened.import_workspace(
                    repository,
                    session_id="bench",
                    workspace=workspace,
                    parent=base,
                    message=name,
                    author=Author("bench", "bench@example.org"),
                    at=now,
                    until=now,
                )
                assert made.commit is not None
                bundle = tmp / "turn.bundle"
                await opened.bundle(repository, session_id="bench", base=base, head=made.commit, into=bundle)
                size, allowed = bundle.stat().st_size, int(1.2 * change + 65_536)
                rows.append(
                    (f"{SHAPE.name}, {name}: bytes moved", f"{size:,}", f"aim: at most {allowed:,}; the change compressed: {change:,}")
                )
                base = made.commit
    return rows


def _change(workspace: Path, lines: int, fresh: bytes) -> int:
    """Make it; what it takes compressed by itself: the new lines, and new files."""
    for number in range(lines):
        path = workspace / path_of(number * 7 % SHAPE.files)
        path.write_text(path.read_text() + f"a line {number}\n")
    if fresh:
        (workspace / "fresh.bin").write_bytes(fresh)
    return len(zlib.compress("".join(f"a line {number}\n" for number in range(lines)).encode() + fresh))


def _make_mirror(mirror: Path) -> str:
    subprocess.run(["git", "init", "-q", "--bare", str(mirror)], check=True)
    with subprocess.Popen(["git", f"--git-dir={mirror}", "fast-import", "--quiet"], stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        importing.stdin.writelines(stream(SHAPE))
    return subprocess.run(
        ["git", f"--git-dir={mirror}", "rev-parse", "refs/heads/main"], check=True, capture_output=True, text=True
    ).stdout.strip()
