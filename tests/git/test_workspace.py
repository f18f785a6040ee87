"""Zone W: what the agent gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.git_server import git
from support.git_world import BASE, BRANCH, World

from server.git import workspace as workspace_module
from server.kernel.errors import WorkspaceFailed


async def test_the_agent_gets_the_files_and_the_history(world: World) -> None:
    later = world.server.commit("demo", {"later": "1"})
    base = await world.fetch()
    workspace = await world.workspace(base)
    assert base == later
    assert {path: (workspace / path).read_text() for path in BASE} == BASE
    assert git(workspace, "status", "--porcelain") == ""
    assert git(workspace, "rev-parse", "--abbrev-ref", "HEAD") == BRANCH
    assert len(git(workspace, "log", "--oneline", "main").splitlines()) == 2
    (workspace / "new").write_text("x")
    git(workspace, "add", "new")
    git(workspace, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "agent's own")
    assert git(workspace, "diff", "--name-only", "main") == "new"


async def test_no_file_looks_changed_because_it_changed_hands(world: World) -> None:
    workspace = await world.workspace(await world.fetch())
    assert git(workspace, "diff-files", "--name-only") == ""


async def test_nothing_of_the_server_is_shared_with_it(world: World) -> None:
    base = await world.fetch()
    await world.push(base, create=True)
    workspace = await world.workspace(base)
    assert git(workspace, "remote") == ""
    assert not (workspace / ".git/objects/info/alternates").exists()
    assert all(path.stat().st_nlink == 1 for path in workspace.rglob("*") if path.is_file())
    assert str(world.tmp / "data") not in "".join(path.read_text("latin-1") for path in (workspace / ".git").rglob("*") if path.is_file())
    assert world.server.url not in (workspace / ".git/config").read_text()
    assert not (workspace / ".git/hooks").exists()


async def test_other_sessions_commits_are_not_in_it(world: World) -> None:
    base = await world.fetch()
    first = await world.workspace(base)
    (first / "theirs").write_text("secret of another session")
    theirs = await world.import_(first, base, session_id="other")
    second = await world.workspace(base)
    assert theirs.commit is not None
    assert git(second, "cat-file", "-t", theirs.commit, check=False) == ""


async def test_a_half_built_one_is_built_again(world: World) -> None:
    base = await world.fetch()
    into = world.tmp / "again"
    (into / ".git/refs").mkdir(parents=True)
    (into / ".git/config").write_text("[core\n")
    (into / "old").symlink_to("/etc")
    for _ in range(2):
        await world.git.build_workspace(world.repository, commit=base, branch=BRANCH, base_branch="main", into=into)
    assert sorted(path.name for path in into.iterdir()) == [".git", ".gitignore", "README.md", "docs", "src"]


async def test_bytes_are_those_of_the_blobs_whatever_the_attributes_say(world: World) -> None:
    files = {"a.txt": b"one\r\ntwo\n", "b.txt": "one\ntwo\n", "c.txt": "$Id$\n", ".gitattributes": "*.txt text eol=crlf ident\n"}
    world.server.commit("demo", files)
    base = await world.fetch()
    workspace = await world.workspace(base)
    blobs = {name: git(world.remote, "show", f"main:{name}").encode() for name in files}
    assert {name: (workspace / name).read_bytes().rstrip(b"\n") for name in files} == blobs
    assert git(workspace, "status", "--porcelain") == ""
    assert (await world.import_(workspace, base)).commit is None


async def test_an_unknown_commit_is_a_typed_error(world: World) -> None:
    await world.fetch()
    with pytest.raises(WorkspaceFailed):
        await world.workspace("0" * 39 + "1")
    with pytest.raises(WorkspaceFailed):
        await world.workspace("--help")


def large(world: World, monkeypatch: pytest.MonkeyPatch, *, history: int) -> None:
    """From now on the repository is one of those of which an agent gets the last commits only."""
    monkeypatch.setattr(workspace_module, "_SMALL_BYTES", -1)
    world.git = replace(world.git, history=history)


def log(workspace: Path, revision: str = "HEAD") -> list[str]:
    return git(workspace, "log", "--format=%H", revision).splitlines()


def holds(workspace: Path, commit: str) -> bool:
    return git(workspace, "cat-file", "-t", commit, check=False) == "commit"


async def test_of_a_large_repository_the_agent_gets_the_last_commits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = [world.pushed("rev-parse", "main")] + [world.server.commit("demo", {"n": str(number)}) for number in range(5)]
    large(world, monkeypatch, history=2)
    workspace = await world.workspace(await world.fetch())
    assert log(workspace) == commits[:2:-1]  # two, and what the older one changed something of
    assert git(workspace, "show", "--format=", "--name-only", commits[4]) == "n"
    assert not holds(workspace, commits[2])
    assert git(workspace, "fsck", "--strict") == ""
    assert git(workspace, "status", "--porcelain") == ""
    assert git(workspace, "blame", "-s", "README.md").startswith("^")
    (workspace / "new").write_text("x")
    git(workspace, "add", "new")
    git(workspace, "commit", "-qm", "agent's own")
    found = await world.import_(workspace, commits[-1])
    assert [kept.message for kept in found.kept] == ["agent's own\n"]
    assert found.commit is not None
    await world.push(found.commit, create=True)


async def test_what_parted_from_the_base_branch_is_there_down_to_where_it_did(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old = world.server.commit("demo", {"old": "1"})
    parted = await world.fetch()
    head = parted
    for number in range(4):
        workspace = await world.workspace(head)
        (workspace / "work").write_text(str(number))
        head = (await world.import_(workspace, head)).commit or ""
    base = [world.server.commit("demo", {"n": str(number)}) for number in range(4)][-1]
    later = world.server.commit("demo", {"n": "4"})
    large(world, monkeypatch, history=2)
    assert await world.fetch(head) == head
    workspace = await world.workspace(head)
    assert old == parted
    assert git(workspace, "merge-base", "main", "HEAD") == parted
    assert len(log(workspace, f"{parted}..HEAD")) == 4
    assert log(workspace, f"{parted}..main")[:2] == [later, base]
    assert len(log(workspace)) == 5
    assert git(workspace, "diff", "--name-only", "main...HEAD") == "work"
    assert git(workspace, "fsck", "--strict") == ""


async def test_merges_keep_all_their_parents(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = world.server.root / "demo-seed"
    first = world.server.commit("demo", {"a": "1"})
    git(seed, "checkout", "--quiet", "-b", "side", "HEAD^")
    git(seed, "commit", "--quiet", "--allow-empty", "-m", "side")
    git(seed, "checkout", "--quiet", "-")
    git(seed, "merge", "--quiet", "--no-ff", "-m", "merged", "side")
    merge = world.server.commit("demo", {"b": "1"})
    large(world, monkeypatch, history=2)
    workspace = await world.workspace(await world.fetch())
    assert set(log(workspace)) == {merge, *git(seed, "rev-list", "-n", "1", "--parents", f"{merge}^").split()}
    assert holds(workspace, first)
    assert git(workspace, "fsck", "--strict") == ""


async def test_who_wants_all_of_a_large_repository_gets_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        world.server.commit("demo", {"n": str(number)})
    large(world, monkeypatch, history=0)
    workspace = await world.workspace(await world.fetch())
    assert len(log(workspace)) == 5
    assert not (workspace / ".git/shallow").exists()
