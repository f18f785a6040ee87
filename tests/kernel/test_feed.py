"""Rounds of wake-ups: at once for a few followers, in ticks that adapt for many."""

from __future__ import annotations

import asyncio

from server.kernel.event import Chunk
from server.kernel.journal.feed import FOLLOWERS_PER_MILLISECOND, MAX_TICK_SECONDS, Feed

MANY = 10 * FOLLOWERS_PER_MILLISECOND


def feed_with(followers: int) -> Feed:
    feed = Feed(lambda data: data)
    feed.followers = followers
    feed.drive(object(), 1, "turn")
    return feed


def chunk(seq: int) -> Chunk:
    return Chunk(seq, seq, b"%d;" % seq)


async def shown(feed: Feed, last_seq: int) -> None:
    async with asyncio.timeout(10):
        while feed.tail < last_seq:
            await feed.news.after(feed.news.count)


async def test_a_few_followers_see_an_event_at_once() -> None:
    feed = feed_with(FOLLOWERS_PER_MILLISECOND)
    feed.publish(chunk(1))
    assert feed.tail == 1


async def test_many_followers_see_a_round_with_all_that_came() -> None:
    feed = feed_with(MANY)
    for seq in (1, 2, 3):
        feed.publish(chunk(seq))
    assert feed.tail == 0
    await shown(feed, 3)
    assert (events := feed.since(0)) is not None and events.frame == b"1;2;3;"


async def test_a_round_waits_for_the_one_before() -> None:
    """Followers that are still writing are not handed the next small frame; all of them get one larger frame when they are back."""
    feed = feed_with(MANY)
    loop = asyncio.get_running_loop()
    feed.publish(chunk(1))
    await shown(feed, 1)
    began = loop.time()
    feed.publish(chunk(2))
    await shown(feed, 2)
    assert loop.time() - began >= MAX_TICK_SECONDS * 0.9, "nobody came back, and the next round came all the same"


async def test_followers_that_are_back_are_not_kept_waiting() -> None:
    feed = feed_with(MANY)
    waiting = [asyncio.create_task(feed.news.after(feed.news.count, 30)) for _ in range(MANY)]
    while feed.news.waiting < MANY:
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    feed.publish(chunk(1))
    await shown(feed, 1)
    assert loop.time() - began < MAX_TICK_SECONDS / 2
    await asyncio.gather(*waiting)


async def test_release_shows_what_a_tick_held_back() -> None:
    feed = Feed(lambda data: data)
    feed.followers = MANY
    driver = object()
    feed.drive(driver, 1, "turn")
    feed.publish(chunk(1))
    feed.release(driver)
    assert feed.tail == 1
