"""What models were used is there exactly once, with its step or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from support.logs import start_turn, start_worker, use_model

from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.errors import Fenced, StoreRejected
from server.kernel.identity import Principal
from server.kernel.model_use import Spent

TODAY = datetime.now(UTC).date()


async def test_sums_are_by_turn_and_by_user_and_day(stores: Stores, alice: Principal, bob: Principal, mallory: Principal) -> None:
    first, second = await start_worker(stores, alice), await start_worker(stores, alice)
    for claimed in (first, second, await start_worker(stores, bob), await start_worker(stores, mallory)):
        await use_model(stores, claimed, version=2, tokens=(1, 20, 300, 4000, 4000, 10), micros=7)
    await use_model(stores, first, version=3, number=2, tokens=(100,), micros=None)
    assert await stores.usage.of_turn("acme", first.turn.id) == Spent(4421, 7)
    assert await stores.usage.of_turn("acme", second.turn.id) == Spent(4321, 7)
    assert await stores.usage.of_turn("evil", first.turn.id) == Spent()
    assert await stores.usage.of_day("acme", "alice", TODAY) == Spent(8742, 14)
    assert await stores.usage.of_day("acme", "bob", TODAY) == Spent(4321, 7)
    assert await stores.usage.of_day("acme", "alice", TODAY - timedelta(days=1)) == Spent()


async def test_a_step_that_is_refused_leaves_no_use(stores: Stores, alice: Principal) -> None:
    claimed = await start_worker(stores, alice)
    with pytest.raises(Fenced):
        await use_model(stores, claimed, version=1)
    assert await stores.usage.of_turn("acme", claimed.turn.id) == Spent()


async def test_one_use_is_never_written_twice(stores: Stores, alice: Principal) -> None:
    claimed = await start_worker(stores, alice)
    await use_model(stores, claimed, version=2)
    with pytest.raises(StoreRejected):
        await use_model(stores, claimed, version=3)
    assert await stores.usage.of_turn("acme", claimed.turn.id) == Spent(3, 3)


async def test_what_is_old_is_removed_piece_by_piece(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    claimed = await start_worker(stores, alice)
    for number in range(1, 5):
        await use_model(stores, claimed, version=1 + number, number=number)
    await aged(database, "number < 4", days=10)
    nine_days_ago = datetime.now(UTC) - timedelta(days=9)
    assert [await stores.usage.forget(nine_days_ago, limit=2) for _ in range(3)] == [2, 1, 0]
    assert await stores.usage.of_turn("acme", claimed.turn.id) == Spent(3, 3)


async def aged(database: DatabaseUrls, which: str, *, days: int) -> None:
    owner = await asyncpg.connect(database.owner)
    try:
        await owner.execute(f"UPDATE model_uses SET created_at = created_at - interval '{days} days' WHERE {which}")
    finally:
        await owner.close()


async def test_who_deletes_a_session_gets_no_budget_back(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    claimed = await start_turn(stores, alice)
    await use_model(stores, claimed, version=1)
    owner = await asyncpg.connect(database.owner)
    try:
        await owner.execute("DELETE FROM sessions")
    finally:
        await owner.close()
    assert await stores.usage.of_day("acme", "alice", TODAY) == Spent(3, 3)
