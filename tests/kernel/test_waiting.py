"""The two primitives that every follower and every stream waits with."""

from __future__ import annotations

import asyncio

import pytest

from server.kernel.rush import Rush
from server.kernel.stall import StallTimeout
from server.kernel.wakeup import Wakeup


async def test_every_waiter_is_woken_and_forgotten() -> None:
    wakeup = Wakeup()
    waiters = [asyncio.create_task(wakeup.after(wakeup.count, 30)) for _ in range(100)]
    while wakeup.waiting < 100:
        await asyncio.sleep(0)
    wakeup.notify()
    assert await asyncio.gather(*waiters) == [True] * 100
    assert wakeup.waiting == 0


async def test_news_between_looking_and_waiting_is_not_missed() -> None:
    wakeup = Wakeup()
    seen = wakeup.count
    wakeup.notify()
    assert await wakeup.after(seen, 30)


async def test_without_news_the_wait_ends_in_time() -> None:
    wakeup = Wakeup()
    assert not await wakeup.after(wakeup.count, 0.001)
    assert wakeup.waiting == 0


async def test_a_cancelled_waiter_is_forgotten() -> None:
    wakeup = Wakeup()
    waiter = asyncio.create_task(wakeup.after(wakeup.count))
    while not wakeup.waiting:
        await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert wakeup.waiting == 0


async def test_a_wait_that_stalls_ends_the_block() -> None:
    stall = StallTimeout(0.01)
    with pytest.raises(TimeoutError):
        async with stall:
            stall.begin()
            await asyncio.Event().wait()
    assert stall.expired


async def test_time_between_waits_does_not_count() -> None:
    """Only the waits are bounded: a stream may be open, and silent, for longer than any of its writes may take."""
    loop = asyncio.get_running_loop()
    async with StallTimeout(0.01) as stall:
        stall.begin()
        stall.end()
        elapsed = asyncio.Event()
        loop.call_later(0.05, elapsed.set)
        await elapsed.wait()
    assert not stall.expired


async def test_a_later_wait_that_stalls_is_found_too() -> None:
    stall = StallTimeout(0.01)
    with pytest.raises(TimeoutError):
        async with stall:
            for _ in range(3):
                stall.begin()
                await asyncio.sleep(0)
                stall.end()
            stall.begin()
            await asyncio.Event().wait()


async def test_a_wait_that_ends_as_it_is_found_too_long_is_not_cancelled() -> None:
    """The timer and the answer may come in the same round of the loop; the task must not be cancelled at some later await."""
    async with StallTimeout(30) as stall:
        stall.begin()
        stall._since = asyncio.get_running_loop().time() - 60
        stall._look()
        stall.end()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not stall.expired


async def test_cancellation_from_outside_stays_cancellation() -> None:
    stall = StallTimeout(30)

    async def block() -> None:
        async with stall:
            stall.begin()
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not stall.expired


async def test_work_begins_when_the_last_caller_has_left() -> None:
    rush = Rush(patience=30)
    rush.enter("first")
    rush.enter("second")
    work = asyncio.create_task(rush.over())
    rush.leave("first")
    await asyncio.sleep(0)
    assert not work.done()
    rush.leave("second")
    await work


async def test_work_does_not_stand_back_for_ever() -> None:
    rush = Rush(patience=0.001)
    rush.enter("somebody who never leaves")
    await rush.over()


async def test_without_callers_work_begins_at_once() -> None:
    rush = Rush(patience=30)
    rush.enter("one")
    rush.leave("one")
    await asyncio.wait_for(rush.over(), 0.001)
