"""The pool of waiting workers where something fails: with a spawner of ours, and slots on disk."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.workers import eventually, new_worker, spec

from server.kernel.errors import LaunchFailed, WorkerLost
from server.kernel.ports.launcher import WorkerSpec
from server.workers import pool as pools
from server.workers.pool import PREFIX, Pool
from server.workers.slot import Slot, slot_of


class Spawner:
    """Slots without containers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.broken: set[str] = set()
        self.removals = 0
        self.removes = True

    async def prepare(self, slot: str, waiting: Sequence[str] = (), *, seconds: float) -> str:
        for each in waiting:
            (self.root / each).rename(self.root / slot)
            return each
        Slot(self.root / slot).make()
        return ""

    async def start(self, slot: str, spec: WorkerSpec, *, furnished: bool, seconds: float) -> None:
        if spec.provider in self.broken:
            raise LaunchFailed("no image")

    async def remove(self, slot: str) -> None:
        self.removals += 1
        if not self.removes:
            raise WorkerLost("the engine is away")
        shutil.rmtree(self.root / slot, ignore_errors=True)


@pytest.fixture
def spawner(tmp_path: Path) -> Spawner:
    return Spawner(tmp_path)


@pytest.fixture(autouse=True)
def bad(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every worker answers, but those that are put in here."""
    names: set[str] = set()

    async def answers(self: Pool, slot: Slot) -> None:
        return None

    async def is_good(self: Pool, slot: Slot) -> bool:
        return slot.path.name not in names

    monkeypatch.setattr(Pool, "_answers", answers)
    monkeypatch.setattr(Pool, "_is_good", is_good)
    return names


@asynccontextmanager
async def keeping(spawner: Spawner, sizes: Mapping[str, int], look: float = 0.05) -> AsyncIterator[Pool]:
    given: Any = spawner
    pool = Pool(spawner.root, given, sizes, refill_seconds=0, start_seconds=5, orphan_seconds=look * 3, worker_seconds=1000)
    task = asyncio.create_task(pool.keep())
    try:
        yield pool
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def ready(spawner: Spawner, provider: str) -> list[str]:
    return [path.name for path in spawner.root.glob(f"{PREFIX}{provider}-*") if Slot(path).is_ready]


def has(spawner: Spawner, provider: str, count: int) -> Callable[[], bool]:
    return lambda: len(ready(spawner, provider)) == count


async def test_an_agent_whose_worker_cannot_be_made_keeps_no_other_from_having_some(spawner: Spawner) -> None:
    spawner.broken = {"broken"}
    async with keeping(spawner, {"broken": 1, "good": 2}):
        await eventually(has(spawner, "good", 2))
        # Nor from being looked after.
        (spawner.root / ready(spawner, "good")[0]).rename(spawner.root / "taken")
        Slot(spawner.root / "taken").describe(spec(new_worker()))
        await eventually(has(spawner, "good", 2))
    assert not list(spawner.root.glob(f"{PREFIX}*"))


async def test_an_agent_that_could_not_be_made_is_tried_again_after_a_while(spawner: Spawner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_AFTER_FAILURE_SECONDS", 0.2)
    spawner.broken = {"broken"}
    async with keeping(spawner, {"broken": 1}):
        await eventually(lambda: spawner.removals)
        spawner.broken.clear()
        await eventually(has(spawner, "broken", 1))


async def test_what_could_not_be_removed_is_removed_as_soon_as_it_can_be(spawner: Spawner, bad: set[str]) -> None:
    async with keeping(spawner, {"good": 1}) as pool:
        await eventually(has(spawner, "good", 1))
        (name,) = ready(spawner, "good")
        spawner.removes = False
        bad.add(name)
        tried = spawner.removals
        await eventually(lambda: spawner.removals > tried + 2)
        assert [path.name for path in spawner.root.iterdir()] == [name], "none is made beside it"
        worker = new_worker()
        await pool.prepare(slot_of(spawner.root, worker), "good")
        assert (spawner.root / name).exists(), "no turn gets it"
        spawner.removes = True
        await eventually(lambda: not (spawner.root / name).exists())
        await eventually(has(spawner, "good", 1))


async def test_a_slot_that_was_taken_for_nobody_is_removed(spawner: Spawner, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a server that was killed just then."""
    monkeypatch.setattr(pools, "_NAMELESS_SECONDS", 0.3)
    nobodys, somebodys, old = (Slot(spawner.root / (letter * 12)) for letter in "abc")
    for slot in (nobodys, somebodys, old):
        slot.make()
    (old.workspace / "work").touch()
    somebodys.describe(spec(new_worker()))
    async with keeping(spawner, {}):
        await eventually(lambda: not nobodys.path.exists())
        assert somebodys.path.exists()
        assert old.path.exists(), "by an earlier version, which says otherwise whose it is"
    assert json.loads((somebodys.state / "worker").read_text())["provider"] == "replay"
