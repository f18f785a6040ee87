"""Mirrors outlive whatever happens to the git that works in them, and to the branches that they follow."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.git_server import git
from support.git_world import SESSION, World, open_world

from server.git import mirror as mirror_module
from server.git.command import Git, GitFailed, GitTimeout
from server.git.refs import fetched_ref
from server.kernel.errors import RepositoryUnreachable, WorkspaceFailed


async def test_a_branch_may_become_a_folder_of_branches_and_back(world: World) -> None:
    for old, new in (("feature", "feature/x"), ("feature/x", "feature")):
        tip = world.server.commit("demo", {"now": old}, branch=old)
        assert await world.git.fetch(world.repository, branch=old, session_branch="", head_commit="") == tip
        world.pushed("update-ref", "-d", f"refs/heads/{old}")
        tip = world.server.commit("demo", {"now": new}, branch=new)
        assert await world.git.fetch(world.repository, branch=new, session_branch="", head_commit="") == tip
        world.pushed("update-ref", "-d", f"refs/heads/{new}")


LEFT = [
    f"refs/treadle/sessions/{SESSION}.lock", "packed-refs.lock", "config.lock", "HEAD.lock", "shallow.lock",
    f"{fetched_ref('main')}.lock", "objects/info/commit-graph.lock", "objects/pack/tmp_pack_1a2B3c", "objects/pack/.tmp-1-pack-1.pack",
    "objects/pack/pack-1.keep", "import-1a2b3c/objects/pack/tmp_pack_1",
]  # fmt: skip


def leave(mirror: Path) -> None:
    for name in LEFT:
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).touch()


async def test_what_a_killed_server_left_stops_nobody_and_does_not_stay(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    leave(world.mirror)
    world.server.commit("demo", {"more": "1"})
    async with open_world(world.server, world.tmp) as next_one:
        assert await next_one.fetch() != base
        found = await next_one.import_(workspace, base)
    assert git(world.mirror, "rev-parse", f"refs/treadle/sessions/{SESSION}") == found.commit
    assert [name for name in LEFT if (world.mirror / name).exists()] == []


async def test_what_a_killed_git_leaves_goes_when_the_mirror_is_used_next(world: World) -> None:
    await world.fetch()
    with pytest.raises(GitFailed):
        async with world.git.mirrors.used(world.repository, seconds=1) as mirror:
            leave(mirror)
            await Git(timeout_seconds=10, program="/bin/false").run("gc")
    async with world.git.mirrors.used(world.repository, seconds=1) as mirror:
        assert [name for name in LEFT if (mirror / name).exists()] == []


async def test_nobody_looks_for_leftovers_where_nothing_failed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes as long as the repository has sessions, and a turn uses its mirror some eight times."""
    looked: list[Path] = []
    sweep = mirror_module.sweep

    def swept(path: Path) -> None:
        looked.append(path)
        sweep(path)

    monkeypatch.setattr(mirror_module, "sweep", swept)
    monkeypatch.setattr(mirror_module, "_stale", lambda path: looked.append(path) or [])  # type: ignore[func-returns-value]
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    found = await world.import_(workspace, base)
    await world.push(str(found.commit), create=True)
    assert looked == [world.mirror]


async def test_a_git_that_takes_too_long_is_asked_to_clean_up(world: World) -> None:
    """`update-ref --stdin` holds its lock between `prepare` and `commit`; here it waits for ever, and is ended by its time limit."""
    base = await world.fetch()
    reading, writing = os.pipe()
    os.write(writing, f"start\ncreate refs/treadle/sessions/slow {base}\nprepare\n".encode())
    lock = world.mirror / "refs/treadle/sessions/slow.lock"
    with os.fdopen(reading, "rb") as stdin, pytest.raises(GitTimeout):
        running = asyncio.create_task(Git(timeout_seconds=1.5).run("update-ref", "--stdin", git_dir=world.mirror, stdin=stdin))
        async with asyncio.timeout(10):
            while not lock.exists():
                await asyncio.sleep(0.01)
        await running
    os.close(writing)
    assert not lock.exists()


