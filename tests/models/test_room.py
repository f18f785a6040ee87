"""Nobody's requests are in anybody's way for long, and all of them together take up a bounded part of the memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import pytest

from server.models import room as rooms
from server.models.room import Place, Room, Share


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_OWN_BYTES", 4)


async def waits(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Its task, which cannot go on now."""
    task = asyncio.create_task(work)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_what_does_not_fit_waits_until_somebody_leaves() -> None:
    room = Room(100)
    first, second = Place(Share(room, 60)), Place(Share(room, 60))
    await first.grow(60)
    await second.grow(40)
    waiting = await waits(second.grow(1))
    first.leave()
    await asyncio.wait_for(waiting, 1)
    assert room.used == 41
    first.leave()
    assert room.used == 41


async def test_a_turn_has_its_share_and_its_first_request_goes_on_all_the_same() -> None:
    room = Room(1000)
    share = Share(room, 10)
    first, second = Place(share), Place(share)
    await first.grow(5)
    await second.grow(5)
    waiting = await waits(second.grow(1))
    await first.grow(1)
    await Place(Share(room, 10)).grow(10)
    first.leave()
    await asyncio.wait_for(waiting, 1)


async def test_in_a_full_room_each_turn_has_a_little_and_the_first_of_all_goes_on() -> None:
    room = Room(100)
    greedy = Share(room, 100)
    first = Place(greedy)
    await first.grow(100)
    other = Place(Share(room, 100))
    await other.grow(4)
    waiting = await waits(other.grow(1))
    await first.grow(50)
    first.leave()
    await asyncio.wait_for(waiting, 1)
    await other.grow(200)


async def test_a_request_that_ends_anyhow_leaves() -> None:
    room = Room(10)
    share = Share(room, 10)
    with contextlib.suppress(ValueError), share.place() as place:
        await place.grow(10)
        raise ValueError
    assert (room.used, list(room.places), list(share.places)) == (0, [], [])
