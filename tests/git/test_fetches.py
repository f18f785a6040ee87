"""Turns that start at the same time ask the remote once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.git_server import git
from support.git_world import BRANCH, World

from server.git.refs import fetched_ref
from server.kernel.errors import BranchUnknown, RepositoryUnreachable

ASK = "/demo.git/info/refs"
TURNS = 8


def asked(world: World) -> int:
    """How many git commands the remote has answered since it was asked last."""
    count = world.server.asked.count(ASK)
    world.server.asked.clear()
    return count


@asynccontextmanager
async def silent(world: World) -> AsyncIterator[None]:
    """The remote answers nobody until the end."""
    world.server.speaking.clear()
    try:
        yield
    finally:
        world.server.speaking.set()


async def heard(world: World) -> None:
    async with asyncio.timeout(10):
        while not world.server.asked:
            await asyncio.sleep(0.01)


async def test_eight_turns_at_once_ask_once_and_fetch_once(world: World) -> None:
    tip = world.pushed("rev-parse", "main")
    assert await asyncio.gather(*[world.fetch() for _ in range(TURNS)]) == [tip] * TURNS
    assert asked(world) == 2  # ls-remote, fetch


async def test_what_is_fetched_ahead_after_a_push_and_what_a_turn_wants_are_fetched_once(world: World) -> None:
    await world.fetch()
    asked(world)
    async with silent(world):
        first = asyncio.create_task(world.fetch())
        await heard(world)
        # Both come too late for that one, and share the next.
        ahead = asyncio.create_task(world.git.refresh(world.repository, branch="main"))
        async with asyncio.timeout(10):
            while world.repository not in world.git.fetches._next:
                await asyncio.sleep(0.01)
        turn = asyncio.create_task(world.fetch())
        await asyncio.sleep(0)
        tip = world.server.commit("demo", {"new": "pushed"})
    assert await asyncio.gather(first, ahead, turn) == [tip, None, tip]
    assert asked(world) == 3  # ls-remote, fetch; ls-remote


async def test_each_gets_the_branches_that_it_wants(world: World) -> None:
    tips = {name: world.server.commit("demo", {"on": name}, branch=name) for name in ("one", "two")}

    def fetch(branch: str, session_branch: str) -> asyncio.Task[str]:
        return asyncio.create_task(world.git.fetch(world.repository, branch=branch, session_branch=session_branch, head_commit=""))

    one, two, none = fetch("main", "one"), fetch("two", "gone"), fetch("gone", "lost")
    assert (await one, await two) == (tips["one"], tips["two"])
    with pytest.raises(BranchUnknown):
        await none
    assert asked(world) == 2
    assert git(world.mirror, "rev-parse", fetched_ref("two")) == tips["two"]


async def test_what_the_mirror_has_is_not_fetched(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    made = (await world.import_(workspace, base)).commit
    assert made is not None
    await world.push(made, create=True)
    asked(world)
    assert await world.fetch(made) == made
    assert asked(world) == 1
    assert git(world.mirror, "rev-parse", fetched_ref(BRANCH)) == made
    newer = world.server.commit("demo", {"more": "1"})
    assert await world.git.fetch(world.repository, branch="main", session_branch="", head_commit="") == newer
    assert asked(world) == 2


async def test_a_commit_without_its_history_is_fetched(world: World) -> None:
    """Objects may be there that no ref keeps, and theirs may be gone."""
    base = world.pushed("rev-parse", "main")
    world.server.commit("demo", {"other": "1"}, branch="other")
    await world.git.fetch(world.repository, branch="other", session_branch="", head_commit="")
    git(world.mirror, "update-ref", "-d", fetched_ref("other"))
    shutil.rmtree(world.mirror / "objects")
    (world.mirror / "objects/pack").mkdir(parents=True)
    git(world.mirror, "hash-object", "-w", "-t", "commit", "--stdin", stdin=git(world.remote, "cat-file", "commit", base).encode() + b"\n")
    assert git(world.mirror, "cat-file", "-t", base) == "commit"
    await world.workspace(await world.fetch())


async def test_who_comes_after_the_remote_was_asked_gets_what_is_there_now(world: World) -> None:
    await world.fetch()
    asked(world)
    async with silent(world):
        early = asyncio.create_task(world.fetch())
        await heard(world)
        newer = world.server.commit("demo", {"more": "1"})
        late = [asyncio.create_task(world.fetch()) for _ in range(TURNS)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*late) == [newer] * TURNS
    await early
    assert asked(world) <= 3


async def test_a_failure_is_everybodys_who_waited_and_not_the_next_ones(world: World) -> None:
    away = world.remote.with_suffix(".away")
    world.remote.rename(away)
    ended = await asyncio.gather(*[world.fetch() for _ in range(TURNS)], return_exceptions=True)
    assert [type(error) for error in ended] == [RepositoryUnreachable] * TURNS
    assert asked(world) == 1
    away.rename(world.remote)
    assert await world.fetch() == world.pushed("rev-parse", "main")


async def test_who_is_cancelled_leaves_alone(world: World) -> None:
    async with silent(world):
        turns = [asyncio.create_task(world.fetch()) for _ in range(3)]
        await heard(world)
        turns[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await turns[0]
    assert await asyncio.gather(*turns[1:]) == [world.pushed("rev-parse", "main")] * 2
    assert asked(world) == 2


async def test_a_fetch_that_nobody_waits_for_ends_with_the_server(world: World) -> None:
    async with silent(world):
        turn = asyncio.create_task(world.fetch())
        await heard(world)
        turn.cancel()
        async with asyncio.timeout(10):
            await world.git.fetches.aclose()
        await asyncio.wait({turn})
    assert turn.cancelled()
