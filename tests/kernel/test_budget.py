"""Budgets hold with any number of requests side by side."""

from __future__ import annotations

import asyncio
import random

import pytest

from server.kernel.budget import Purse, admit
from server.kernel.errors import BudgetExhausted
from server.kernel.model_use import Budget, Spent


def purse(tokens: int = 0, micros: int = 0, spent: int = 0) -> Purse:
    return Purse("the turn", Budget(tokens, micros), Spent(spent, spent))


async def test_without_a_limit_everything_passes() -> None:
    endless = purse()
    for key in range(100):
        await admit([endless], key, Spent(10**9, 10**9))
    assert not endless.empty
    assert endless.left == (None, None)


async def test_what_is_known_counts_at_once_and_once() -> None:
    one = purse(tokens=100)
    told: list[Purse] = []
    one.watch(told.append)
    await admit([one], "a", Spent(10))
    one.count("a", Spent(60))
    one.count("a", Spent(99))
    assert (one.used, one.left, told) == (Spent(99), (1, None), [])
    one.count("a", Spent(100))
    assert one.empty
    assert told == [one]
    one.end("a", Spent(90))
    assert (one.used, one.empty) == (Spent(90), False)
    one.end("a", Spent())
    assert one.used == Spent(90)


async def test_an_empty_purse_admits_nobody_and_says_why() -> None:
    with pytest.raises(BudgetExhausted, match=r"the turn is used up \(100 tokens or 0.00 US dollars\)"):
        await admit([purse(tokens=100, micros=10, spent=10)], "a", Spent())


async def test_the_tightest_of_several_purses_counts() -> None:
    wide, tight = purse(tokens=1000), purse(micros=5, spent=5)
    with pytest.raises(BudgetExhausted):
        await admit([wide, tight], "a", Spent(1, 1))
    assert wide.used == Spent(), "nobody began"


async def test_one_that_does_not_fit_waits_and_goes_alone() -> None:
    one = purse(tokens=100)
    await admit([one], "a", Spent(60))
    waiting = asyncio.create_task(admit([one], "b", Spent(60)))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    one.end("a", Spent(50))
    await asyncio.wait_for(waiting, 1)
    one.end("b", Spent(60))
    assert one.empty


@pytest.mark.parametrize("seed", range(20))
async def test_no_crowd_overdraws_by_more_than_one_request(seed: int) -> None:
    """However wrong what was expected is, as long as it is not too little."""
    chance = random.Random(seed)
    limit, largest = 1000, 100
    one = purse(tokens=limit)

    async def request(key: int) -> None:
        used = chance.randint(1, largest)
        await asyncio.sleep(chance.random() / 100)
        try:
            await admit([one], key, Spent(chance.randint(used, 2 * largest)))
        except BudgetExhausted:
            return
        await asyncio.sleep(chance.random() / 1000)
        one.count(key, Spent(used // 2))
        await asyncio.sleep(chance.random() / 1000)
        one.end(key, Spent(used))

    await asyncio.gather(*[request(key) for key in range(100)])
    assert limit <= one.used.tokens <= limit + largest


def test_what_other_servers_have_written_is_learned_and_not_added() -> None:
    one = purse(tokens=100, spent=30)
    one.learn(Spent(20))
    assert one.used.tokens == 30
    one.learn(Spent(80))
    assert one.used.tokens == 80
