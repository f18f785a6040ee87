"""Zone W: what the agent gets."""

from __future__ import annotations

import pytest
from support.git_server import git
from support.git_world import BASE, BRANCH, World

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
