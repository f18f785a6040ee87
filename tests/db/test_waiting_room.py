"""A replica's task for the queue, with the real queue: what it does first, and how much of it at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import asyncpg
import pytest
from support.logs import new_session, new_turn

from server.api.event_codec import ProtobufEventCodec
from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.identity import Principal
from server.kernel.supervisor import waiting
from server.kernel.supervisor.waiting import TOLD_AT_ONCE, WaitingRoom


class Replica:
    """What the room needs of one: places, and a list of what it did (`told`, or how many turns it took)."""

    def __init__(self, stores: Stores, *, free: int = 0) -> None:
        self.free = free
        self.did: list[str | int] = []
        self.told = asyncio.Event()
        self.on_told: Callable[[], None] = lambda: None
        self._stores = stores
        ports = SimpleNamespace(
            queue=stores.queue,
            codec=ProtobufEventCodec(),
            secrets=lambda: (),
            journal=SimpleNamespace(look_again=lambda _: None),
            mark=self._mark,
        )
        self.room = WaitingRoom(ports, SimpleNamespace(replica="r1"), room=lambda: self.free, take=self._take)  # type: ignore[arg-type]

    def _mark(self, point: str) -> None:
        if point == "queue.tell.after":
            self.did.append("told")
            self.on_told()

    async def _take(self, limit: int) -> int:
        taken = await self._stores.queue.take("r1", lease_seconds=60, limit=limit)
        self.free -= sum(not each.turn.interrupt_reason for each in taken)
        self.did.append(len(taken))
        return len(taken)

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not done():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(replica: Replica) -> AsyncIterator[Replica]:
    task = asyncio.create_task(replica.room.run())
    try:
        yield replica
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks when it is called, and goes on by itself as long as there is something to do."""
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 3600.0)


async def wait_in_line(stores: Stores, owner: Principal, count: int) -> None:
    for _ in range(count):
        await stores.turns.start(owner, new_session(), new_turn(), replica="", lease_seconds=60)


async def stop_all(database: DatabaseUrls) -> None:
    connection = await asyncpg.connect(database.owner)
    try:
        await connection.execute("UPDATE turns SET interrupt_reason = 'enough'")
    finally:
        await connection.close()


async def test_a_place_that_becomes_free_is_given_before_all_are_told_where_they_stand(stores: Stores, alice: Principal) -> None:
    await wait_in_line(stores, alice, 3 * TOLD_AT_ONCE)
    replica = Replica(stores)

    def leave() -> None:
        if replica.did == ["told"]:
            replica.free = 1
            replica.room.call()

    replica.on_told = leave
    async with running(replica):
        await replica.until(lambda: replica.did.count("told") >= 3)
    assert replica.did[:4] == ["told", 1, "told", "told"]


async def test_those_that_shall_stop_go_in_parts_until_none_is_left(stores: Stores, database: DatabaseUrls, alice: Principal) -> None:
    await wait_in_line(stores, alice, 70)
    await stop_all(database)
    async with running(Replica(stores)) as replica:
        await replica.until(lambda: replica.room.waiting == 0 and len(replica.did) > 0)
    assert replica.did == [64, 6]


async def test_what_cannot_be_taken_now_is_not_asked_for_all_the_time(stores: Stores, database: DatabaseUrls, alice: Principal) -> None:
    """As where this replica is going away."""
    await wait_in_line(stores, alice, 1)
    await stop_all(database)
    replica, asked = Replica(stores), []

    async def none(limit: int) -> int:
        asked.append(limit)
        return 0

    replica.room._take = none
    assert not await replica.room.attend()
    assert asked == [0]
