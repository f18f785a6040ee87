"""What `.treadle/setup` made is in later workspaces, and nothing that an agent could have made ever is."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.git_server import git
from support.git_world import World

from carrier.tree import pack
from server.git.prepared import tidy
from server.kernel.errors import WorkspaceFailed

SETUP = "#!/bin/sh\n# cache: lock.txt\n# keep: deps web/deps\nmake deps\n"
PLACED = ".git/treadle-placed"


@pytest.fixture
async def base(world: World) -> str:
    """The commit with the script."""
    return await committed(world, {".treadle/setup": SETUP, "lock.txt": "1", ".gitignore": "deps/\n"})


async def committed(world: World, files: dict[str, str]) -> str:
    seed = world.server.root / "demo-seed"
    world.server.commit("demo", files)
    git(seed, "update-index", "--chmod=+x", ".treadle/setup")
    git(seed, "commit", "--quiet", "--allow-empty", "-m", "executable")
    git(seed, "push", "--quiet", str(world.remote), "HEAD:refs/heads/main")
    (seed / ".treadle/setup").chmod(0o755)
    return await world.fetch()


def made(workspace: Path, *names: str, content: str = "library") -> str:
    """As the worker leaves it after the script: its archive's digest."""
    archive = io.BytesIO()
    for name in names:
        (workspace / name).mkdir(parents=True, exist_ok=True)
        (workspace / name / "lib.py").write_text(content)
        (workspace / name / "bin").symlink_to("/usr/bin")
        archive.write(struct.pack(">H", len(name)) + name.encode())
        pack(workspace / name, archive)
    (workspace / ".git/treadle-prepared").write_bytes(archive.getvalue())
    return hashlib.sha256(archive.getvalue()).hexdigest()


async def keep(world: World, commit: str, workspace: Path, digest: str) -> None:
    await world.git.keep_prepared(world.repository, commit=commit, base_branch="main", workspace=workspace, digest=digest)


def is_placed(workspace: Path) -> bool:
    return (workspace / PLACED).exists()


async def test_a_later_workspace_has_what_the_script_made(world: World, base: str) -> None:
    first = await world.workspace(base)
    assert not is_placed(first)
    await keep(world, base, first, made(first, "deps", "web/deps"))
    second = await world.workspace(base)
    assert is_placed(second)
    assert [(second / name / "lib.py").read_text() for name in ("deps", "web/deps")] == ["library"] * 2
    assert (second / "deps/bin").readlink() == Path("/usr/bin")
    assert git(second, "status", "--porcelain") == ""
    assert (await world.import_(second, base)).commit is None


@pytest.mark.parametrize("changed, same", [({"lock.txt": "2"}, False), ({".treadle/setup": SETUP + "#"}, False), ({"other": "2"}, True)])
async def test_it_is_for_the_same_script_and_the_same_files(world: World, base: str, changed: dict[str, str], same: bool) -> None:
    first = await world.workspace(base)
    await keep(world, base, first, made(first, "deps"))
    world.server.commit("demo", changed)
    assert is_placed(await world.workspace(await world.fetch())) is same


async def test_what_the_agent_did_to_it_is_not_kept(world: World, base: str) -> None:
    workspace = await world.workspace(base)
    digest = made(workspace, "deps")
    (workspace / "deps/bin").unlink()
    made(workspace, "deps", content="import evil")
    await keep(world, base, workspace, digest)
    assert not is_placed(await world.workspace(base))


async def test_what_an_agents_commit_prepared_is_not_kept(world: World, base: str) -> None:
    workspace = await world.workspace(base)
    (workspace / "helper.sh").write_text("evil")
    agents = (await world.import_(workspace, base)).commit
    assert agents is not None
    later = await world.workspace(agents)
    await keep(world, agents, later, made(later, "deps"))
    assert not is_placed(await world.workspace(base))


