"""Turns: started once, driven by one replica, written step by step."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest
from support.logs import chunk, end_turn, new_session, new_turn, start_turn

from server.db.stores import Stores
from server.kernel.errors import Fenced, RequestIdReused, SessionNotFound, TurnActive
from server.kernel.identity import Principal
from server.kernel.ports.turn_store import Claimed, Leftover, Reset
from server.kernel.session import SessionState
from server.kernel.turn import Outcome, TurnCode, TurnState


async def test_a_start_makes_session_turn_and_lease_at_once(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    head = await stores.events.head(claimed.session.id)
    assert head is not None
    assert (head.epoch, head.next_seq, head.turn_id, head.active_turn_id) == (1, 1, "", claimed.turn.id)
    assert claimed.session.state is SessionState.QUEUED
    assert (claimed.session.provider, claimed.session.model) == ("replay", "demo")
    assert (claimed.turn.number, claimed.turn.start_seq, claimed.epoch, claimed.owner) == (1, 0, 1, alice)
    assert await stores.sessions.get(alice, claimed.session.id) == claimed.session


async def test_a_second_turn_waits_for_the_first(stores: Stores, alice: Principal) -> None:
    first = await start_turn(stores, alice)
    with pytest.raises(TurnActive) as refused:
        await start_turn(stores, alice, first.session.id)
    assert refused.value.metadata["turn_id"] == first.turn.id
    await end_turn(stores, first)
    second = await start_turn(stores, alice, first.session.id)
    assert (second.turn.number, second.turn.start_seq, second.epoch) == (2, 1, 2)


async def test_nobody_starts_a_turn_in_a_session_of_others(stores: Stores, alice: Principal, bob: Principal, mallory: Principal) -> None:
    claimed = await start_turn(stores, alice)
    await end_turn(stores, claimed)
    for stranger in (bob, mallory):
        with pytest.raises(SessionNotFound):
            await start_turn(stores, stranger, claimed.session.id)
        with pytest.raises(SessionNotFound):
            await stores.turns.request_interrupt(stranger, claimed.session.id, "", reason="mine now")
    with pytest.raises(SessionNotFound):
        await start_turn(stores, alice, "no uuid")


async def test_starts_that_race_on_one_request_id_make_one_turn(stores: Stores, alice: Principal) -> None:
    turns = [new_turn(request_id="once") for _ in range(8)]
    results = await asyncio.gather(
        *(stores.turns.start(alice, new_session(), turn, replica="r", lease_seconds=9) for turn in turns), return_exceptions=True
    )
    started = [result for result in results if isinstance(result, Claimed)]
    assert len(started) == 1
    assert all(isinstance(result, RequestIdReused) for result in results if result not in started)
    assert await stores.turns.find_request(alice, "once") == started[0].turn
    page = await stores.sessions.list(alice, page_size=10, page_token="")
    assert [session.id for session in page.sessions] == [started[0].session.id]


async def test_a_repeated_request_is_told_from_another_one_while_its_turn_runs(stores: Stores, alice: Principal, bob: Principal) -> None:
    claimed = await start_turn(stores, alice, request_id="once")
    with pytest.raises(RequestIdReused):
        await start_turn(stores, alice, claimed.session.id, request_id="once")
    assert await stores.turns.find_request(bob, "once") is None
    await start_turn(stores, bob, request_id="once")


async def test_starts_that_race_for_one_session_make_one_turn(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    await end_turn(stores, claimed)
    results = await asyncio.gather(*(start_turn(stores, alice, claimed.session.id) for _ in range(8)), return_exceptions=True)
    assert [type(result) for result in results].count(Claimed) == 1
    assert [type(result) for result in results].count(TurnActive) == 7


async def test_a_step_writes_turn_session_and_events_together(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    turn = replace(claimed.turn, state=TurnState.PREPARING, branch="treadle/x", base_commit="abc")
    await stores.turns.commit(turn, expected_version=1, epoch=1, chunk=chunk(1, 2), session_title="Title", session_branch="treadle/x")
    session = await stores.sessions.get(alice, claimed.session.id)
    assert (session.state, session.title, session.branch, session.last_seq) == (SessionState.PROVISIONING, "Title", "treadle/x", 2)
    assert session.version == 1
    assert await stores.events.read(session.id, 0, max_bytes=1_000_000) == [chunk(1, 2)]


@pytest.mark.parametrize(("version", "epoch", "first_seq"), [(2, 1, 1), (1, 2, 1), (1, 0, 1), (1, 1, 2)])
async def test_a_step_that_expects_anything_else_writes_nothing(
    stores: Stores, alice: Principal, version: int, epoch: int, first_seq: int
) -> None:
    claimed = await start_turn(stores, alice)
    before = await stores.sessions.get(alice, claimed.session.id)
    turn = replace(claimed.turn, state=TurnState.PREPARING)
    with pytest.raises(Fenced):
        await stores.turns.commit(turn, expected_version=version, epoch=epoch, chunk=chunk(first_seq, first_seq), session_title="No")
    assert await stores.sessions.get(alice, claimed.session.id) == before
    assert await stores.events.read(claimed.session.id, 0, max_bytes=1) == []


async def test_all_fields_of_a_turn_survive_a_step(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice, request_id="r")
    outcome = Outcome(TurnState.FAILED, TurnCode.WORKER_LOST, "gone", "killed")
    turn = replace(
        claimed.turn,
        state=TurnState.FAILED,
        base_commit="b",
        branch="treadle/x",
        attempt=2,
        interrupt_reason="asked",
        outcome=outcome,
        imported=True,
        commit="c",
        push_attempted=True,
        pushed=True,
        snapshot_state="PENDING",
        snapshot_key="k",
        snapshot_sha256="s",
        snapshot_size=5,
        started_at=claimed.turn.created_at,
        concluded_at=claimed.turn.created_at,
        ended_at=claimed.turn.created_at,
    )
    await stores.turns.commit(turn, expected_version=1, epoch=1, chunk=chunk(1, 3), session_head_commit="c")
    assert await stores.turns.find_request(alice, "r") == replace(turn, version=2, end_seq=3)
    assert await stores.events.turn_end(turn.id) == 3
    session = await stores.sessions.get(alice, claimed.session.id)
    assert (session.state, session.head_commit, session.active_turn_id) == (SessionState.FAILED, "c", "")
    (snapshot,) = await stores.history.pending(limit=5)
    assert (snapshot.turn_id, snapshot.commit) == (turn.id, "c")
    await stores.history.stored(snapshot, key="k2", sha256="s2", size=6)
    assert await stores.history.pending(limit=5) == []


async def test_an_ended_turn_cannot_change(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    await end_turn(stores, claimed)
    with pytest.raises(Fenced):
        await stores.turns.commit(replace(claimed.turn, state=TurnState.RUNNING), expected_version=2, epoch=1, chunk=None)


async def test_an_interrupt_is_not_lost_to_a_step_that_did_not_know_of_it(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    interrupted = await stores.turns.request_interrupt(alice, claimed.session.id, "", reason="enough")
    assert interrupted is not None
    assert (interrupted.interrupt_reason, interrupted.version) == ("enough", 1)
    await stores.turns.commit(replace(claimed.turn, state=TurnState.PREPARING), expected_version=1, epoch=1, chunk=None)
    assert await stores.turns.interrupts("r1") == [(claimed.turn.id, "enough")]
    assert await stores.turns.interrupts("r2") == []
    assert await stores.turns.request_interrupt(alice, claimed.session.id, str(uuid4()), reason="other") is None
    await end_turn(stores, claimed, version=2)
    assert await stores.turns.request_interrupt(alice, claimed.session.id, "", reason="late") is None
    assert await stores.turns.interrupts("r1") == []


async def test_files_of_a_turn_are_kept_until_they_are_imported(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    assert await stores.turns.leftover(claimed.turn.id) is Leftover.NEEDED
    await stores.turns.commit(
        replace(claimed.turn, state=TurnState.COMPLETED, imported=True), expected_version=1, epoch=1, chunk=chunk(1, 1)
    )
    assert await stores.turns.leftover(claimed.turn.id) is Leftover.NOBODYS
    assert await stores.turns.leftover(str(uuid4())) is Leftover.NOBODYS
    unread = await start_turn(stores, alice)
    await end_turn(stores, unread, version=1)
    assert await stores.turns.leftover(unread.turn.id) is Leftover.KEPT
    assert await stores.turns.repository_url(claimed.session.id) == claimed.session.repository_url
    with pytest.raises(SessionNotFound):
        await stores.turns.repository_url(str(uuid4()))


async def test_a_reset_opens_the_head_for_one_attempt_and_the_end_closes_it(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    turn = replace(claimed.turn, state=TurnState.PREPARING, attempt=1)
    await stores.turns.commit(turn, expected_version=1, epoch=1, chunk=None, reset=Reset(turn.id, 1))
    head = await stores.events.head(turn.session_id)
    assert head is not None
    assert (head.turn_id, head.attempt, head.worker_seq) == (turn.id, 1, 0)
    await end_turn(stores, claimed, version=2)
    head = await stores.events.head(turn.session_id)
    assert head is not None
    assert (head.turn_id, head.attempt, head.worker_seq, head.next_seq) == ("", 0, 0, 2)