async def test_a_git_that_hears_nothing_is_killed(tmp_path: Path) -> None:
    deaf = tmp_path / "git"
    deaf.write_text("#!/bin/sh\ntrap '' TERM\necho $$ > " + str(tmp_path / "pid") + "\nwhile :; do sleep 1; done\n")
    deaf.chmod(0o755)
    with pytest.raises(GitTimeout):
        await Git(timeout_seconds=0.5, program=str(deaf)).run("x")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_a_fetch_that_hangs_stops_no_other_work_of_the_owner(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    world.server.commit("demo", {"more": "1"})
    async with world.git.mirrors.fetching(world.repository, seconds=1) as mirror:
        with pytest.raises(TimeoutError):
            async with world.git.mirrors.fetching(world.repository, seconds=0.1):
                pass
        found = await world.import_(workspace, base)
        assert found.commit is not None
        await world.push(found.commit, create=True)
        assert git(mirror, "rev-parse", f"refs/treadle/sessions/{SESSION}") == found.commit


async def test_many_work_in_a_mirror_at_once_and_upkeep_waits_for_the_last(world: World) -> None:
    mirrors, wanted = world.git.mirrors, world.repository
    async with mirrors.used(wanted, seconds=1) as mirror, mirrors.used(wanted, seconds=1) as same:
        assert same == mirror
        with pytest.raises(TimeoutError):
            async with mirrors.alone(mirror, seconds=0.1):
                pass
    async with mirrors.alone(mirror, seconds=1):
        with pytest.raises(TimeoutError):
            async with mirrors.used(wanted, seconds=0.1):
                pass


async def test_a_mirror_that_is_removed_before_its_user_has_it_is_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever cleaned up shares its lock only after it let go of it, so another may have it in between."""
    clean, mirrors, removed = world.git.mirrors._clean, world.git.mirrors, []

    async def cleaned(path: Path) -> None:
        await clean(path)
        if not removed:
            shutil.rmtree(path)
            removed.append(path)

    monkeypatch.setattr(mirrors, "_clean", cleaned)
    async with mirrors.used(world.repository, seconds=5) as mirror:
        assert git(mirror, "rev-parse", "--is-bare-repository") == "true"
    assert removed == [mirror]


async def test_what_is_half_done_by_others_is_left_alone_and_an_old_lock_of_a_session_is_not(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    lock = world.mirror / f"refs/treadle/sessions/{SESSION}.lock"
    pack = world.mirror / "objects/pack/tmp_pack_1a2B3c"
    async with world.git.mirrors.used(world.repository, seconds=1):
        for path in (lock, pack):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        with pytest.raises(WorkspaceFailed, match="File exists"):
            await world.import_(workspace, base)
        an_hour_ago = time.time() - 3600
        for path in (lock, pack):
            os.utime(path, (an_hour_ago, an_hour_ago))
        found = await world.import_(workspace, base)
        assert pack.exists()
    assert git(world.mirror, "rev-parse", f"refs/treadle/sessions/{SESSION}") == found.commit
    await world.fetch()
    assert not pack.exists()


_DYING_SERVER = """
import asyncio, os, sys
from pathlib import Path
from server.git.command import Git
from server.git.mirror import Mirrors
from server.kernel.ports.repositories import Repository

async def main(root, url, program, lock):
    mirrors = Mirrors(Path(root), Git(timeout_seconds=60))
    async with getattr(mirrors, lock)(Repository("tenant", "owner", url), seconds=5):
        await Git(timeout_seconds=60, program=program).run("x")

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_git_that_outlives_its_server_keeps_the_lock(world: World, tmp_path: Path) -> None:
    """Else the next server would take its lock files for leftovers while it works."""
    base = await world.fetch()
    async with _outliving(world, tmp_path, "used"):
        with pytest.raises(TimeoutError):
            async with world.git.mirrors.alone(world.mirror, seconds=0.2):
                pass
        theirs = world.mirror / "objects/pack/tmp_pack_theirs"
        theirs.touch()
        async with open_world(world.server, world.tmp) as next_one:
            assert await next_one.fetch() == base
        assert theirs.exists()
    async with world.git.mirrors.alone(world.mirror, seconds=10):
        assert not theirs.exists()


async def test_a_fetch_that_outlives_its_server_is_waited_for(world: World, tmp_path: Path) -> None:
    await world.fetch()
    async with _outliving(world, tmp_path, "fetching"):
        with pytest.raises(TimeoutError):
            async with world.git.mirrors.fetching(world.repository, seconds=0.2):
                pass
    async with world.git.mirrors.fetching(world.repository, seconds=10):
        pass


@asynccontextmanager
async def _outliving(world: World, tmp_path: Path, lock: str) -> AsyncIterator[None]:
    """While a git of a killed server runs."""
    slow = tmp_path / "git"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 60\n")
    slow.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _DYING_SERVER, str(world.mirror.parent), world.repository.url, str(slow), lock]
    server = await asyncio.create_subprocess_exec(*command, env=environment)
    async with asyncio.timeout(30):
        while not (tmp_path / "pid").exists():
            await asyncio.sleep(0.01)
    server.kill()
    await server.wait()
    try:
        yield
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("left", ["HEAD", "HEAD objects refs config"])
async def test_a_mirror_that_was_half_made_is_made_again(world: World, left: str) -> None:
    """The server died during `git init`: whatever was there of the draft, there is a mirror afterwards."""
    draft = world.mirror.with_suffix(".new")
    draft.mkdir(parents=True)
    for name in left.split():
        (draft / name).touch()
    base = await world.fetch()
    assert git(world.mirror, "rev-parse", fetched_ref("main")) == base
    assert not draft.exists()


async def test_a_mirror_that_an_older_treadle_half_made_is_made_again(world: World) -> None:
    world.mirror.mkdir(parents=True)
    (world.mirror / "HEAD").write_text("ref: refs/heads/treadle-unborn\n")
    assert await world.fetch() == world.pushed("rev-parse", "main")


async def test_nothing_is_at_a_mirrors_place_before_it_is_whole(world: World, tmp_path: Path) -> None:
    dying = tmp_path / "git"
    dying.write_text('#!/bin/sh\nfor last; do :; done\nmkdir -p "$last" && echo "ref: refs/heads/x" > "$last/HEAD"\nexit 1\n')
    dying.chmod(0o755)
    world.git.mirrors._git = Git(timeout_seconds=10, program=str(dying))
    with pytest.raises(RepositoryUnreachable, match="code 1"):
        await world.fetch()
    assert not world.mirror.exists()
    world.git.mirrors._git = world.git.git
    assert await world.fetch() == world.pushed("rev-parse", "main")
