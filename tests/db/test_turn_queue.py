"""Turns that wait for a place: who is next, what limits hold back, what logs are told, and that nobody gets a place twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import asyncpg
import pytest
from support.logs import NO_PLACE, chunk, end_turn, new_session, new_turn, send, start_turn
from support.postgres import database_settings

from server.db.stores import Stores, open_postgres
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.errors import Fenced, SessionNotFound, TooManyTurns, TurnActive
from server.kernel.identity import Principal
from server.kernel.ports.turn_queue import Telling, WaitReason
from server.kernel.ports.turn_store import Claimed
from server.kernel.turn import Turn, TurnState
from server.kernel.user_input import Delivery


async def wait_in_line(stores: Stores, owner: Principal, count: int = 1) -> list[Turn]:
    turns = [await stores.turns.start(owner, new_session(), new_turn(), replica="", lease_seconds=60) for _ in range(count)]
    assert all(isinstance(turn, Turn) for turn in turns)
    return turns  # type: ignore[return-value]


async def take(stores: Stores, limit: int, replica: str = "r1") -> list[str]:
    return [claimed.turn.id for claimed in await stores.queue.take(replica, lease_seconds=60, limit=limit)]


async def in_order(stores: Stores) -> list[tuple[str, int, WaitReason]]:
    """Of all of which nothing is told yet: (turn, how many of its tenant are before it, reason)."""
    look = await stores.queue.look(limit=1000)
    return [(each.stands.turn.id, each.ahead, each.reason) for each in look.due]


def ids(turns: Sequence[Turn]) -> list[str]:
    return [turn.id for turn in turns]


async def test_a_turn_without_a_place_is_nobodys(stores: Stores, database: DatabaseUrls, alice: Principal) -> None:
    (turn,) = await wait_in_line(stores, alice)
    assert await stores.turns.claim("r1", lease_seconds=60, restart=True, limit=9) == []
    # Also not one that was lost, for a replica of the version before, which knows of no queue.
    connection = await asyncpg.connect(database.owner)
    try:
        assert await connection.fetchval("SELECT lease_owner IS NULL AND lease_expires_at > now() FROM session_heads")
    finally:
        await connection.close()
    look = await stores.queue.look(limit=9)
    assert (look.waiting, look.startable, look.stopped) == (1, 1, 0)
    assert [(each.stands.turn, each.ahead, each.reason, each.stands.begun) for each in look.due] == [(turn, 0, WaitReason.PLACE, False)]
    (claimed,) = await stores.queue.take("r1", lease_seconds=60, limit=1)
    assert (claimed.turn, claimed.owner, claimed.epoch) == (turn, alice, look.due[0].stands.epoch + 1)
    assert (await stores.queue.look(limit=9)).waiting == 0
    # From now on it is as any other turn: its replica takes it up again after a restart.
    assert [each.turn.id for each in await stores.turns.claim("r1", lease_seconds=60, restart=True, limit=9)] == [turn.id]


async def test_one_who_asks_for_many_makes_nobody_else_wait_for_them(
    stores: Stores, alice: Principal, bob: Principal, mallory: Principal
) -> None:
    many = ids(await wait_in_line(stores, alice, 5))
    (of_bob,) = ids(await wait_in_line(stores, bob))
    of_mallory = ids(await wait_in_line(stores, mallory, 2))
    # acme and evil take turns; within acme so do alice and bob.
    expected = [many[0], of_mallory[0], of_bob, of_mallory[1], *many[1:]]
    order = await in_order(stores)
    assert [turn_id for turn_id, _, _ in order] == expected
    # Each hears of its own tenant only.
    assert [ahead for _, ahead, _ in order] == [0, 0, 1, 1, 2, 3, 4, 5]
    assert [await take(stores, 1) for _ in expected] == [[turn_id] for turn_id in expected]


async def test_who_runs_less_is_next(stores: Stores, alice: Principal, bob: Principal, mallory: Principal) -> None:
    await start_turn(stores, alice)
    await start_turn(stores, alice)
    theirs = await start_turn(stores, mallory)
    (of_alice,) = ids(await wait_in_line(stores, alice))
    (of_bob,) = ids(await wait_in_line(stores, bob))
    of_mallory = ids(await wait_in_line(stores, mallory, 3))
    # acme runs 2 turns and evil 1; bob runs none.
    assert [each[0] for each in await in_order(stores)] == [of_mallory[0], of_bob, of_mallory[1], of_alice, of_mallory[2]]
    await end_turn(stores, theirs)
    assert [each[0] for each in await in_order(stores)] == [of_mallory[0], of_mallory[1], of_bob, of_mallory[2], of_alice]


async def test_the_only_place_goes_from_one_to_the_next(stores: Stores, alice: Principal, bob: Principal, mallory: Principal) -> None:
    a = ids(await wait_in_line(stores, alice, 4))
    (b,) = ids(await wait_in_line(stores, bob))
    m = ids(await wait_in_line(stores, mallory, 2))
    order = []
    while taken := await stores.queue.take("r1", lease_seconds=60, limit=1):
        order.append(taken[0].turn.id)
        # Nobody runs a turn when it becomes free.
        await end_turn(stores, taken[0])
    assert order == [a[0], m[0], b, m[1], *a[1:]]


async def test_takers_at_the_same_time_share_what_waits(stores: Stores, alice: Principal, mallory: Principal) -> None:
    turns = ids(await wait_in_line(stores, alice, 6) + await wait_in_line(stores, mallory, 6))
    takes = await asyncio.gather(*(take(stores, 2, f"r{n}") for n in range(8)))
    taken = [turn_id for each in takes for turn_id in each]
    assert len(taken) == len(set(taken)) == len(turns)
    assert set(taken) == set(turns)


@pytest.fixture
async def limited(database: DatabaseUrls, stores: Stores) -> Stores:
    """With limits; `stores` has none, on the same database."""
    settings = database_settings(database).model_copy(
        update={"max_turns_per_user": 2, "max_turns_per_tenant": 3, "max_waiting_turns": 3, "max_waiting_turns_per_tenant": 4}
    )
    async with open_postgres(settings) as opened:
        yield opened  # type: ignore[misc]


async def test_a_user_runs_no_more_than_may(limited: Stores, alice: Principal, bob: Principal, mallory: Principal) -> None:
    begun = await asyncio.gather(*(limited.turns.start(alice, new_session(), new_turn(), replica="r1", lease_seconds=60) for _ in range(4)))
    running = [each for each in begun if isinstance(each, Claimed)]
    waiting = [each for each in begun if isinstance(each, Turn)]
    assert (len(running), len(waiting)) == (2, 2)
    assert await take(limited, 9) == []
    # A tenant has room for one more, of another user, and other tenants are not concerned.
    assert isinstance(await limited.turns.start(bob, new_session(), new_turn(), replica="r1", lease_seconds=60), Claimed)
    over = await limited.turns.start(bob, new_session(), new_turn(), replica="r1", lease_seconds=60)
    assert isinstance(over, Turn)
    (theirs,) = await wait_in_line(limited, mallory)
    reasons = {turn_id: (ahead, reason) for turn_id, ahead, reason in await in_order(limited)}
    assert reasons[theirs.id] == (0, WaitReason.PLACE)
    assert reasons[over.id][1] is WaitReason.TENANT_LIMIT
    assert {reasons[turn.id][1] for turn in waiting} == {WaitReason.USER_LIMIT}
    look = await limited.queue.look(limit=1)
    assert (look.waiting, look.startable) == (4, 1)
    assert await take(limited, 9) == [theirs.id]
    await end_turn(limited, running[0])
    # Bob runs one turn, as alice does, and asked later; each alone would be below its limit.
    assert len(await take(limited, 9)) == 1
    assert await take(limited, 9) == []


async def test_places_by_start_and_by_take_are_counted_together(limited: Stores, alice: Principal) -> None:
    await wait_in_line(limited, alice, 3)
    starts = [limited.turns.start(alice, new_session(), new_turn(), replica="r1", lease_seconds=60) for _ in range(3)]
    results = await asyncio.gather(take(limited, 9), *starts, take(limited, 9, "r2"), return_exceptions=True)
    taken = [turn_id for each in results if isinstance(each, list) for turn_id in each]
    assert len(taken) + sum(isinstance(each, Claimed) for each in results) == 2


async def test_no_more_turns_wait_than_may(limited: Stores, alice: Principal, bob: Principal, mallory: Principal) -> None:
    await wait_in_line(limited, alice, 3)
    with pytest.raises(TooManyTurns) as refused:
        await limited.turns.start(alice, new_session(), new_turn(), replica="", lease_seconds=60)
    assert refused.value.metadata == {"limit": "3", "whose": "user"}
    await wait_in_line(limited, bob)
    with pytest.raises(TooManyTurns) as refused:
        await limited.turns.start(bob, new_session(), new_turn(), replica="", lease_seconds=60)
    assert refused.value.metadata == {"limit": "4", "whose": "tenant"}
    # Nothing was made of what was refused.
    assert len((await limited.sessions.list(bob, page_size=9, page_token="")).sessions) == 1
    await wait_in_line(limited, mallory)


async def test_an_input_that_would_wait_as_a_turn_is_refused_as_one(limited: Stores, alice: Principal) -> None:
    claimed = await start_turn(limited, alice)
    await end_turn(limited, claimed)
    await wait_in_line(limited, alice, 3)
    with pytest.raises(TooManyTurns):
        await send(limited, alice, claimed.session.id)
    assert (await limited.inputs.list(alice, claimed.session.id, page_size=9, page_token="", everything=True)).inputs == ()


async def tell(stores: Stores, **changes: object) -> frozenset[str]:
    look = await stores.queue.look(limit=100)
    tellings = []
    for each in look.due:
        first = each.stands.session.last_seq + 1
        waiting = replace(each, stands=replace(each.stands, **changes))  # type: ignore[arg-type]
        tellings.append(Telling(waiting, chunk(first, first + 2), "Told"))
    return await stores.queue.tell(tellings)


async def clock_back(database: DatabaseUrls) -> None:
    """What was told is a second old."""
    connection = await asyncpg.connect(database.owner)
    try:
        await connection.execute("UPDATE turns SET told_at = told_at - interval '1 second'")
    finally:
        await connection.close()


async def test_a_log_is_told_once_and_then_of_changes_only(stores: Stores, database: DatabaseUrls, alice: Principal) -> None:
    turns = await wait_in_line(stores, alice, 3)
    assert await tell(stores) == {turn.session_id for turn in turns}
    assert await stores.events.read(turns[0].session_id, 0, max_bytes=9999) == [chunk(1, 3)]
    await clock_back(database)
    assert await tell(stores) == frozenset()
    assert await take(stores, 1) == [turns[0].id]
    assert await tell(stores) == {turn.session_id for turn in turns[1:]}
    assert await take(stores, 1) == [turns[1].id]
    # At most once a second.
    assert await tell(stores) == frozenset()
    await clock_back(database)
    assert await tell(stores) == {turns[2].session_id}
    (claimed,) = await stores.queue.take("r1", lease_seconds=60, limit=9)
    assert (claimed.begun, claimed.session.last_seq) == (True, 9)


async def test_far_behind_only_a_quarter_is_a_change(stores: Stores, database: DatabaseUrls, alice: Principal) -> None:
    turns = await wait_in_line(stores, alice, 40)
    assert len(await tell(stores)) == 40
    await clock_back(database)
    await take(stores, 2)
    # 0 to 9 are told each step; from 10 on it takes a quarter.
    assert len(await tell(stores)) == 10
    await take(stores, 8)
    await clock_back(database)
    assert turns[39].session_id in await tell(stores)
    logs = [await stores.events.read(turn.session_id, 0, max_bytes=99_999) for turn in turns]
    assert sum(map(len, logs)) < 40 * 2.5


async def test_who_has_taken_a_turn_is_not_disturbed_by_who_would_tell_of_it(stores: Stores, alice: Principal) -> None:
    (turn,) = await wait_in_line(stores, alice)
    look = await stores.queue.look(limit=9)
    (claimed,) = await stores.queue.take("r1", lease_seconds=60, limit=1)
    late = Telling(replace(look.due[0], stands=replace(look.due[0].stands, epoch=claimed.epoch)), chunk(1, 1))
    assert await stores.queue.tell([late]) == frozenset()
    assert await stores.events.read(turn.session_id, 0, max_bytes=999) == []
    await end_turn(stores, claimed)


async def test_who_tells_of_an_old_end_of_the_log_changes_nothing(stores: Stores, alice: Principal) -> None:
    (turn,) = await wait_in_line(stores, alice)
    (due,) = (await stores.queue.look(limit=9)).due
    results = await asyncio.gather(*(stores.queue.tell([Telling(due, chunk(1, 2))]) for _ in range(4)))
    assert sum(len(told) for told in results) == 1
    assert await stores.events.read(turn.session_id, 0, max_bytes=999) == [chunk(1, 2)]
    with pytest.raises(Fenced):
        await stores.turns.commit(replace(turn, state=TurnState.PREPARING), expected_version=1, epoch=due.stands.epoch - 1, chunk=None)


async def test_what_shall_stop_needs_no_place_and_holds_up_nobody(stores: Stores, alice: Principal) -> None:
    first, second, third = await wait_in_line(stores, alice, 3)
    await stores.turns.request_interrupt(alice, first.session_id, "", reason="enough")
    await send(stores, alice, second.session_id, "rather this", delivery=Delivery.INTERRUPT)
    look = await stores.queue.look(limit=9)
    assert (look.waiting, look.startable, look.stopped) == (3, 1, 2)
    assert [(each.stands.turn.id, each.ahead) for each in look.due] == [(third.id, 0)]
    taken = await stores.queue.take("r1", lease_seconds=60, limit=0)
    assert {each.turn.id: each.turn.interrupt_reason for each in taken} == {
        first.id: "enough",
        second.id: "interrupted by Alice for a new request",
    }


async def test_what_shall_stop_goes_in_parts_that_take_no_place_away(stores: Stores, database: DatabaseUrls, alice: Principal) -> None:
    turns = ids(await wait_in_line(stores, alice, 140))
    assert len(await tell(stores)) == 100
    stay = turns[:10]
    connection = await asyncpg.connect(database.owner)
    try:
        await connection.execute("UPDATE turns SET interrupt_reason = 'enough' WHERE id <> ALL ($1::uuid[])", stay)
    finally:
        await connection.close()
    sizes, places = [], []
    while taken := await stores.queue.take("r1", lease_seconds=60, limit=3):
        sizes.append(sum(bool(each.turn.interrupt_reason) for each in taken))
        places += [[each.turn.id for each in taken if not each.turn.interrupt_reason]]
    assert sizes == [64, 64, 2, 0]
    assert [set(each) for each in places] == [set(stay[:3]), set(stay[3:6]), set(stay[6:9]), set(stay[9:])]


async def test_a_session_whose_turn_waits_can_be_deleted(stores: Stores, alice: Principal, bob: Principal) -> None:
    turns = await wait_in_line(stores, alice, 2)
    with pytest.raises(SessionNotFound):
        await stores.sessions.delete(bob, turns[0].session_id)
    await stores.sessions.delete(alice, turns[0].session_id)
    assert await take(stores, 9) == [turns[1].id]
    with pytest.raises(TurnActive):
        await stores.sessions.delete(alice, turns[1].session_id)


async def test_deleted_taken_and_told_at_the_same_time_it_is_one_of_them(stores: Stores, alice: Principal) -> None:
    turns = await wait_in_line(stores, alice, 12)
    deletes = [stores.sessions.delete(alice, turn.session_id) for turn in turns]
    results = await asyncio.gather(tell(stores), *deletes, *(take(stores, 1) for _ in range(6)), tell(stores), return_exceptions=True)
    unexpected = [each for each in results if isinstance(each, Exception) and not isinstance(each, TurnActive)]
    assert unexpected == []
    taken = {turn_id for each in results if isinstance(each, list) for turn_id in each}
    left = {session.active_turn_id for session in (await stores.sessions.list(alice, page_size=99, page_token="")).sessions}
    assert taken <= left


async def test_follow_ups_that_are_due_wait_however_many_do(limited: Stores, alice: Principal) -> None:
    claimed = await start_turn(limited, alice)
    await send(limited, alice, claimed.session.id, "next")
    await wait_in_line(limited, alice, 3)
    await end_turn(limited, claimed)
    (follows,) = await limited.desk.start_next(NO_PLACE, limit=9)
    assert isinstance(follows, Turn)
    assert follows.prompt == "next"
    assert (await limited.queue.look(limit=9)).waiting == 4
