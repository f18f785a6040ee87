"""Mirrors stay small, and hold nothing of deleted sessions for long."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace

import pytest
from support.git_server import git
from support.git_world import SESSION, World

from server.git import base_tree
from server.git.upkeep import Policy, Upkeep

NOW = Policy(idle_seconds=0, packs=3, expire="now")


def upkeep(world: World, policy: Policy = NOW) -> Upkeep:
    return Upkeep(world.git.git, world.git.mirrors, policy)


async def work(world: World, session_id: str, content: str) -> str:
    """A session's turn: its commit."""
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "work.txt").write_text(content)
    found = await world.import_(workspace, base, session_id=session_id)
    assert found.commit is not None
    return found.commit


def packs(world: World) -> int:
    return len(list(world.mirror.glob("objects/pack/*.pack")))


def holds(world: World, commit: str) -> bool:
    return subprocess.run(["git", "-C", world.mirror, "cat-file", "-e", commit], capture_output=True, check=False).returncode == 0


async def test_many_packs_become_one_and_no_session_loses_anything(world: World) -> None:
    commits = [await work(world, f"{SESSION[:-1]}{number}", f"work {number}") for number in range(4)]
    assert packs(world) >= 4
    await upkeep(world).once()
    assert packs(world) == 1
    assert [git(world.mirror, "show", f"{commit}:work.txt") for commit in commits] == [f"work {number}" for number in range(4)]
    git(world.mirror, "fsck", "--strict")
    assert await world.fetch(commits[0]) == commits[0]


async def test_a_deleted_sessions_commits_go_and_the_others_stay(world: World) -> None:
    gone, kept = await work(world, SESSION, "gone"), await work(world, "other", "kept")
    await world.git.forget(world.repository, session_id=SESSION)
    await world.git.forget(world.repository, session_id=SESSION)
    assert holds(world, gone)
    await upkeep(world).once()
    assert (holds(world, gone), holds(world, kept)) == (False, True)
    assert git(world.mirror, "for-each-ref", "--format=%(refname)", "refs/treadle/sessions") == "refs/treadle/sessions/other"
    assert world.git.mirrors.forgotten(world.mirror) == []


async def test_with_a_deleted_session_the_names_of_its_files_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_tree, "_LARGE_BYTES", 0)
    commit = await work(world, SESSION, "gone")
    await world.workspace(commit)
    kept = world.mirror / "bases" / git(world.mirror, "rev-parse", f"{commit}^{{tree}}")
    assert b"work.txt" in kept.read_bytes()
    await upkeep(world).once()
    assert kept.exists()
    await world.git.forget(world.repository, session_id=SESSION)
    await upkeep(world).once()
    assert not kept.exists()


async def test_what_is_young_stays_though_nothing_names_it(world: World) -> None:
    gone = await work(world, SESSION, "gone")
    await world.git.forget(world.repository, session_id=SESSION)
    await upkeep(world, replace(NOW, expire="2.weeks.ago")).once()
    assert holds(world, gone)
    assert git(world.mirror, "for-each-ref", "refs/treadle/sessions") == ""


async def test_a_mirror_in_use_is_left_alone(world: World) -> None:
    await work(world, SESSION, "a")
    loose = len(list(world.mirror.glob("objects/??/*")))
    await upkeep(world, replace(NOW, packs=1, idle_seconds=600)).once()
    once = upkeep(world, replace(NOW, packs=1))
    async with world.git.mirrors.alone(world.mirror, seconds=1):
        await once.once()
    assert len(list(world.mirror.glob("objects/??/*"))) == loose > 0
    await once.once()
    assert list(world.mirror.glob("objects/??/*")) == []


@pytest.mark.parametrize("has_session", [True, False])
async def test_a_mirror_that_nobody_needs_goes_and_comes_back_when_wanted(world: World, has_session: bool) -> None:
    await work(world, SESSION, "a")
    if not has_session:
        await world.git.forget(world.repository, session_id=SESSION)
    long_ago = time.time() - 100
    os.utime(world.mirror.with_suffix(".lock"), (long_ago, long_ago))
    await upkeep(world, replace(NOW, unused_seconds=50)).once()
    assert world.mirror.exists() is has_session
    assert await world.fetch() == world.pushed("rev-parse", "main")


async def test_forgetting_what_never_was_is_nothing(world: World) -> None:
    await world.git.forget(world.repository, session_id=SESSION)
    await upkeep(world).once()
    assert not world.mirror.exists()
