"""What the agent committed itself: kept as commits where that is safe, else as one; never lost, and never by another hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.git_server import GitServer, git
from support.git_world import AT, AUTHOR, BRANCH, UNTIL, World, open_world

from server.git import isolation
from server.git.walker.protocol import Limits
from server.kernel.ports.repositories import Skipped

NOT_KEPT = Skipped(".git", "COMMITS_NOT_KEPT")
START = 1767323045


def commit(workspace: Path, message: str = "agent", *, at: int = START + 60) -> str:
    """As an agent does it, by another name."""
    who = ["-c", "user.name=Mallory", "-c", "user.email=mallory@example.org"]
    git(workspace, "add", "--all")
    git(workspace, *who, "commit", "-q", "--allow-empty", "--no-verify", f"--date=@{at} +0300", "-F", "-", stdin=message.encode())
    return git(workspace, "rev-parse", "HEAD")


def told(world: World, commit: str | None, fmt: str) -> str:
    return git(world.mirror, "log", "-1", f"--format={fmt}", str(commit))


def tree_of(world: World, commit: str | None) -> set[str]:
    return set(git(world.mirror, "ls-tree", "-r", "--name-only", str(commit)).splitlines())


async def test_each_is_kept_and_the_rest_is_one_on_top(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "src/app.py").write_text("print('one')\n")
    commit(workspace, "first\n\nwhy it was made\n")
    (workspace / "src/app.py").rename(workspace / "src/main.py")
    (workspace / "new/deep").mkdir(parents=True)
    (workspace / "new/deep/er").write_text("x")
    second = commit(workspace, "second", at=START + 120)
    (workspace / "README.md").write_text("not committed\n")
    found = await world.import_(workspace, base)
    one, two = (kept.sha for kept in found.kept)
    assert git(world.mirror, "rev-list", "--reverse", f"{base}..{found.commit}").split() == [one, two, found.commit]
    assert told(world, one, "%an <%ae> %at %B") == f"Treadle <treadle@example.org> {START + 60} first\n\nwhy it was made"
    assert told(world, one, "%cn <%ce> %ct") == f"Treadle <treadle@example.org> {START + 60}"
    assert git(world.mirror, "rev-parse", f"{two}^{{tree}}") == git(workspace, "rev-parse", f"{second}^{{tree}}")
    assert told(world, found.commit, "%B %at") == f"work {START + 120}"
    assert git(world.mirror, "diff", "--name-status", two, str(found.commit)) == "M\tREADME.md"
    assert not found.agent_made_the_last
    await world.push(found.commit or "", create=True)
    assert world.pushed("rev-parse", BRANCH) == found.commit
    assert await world.import_(workspace, base) == found
    git(world.mirror, "fsck", "--strict")


async def test_nothing_comes_on_top_of_what_was_all_committed(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    commit(workspace)
    found = await world.import_(workspace, base)
    assert [kept.sha for kept in found.kept] == [found.commit]
    assert found.agent_made_the_last
    assert found.skipped == ()


async def test_a_directory_that_was_committed_away_is_new_when_it_comes_back(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    shutil.rmtree(workspace / "src")
    (workspace / ".gitignore").write_text("src/\n")
    commit(workspace)
    (workspace / "src/build").mkdir(parents=True)
    (workspace / "src/build/x.o").write_text("ignored")
    found = await world.import_(workspace, base)
    assert found.agent_made_the_last
    assert not any(path.startswith("src") for path in tree_of(world, found.commit))


async def test_work_that_was_committed_and_taken_back_is_there_to_be_seen(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    commit(workspace, "try")
    git(workspace, "revert", "--no-edit", "HEAD")
    found = await world.import_(workspace, base)
    assert [kept.message.splitlines()[0] for kept in found.kept] == ["try", 'Revert "try"']
    assert git(world.mirror, "diff", "--name-only", base, str(found.commit)) == ""


async def test_what_was_added_by_force_stays(world: World) -> None:
    """As for git: what is committed is not ignored."""
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "build").mkdir()
    (workspace / "build/wanted").write_text("x")
    (workspace / "build/other").write_text("x")
    git(workspace, "add", "--force", "build/wanted")
    commit(workspace)
    (workspace / "build/wanted").write_text("y")
    found = await world.import_(workspace, base)
    assert git(world.mirror, "show", f"{found.commit}:build/wanted") == "y"
    assert "build/other" not in tree_of(world, found.commit)


async def test_moved_directories_old_versions_and_merges_come_through(world: World) -> None:
    """Their objects lie in the pack that the workspace was made with, or in one of the agent's, as deltas."""
    old = "".join(f"line {number}\n" for number in range(500))
    world.server.commit("demo", {"long": old, "other/deep/long": old})
    world.server.commit("demo", {"long": old + "more\n"})
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "other").rename(workspace / "moved")
    commit(workspace, "move")
    git(workspace, "checkout", "-q", "HEAD~2", "--", "long")
    commit(workspace, "an old version")
    git(workspace, "checkout", "-q", "-b", "side")
    (workspace / "long").write_text(old.replace("line 7", "LINE 7"))
    commit(workspace, "on a side")
    git(workspace, "checkout", "-q", BRANCH)
    (workspace / "b").write_text("b")
    commit(workspace, "on the branch")
    git(workspace, "merge", "-q", "--no-edit", "side")
    git(workspace, "gc", "-q", "--aggressive")
    assert not list((workspace / ".git/objects").glob("??"))
    found = await world.import_(workspace, base)
    assert found.skipped == ()
    assert [kept.message.split()[0] for kept in found.kept] == ["move", "an", "on", "Merge"]
    assert git(world.mirror, "rev-parse", f"{found.commit}^{{tree}}") == git(workspace, "rev-parse", "HEAD^{tree}")
    git(world.mirror, "fsck", "--strict")


