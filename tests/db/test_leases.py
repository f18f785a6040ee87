"""Leases: one owner at a time, by the database's clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest
from support.logs import end_turn, run_of, start_turn, start_worker

from server.db.stores import Stores
from server.kernel.errors import Fenced
from server.kernel.identity import Principal
from server.kernel.turn import TurnState


async def test_a_lease_that_runs_is_left_alone(stores: Stores, alice: Principal) -> None:
    await start_turn(stores, alice, replica="r1")
    assert await stores.turns.claim("r2", lease_seconds=60, restart=True, limit=10) == []
    assert await stores.turns.claim("r1", lease_seconds=60, restart=False, limit=10) == []


async def test_a_restart_takes_its_own_turns_back_at_once(stores: Stores, alice: Principal) -> None:
    started = await start_turn(stores, alice, replica="r1")
    claimed = await stores.turns.claim("r1", lease_seconds=60, restart=True, limit=10)
    assert [(each.turn, each.session, each.owner, each.epoch) for each in claimed] == [
        (started.turn, replace(started.session, epoch=2), alice, 2)
    ]


async def test_an_expired_lease_goes_to_whoever_claims_it_and_fences_the_old_owner(stores: Stores, alice: Principal) -> None:
    old = await start_worker(stores, alice)
    assert await stores.turns.renew("r1", [old.session.id], lease_seconds=-1) == {old.session.id}
    (new,) = await stores.turns.claim("r2", lease_seconds=60, restart=False, limit=10)
    assert new.epoch == 2
    assert await stores.turns.renew("r1", [old.session.id], lease_seconds=60) == frozenset()
    assert await stores.events.append([run_of(old, 1, 1)]) == frozenset()
    with pytest.raises(Fenced):
        await stores.turns.commit(replace(old.turn, state=TurnState.RUNNING), expected_version=2, epoch=1, chunk=None)
    # The worker goes on under the new epoch: its watermark is kept.
    assert await stores.events.append([run_of(replace(old, epoch=2), 1, 1)]) == {old.session.id}


async def test_renewal_tells_which_sessions_are_still_held(stores: Stores, alice: Principal) -> None:
    mine, theirs = await start_turn(stores, alice, replica="r1"), await start_turn(stores, alice, replica="r2")
    wanted = [mine.session.id, theirs.session.id, str(uuid4())]
    assert await stores.turns.renew("r1", wanted, lease_seconds=60) == {mine.session.id}
    assert await stores.turns.renew("r1", [], lease_seconds=60) == frozenset()


async def test_ended_turns_are_not_claimed(stores: Stores, alice: Principal) -> None:
    await end_turn(stores, await start_turn(stores, alice, seconds=-1))
    assert await stores.turns.claim("r1", lease_seconds=60, restart=True, limit=10) == []


async def test_a_claim_takes_no_more_than_its_limit(stores: Stores, alice: Principal) -> None:
    for _ in range(3):
        await start_turn(stores, alice, seconds=-1)
    counts = [len(await stores.turns.claim("r2", lease_seconds=60, restart=False, limit=2)) for _ in range(3)]
    assert counts == [2, 1, 0]


async def test_replicas_that_race_for_a_turn_never_both_get_it(stores: Stores, alice: Principal) -> None:
    started = await start_turn(stores, alice, replica="r0", seconds=-1)
    for round_number in range(1, 201):
        results = await asyncio.gather(
            *(stores.turns.claim(replica, lease_seconds=60, restart=False, limit=5) for replica in ("r1", "r2", "r3"))
        )
        won = [claimed for result in results for claimed in result]
        assert [claimed.epoch for claimed in won] == [round_number + 1]
        for replica in ("r1", "r2", "r3"):
            await stores.turns.renew(replica, [started.session.id], lease_seconds=-1)