async def test_another_base_branch_has_its_own(world: World, base: str) -> None:
    """It may be one that an agent has made."""
    world.pushed("branch", "other", base)
    assert await world.git.fetch(world.repository, branch="other", session_branch="", head_commit="") == base
    workspace = await world.workspace(base)
    await keep(world, base, workspace, made(workspace, "deps"))
    into = world.tmp / "on-other"
    await world.git.build_workspace(world.repository, commit=base, branch="treadle/x", base_branch="other", into=into)
    assert not is_placed(into)


def fifo(workspace: Path) -> None:
    (workspace / ".git/treadle-prepared").unlink()
    os.mkfifo(workspace / ".git/treadle-prepared")


def elsewhere(workspace: Path) -> None:
    (workspace / ".git/treadle-prepared").rename(workspace / "a")
    (workspace / ".git/treadle-prepared").symlink_to(workspace / "a")


def other_git(workspace: Path) -> None:
    (workspace / ".git").rename(workspace / "a")
    (workspace / ".git").symlink_to(workspace / "a")


def gone(workspace: Path) -> None:
    (workspace / ".git/treadle-prepared").unlink()


@pytest.mark.parametrize("swap", [fifo, elsewhere, other_git, gone])
async def test_only_a_file_of_the_workspace_is_read(world: World, base: str, swap: Callable[[Path], None]) -> None:
    workspace = await world.workspace(base)
    digest = made(workspace, "deps")
    swap(workspace)
    if swap is fifo:
        await keep(world, base, workspace, digest)
    else:
        with pytest.raises(WorkspaceFailed):
            await keep(world, base, workspace, digest)
    assert not is_placed(await world.workspace(base))


@pytest.mark.parametrize("names", [("src",), ("other",), ("deps", "deps"), (".git/hooks",), ("../deps",)])
async def test_nothing_is_put_where_it_does_not_belong(world: World, base: str, names: tuple[str, ...]) -> None:
    """The archive is as hostile as the script."""
    workspace = await world.workspace(base)
    archive = b"".join(struct.pack(">H", len(name)) + name.encode() + b"E" for name in names)
    (workspace / ".git/treadle-prepared").write_bytes(archive)
    await keep(world, base, workspace, hashlib.sha256(archive).hexdigest())
    later = await world.workspace(base)
    assert not is_placed(later)
    assert sorted(path.name for path in later.iterdir()) == sorted(
        [".git", ".gitignore", ".treadle", "README.md", "docs", "lock.txt", "src"]
    )
    assert not (later / ".git/hooks").exists()


async def test_a_link_of_the_repository_leads_nowhere(world: World, base: str, tmp_path: Path) -> None:
    workspace = await world.workspace(base)
    outside = tmp_path / "outside"
    outside.mkdir()
    (world.server.root / "demo-seed/web").symlink_to(outside)
    linked = await committed(world, {"more": "1"})
    await keep(world, base, workspace, made(workspace, "web/deps"))
    assert not is_placed(await world.workspace(linked))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("script", ["#!/bin/sh\n", "#!/bin/sh\n# keep: .git/hooks ../x /etc\n"])
async def test_a_script_that_keeps_nothing_of_its_own_has_nothing_kept(world: World, script: str) -> None:
    commit = await committed(world, {".treadle/setup": script})
    workspace = await world.workspace(commit)
    await keep(world, commit, workspace, made(workspace, "deps"))
    assert not world.mirror.with_suffix(".prepared").exists()


async def test_what_is_not_used_for_long_goes(world: World, base: str) -> None:
    workspace = await world.workspace(base)
    await keep(world, base, workspace, made(workspace, "deps"))
    (kept,) = world.mirror.with_suffix(".prepared").iterdir()
    tidy(world.mirror)
    assert kept.exists()
    long_ago = time.time() - 30 * 24 * 3600
    os.utime(kept, (long_ago, long_ago))
    tidy(world.mirror)
    assert not kept.exists()