async def test_on_a_branch_of_its_own_or_on_none(world: World) -> None:
    base = await world.fetch()
    for number, arguments in enumerate((["-b", "feature/x"], ["--detach"])):
        workspace = await world.workspace(base)
        git(workspace, "checkout", "-q", *arguments)
        (workspace / "a").write_text(f"{number}")
        commit(workspace)
        git(workspace, "pack-refs", "--all")
        assert len((await world.import_(workspace, base, session_id=f"s{number}")).kept) == 1


async def test_its_words_are_text_and_its_time_is_within_the_turn(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    commit(workspace, "\x1b]0;title\x07red \x1b[31m\u202eback\r\n\r\nbody\tof it\u0007", at=START + 100)
    commit(workspace, "in the past", at=START - 999)
    commit(workspace, "in the future", at=int(UNTIL.timestamp()) + 1)
    git(workspace, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "--allow-empty-message", "-m", "")
    commit(workspace, "x" * 20_000, at=START + 200)
    found = await world.import_(workspace, base)
    assert [kept.message[:30] for kept in found.kept] == ["red back\n\nbody\tof it\n", "in the past\n", "in the future\n", "work", "x" * 30]
    assert [told(world, kept.sha, "%at") for kept in found.kept] == [str(START + offset) for offset in (100, 100, 100, 100, 200)]
    assert len(found.kept[-1].message) == 8193


async def test_a_submodule_of_the_base_stays_in_each(world: World) -> None:
    seed = world.server.root / "demo-seed"
    sub = git(seed, "rev-parse", "HEAD")
    git(seed, "update-index", "--add", "--cacheinfo", f"160000,{sub},vendor/sub")
    git(seed, "commit", "-qm", "a submodule")
    git(seed, "push", "-q", str(world.remote), "HEAD:main")
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "vendor/more").write_text("x")
    commit(workspace)
    found = await world.import_(workspace, base)
    assert len(found.kept) == 1
    assert f"160000 commit {sub}\tvendor/sub" in git(world.mirror, "ls-tree", "-r", str(found.commit))


@pytest.mark.parametrize("where", [".gitattributes", "docs/.gitattributes"])
async def test_what_git_refuses_of_the_base_spoils_none(world: World, where: str) -> None:
    world.server.commit("demo", {where: "a " + "x" * 3000 + "\n"})
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "docs/a").write_text("x")
    commit(workspace, "beside it")
    (workspace / where).write_text("a text\n")
    commit(workspace, "instead of it")
    found = await world.import_(workspace, base)
    assert len(found.kept) == 2
    assert found.skipped == ()


async def test_what_the_trusted_side_refuses_in_a_commit_is_imported_as_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git's own checks come last; here the walker, which looks first, lets everything through."""
    blind = "import sys; sys.path += sys.argv[3:]; from server.git.walker import history; history.refused_content = lambda *_: ''; "
    monkeypatch.setattr(isolation, "_BOOT", blind + isolation._BOOT)
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / ".gitattributes").write_text("a " + "x" * 3000 + "\n")
    commit(workspace, "what git refuses")
    (workspace / ".gitattributes").write_text("a text\n")
    commit(workspace, "what it takes")
    found = await world.import_(workspace, base)
    assert (found.kept, found.skipped) == ((), (NOT_KEPT,))
    assert git(world.mirror, "rev-list", f"{base}..{found.commit}") == found.commit
    assert git(world.mirror, "show", f"{found.commit}:.gitattributes") == "a text"


async def test_more_than_are_kept_are_one(server: GitServer, tmp_path: Path) -> None:
    async with open_world(server, tmp_path, limits=Limits(commits=2)) as world:
        base = await world.fetch()
        workspace = await world.workspace(base)
        for number in range(3):
            (workspace / f"{number}").write_text("x")
            commit(workspace)
            found = await world.import_(workspace, base, session_id=f"s{number}")
            assert len(found.kept) == (number + 1) % 3
        assert found.skipped == (NOT_KEPT,)
        assert {"0", "1", "2"} <= tree_of(world, found.commit)


async def test_it_signs_in_nobody_s_name(world: World) -> None:
    """What it says of people is left out, however it is written; below its words stands what Treadle says."""
    base = await world.fetch()
    workspace = await world.workspace(base)
    forged = "Signed-off-by: Eve <e@x>\nco-authored-BY : Eve <e@x>\n\u200bReviewed-by: Eve <e@x>\nSession: https://eve.example\nFixes: #1"
    commit(workspace, f"Signed-off-by: Eve <e@x>\n\nwords of its own\r\n\r\n{forged}\r\n")
    trailers = "\nSession: https://treadle.example/s/1\n"
    found = await world.git.import_workspace(
        world.repository,
        session_id="s",
        workspace=workspace,
        parent=base,
        message="work",
        author=AUTHOR,
        at=AT,
        until=UNTIL,
        trailers=trailers,
    )
    assert told(world, found.commit, "%B") == "words of its own\n\nFixes: #1\n\nSession: https://treadle.example/s/1"
    assert told(world, found.commit, "%(trailers)") == "Session: https://treadle.example/s/1"
