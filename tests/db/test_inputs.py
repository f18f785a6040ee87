"""Inputs and requests: queued and delivered once, answered once, and seen by their owner only."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from support.logs import NO_PLACE, chunk, end_turn, new_session, open_request, send, start_turn, start_worker

from server.db.stores import Stores
from server.kernel.agent_request import AgentRequest, Answer, Question, RequestKind, RequestOutcome, Resolution
from server.kernel.errors import (
    Fenced,
    InputNotFound,
    InputNotQueued,
    InvalidField,
    RequestIdReused,
    RequestNotFound,
    RequestResolved,
    SessionNotFound,
    StoreRejected,
    TooManyInputs,
    VersionConflict,
)
from server.kernel.identity import Principal
from server.kernel.ports.input_store import Starter
from server.kernel.ports.turn_store import Changes, Claimed
from server.kernel.session import SessionState
from server.kernel.turn import Awaiting, Turn, TurnState
from server.kernel.user_input import Delivery, InputState, NewInput

STARTER = Starter("r1", 60, "replay")
YES = Resolution("r", RequestOutcome.CHOSEN, option_id="yes", resolved_by="alice", note="go")


async def idle(stores: Stores, owner: Principal) -> str:
    return (await stores.sessions.create(owner, new_session(), request_id="", request_digest="")).id


async def end(stores: Stores, claimed: Claimed, state: TurnState = TurnState.COMPLETED) -> None:
    head = await stores.events.head(claimed.session.id)
    assert head is not None
    await stores.turns.commit(
        replace(claimed.turn, state=state), expected_version=1, epoch=claimed.epoch, chunk=chunk(head.next_seq, head.next_seq)
    )


async def test_an_input_of_an_idle_session_starts_a_turn_in_the_same_transaction(stores: Stores, alice: Principal) -> None:
    session_id = await idle(stores, alice)
    sent = await send(stores, alice, session_id, "begin", starter=STARTER)
    assert sent.started is not None
    turn = sent.started.turn
    assert (turn.prompt, turn.input_id, turn.number, turn.provider, turn.request_id) == ("begin", sent.input.id, 1, "replay", "")
    assert (sent.input.state, sent.input.turn_id, sent.input.position) == (InputState.DELIVERED, turn.id, 1)
    assert (await stores.sessions.get(alice, session_id)).active_turn_id == turn.id
    # Nothing is left to be told: the turn's first step does that.
    assert await stores.desk.calls("r1") == []


async def test_with_a_turn_it_waits_and_without_a_place_its_turn_does(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    sent = await send(stores, alice, claimed.session.id, starter=STARTER)
    assert (sent.started, sent.input.state) == (None, InputState.QUEUED)
    assert await stores.desk.calls("r1") == [claimed.session.id]
    assert await stores.desk.calls("r2") == []
    free = await idle(stores, alice)
    waits = await send(stores, alice, free, starter=NO_PLACE)
    assert isinstance(waits.started, Turn)
    assert (waits.input.state, waits.input.turn_id) == (InputState.DELIVERED, waits.started.id)
    assert await stores.desk.start_next(STARTER, limit=9) == []
    (taken,) = await stores.queue.take("r1", lease_seconds=60, limit=9)
    assert (taken.session.id, taken.turn.id) == (free, waits.started.id)


async def test_many_at_once_are_one_turn_and_a_queue_without_gaps(stores: Stores, alice: Principal) -> None:
    session_id = await idle(stores, alice)
    results = await asyncio.gather(*(send(stores, alice, session_id, f"n{n}", starter=STARTER) for n in range(8)))
    assert sum(result.started is not None for result in results) == 1
    assert sorted(result.input.position for result in results) == [*range(1, 9)]


async def test_the_same_request_id_says_nothing_twice(stores: Stores, alice: Principal, mallory: Principal) -> None:
    claimed = await start_turn(stores, alice)
    new = NewInput(str(uuid4()), "key", "text", Delivery.QUEUE)
    sends = [stores.inputs.send(alice, claimed.session.id, new, starter=NO_PLACE, limit=9) for _ in range(4)]
    assert len({sent.input.id for sent in await asyncio.gather(*sends)}) == 1
    for other in (replace(new, text="other"), replace(new, delivery=Delivery.STEER)):
        with pytest.raises(RequestIdReused):
            await stores.inputs.send(alice, claimed.session.id, replace(other, id=str(uuid4())), starter=NO_PLACE, limit=9)
    with pytest.raises(RequestIdReused):
        await stores.inputs.send(alice, await idle(stores, alice), replace(new, id=str(uuid4())), starter=NO_PLACE, limit=9)
    # Another user's key is another key.
    theirs = await start_turn(stores, mallory)
    assert (
        await stores.inputs.send(mallory, theirs.session.id, replace(new, id=str(uuid4())), starter=NO_PLACE, limit=9)
    ).input.text == "text"


async def test_a_full_queue_takes_no_more(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    new = [NewInput(str(uuid4()), "", "text", Delivery.QUEUE) for _ in range(3)]
    for each in new[:2]:
        await stores.inputs.send(alice, claimed.session.id, each, starter=NO_PLACE, limit=2)
    with pytest.raises(TooManyInputs):
        await stores.inputs.send(alice, claimed.session.id, new[2], starter=NO_PLACE, limit=2)
    await stores.inputs.cancel(alice, claimed.session.id, new[0].id)
    await stores.inputs.send(alice, claimed.session.id, new[2], starter=NO_PLACE, limit=2)


async def test_an_interrupt_is_for_the_turn_that_was_active_and_for_no_other(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    first = await send(stores, alice, claimed.session.id, "first", delivery=Delivery.INTERRUPT)
    second = await send(stores, alice, claimed.session.id, "second", delivery=Delivery.INTERRUPT)
    assert [each.id for each in (await stores.desk.news(claimed.turn)).interrupting] == [first.input.id, second.input.id]
    await end(stores, claimed, TurnState.INTERRUPTED)
    (started,) = await stores.desk.start_next(STARTER, limit=9)
    assert started.turn.input_id == first.input.id
    # The second one waits for its turn: what it interrupted has ended.
    news = await stores.desk.news(started.turn)
    assert (news.interrupting, [each.id for each in news.untold_inputs]) == ([], [second.input.id])
    await stores.inputs.cancel(alice, claimed.session.id, second.input.id)


async def test_an_interrupt_that_was_taken_back_stops_nothing(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    sent = await send(stores, alice, claimed.session.id, delivery=Delivery.INTERRUPT)
    await stores.inputs.cancel(alice, claimed.session.id, sent.input.id)
    assert (await stores.desk.news(claimed.turn)).interrupting == []


@pytest.mark.parametrize(("state", "goes_on"), [(TurnState.COMPLETED, True), (TurnState.FAILED, False), (TurnState.INTERRUPTED, False)])
async def test_the_queue_goes_on_after_a_turn_that_completed(stores: Stores, alice: Principal, state: TurnState, goes_on: bool) -> None:
    claimed = await start_turn(stores, alice)
    session_id = claimed.session.id
    first, second = await send(stores, alice, session_id, "first"), await send(stores, alice, session_id, "second")
    assert await stores.desk.start_next(STARTER, limit=9) == []
    await end(stores, claimed, state)
    head = await stores.events.head(session_id)
    assert head is not None
    assert head.input_due is goes_on
    started = await stores.desk.start_next(STARTER, session_id=session_id)
    assert bool(started) is goes_on
    if not goes_on:
        # The next word sets it going again, with what is first.
        third = await send(stores, alice, session_id, "third", starter=STARTER)
        assert third.started is not None
        assert third.input.state is InputState.QUEUED
        started = [third.started]
    assert (started[0].turn.prompt, started[0].turn.input_id) == ("first", first.input.id)
    assert (started[0].owner, started[0].epoch, started[0].turn.number) == (alice, 2, 2)
    page = await stores.inputs.list(alice, session_id, page_size=9, page_token="", everything=False)
    assert [each.text for each in page.inputs] == (["second"] if goes_on else ["second", "third"])
    assert second.input.position == 2


async def test_an_interrupting_input_goes_first_and_waits_for_nobody(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    await send(stores, alice, claimed.session.id, "later")
    await send(stores, alice, claimed.session.id, "now", delivery=Delivery.INTERRUPT)
    await end(stores, claimed, TurnState.INTERRUPTED)
    (started,) = await stores.desk.start_next(STARTER, limit=9)
    assert started.turn.prompt == "now"


async def test_many_servers_start_a_due_turn_once(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    await send(stores, alice, claimed.session.id)
    await end(stores, claimed)
    results = await asyncio.gather(*(stores.desk.start_next(replace(STARTER, replica=f"r{n}"), limit=9) for n in range(6)))
    assert sorted(map(len, results)) == [0, 0, 0, 0, 0, 1]


async def test_a_follow_up_takes_over_agent_model_and_approvals(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice, approvals="ASK")
    await send(stores, alice, claimed.session.id)
    await end(stores, claimed)
    (started,) = await stores.desk.start_next(replace(STARTER, default_provider="other"), limit=9)
    assert (started.turn.provider, started.turn.model, started.turn.approvals) == ("replay", "demo", "ASK")


async def test_what_waits_is_changed_by_its_version(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    session_id, sent = claimed.session.id, (await send(stores, alice, claimed.session.id)).input
    edited = await stores.inputs.update(alice, session_id, sent.id, text="new", version=1)
    assert (edited.text, edited.version, edited.told_version) == ("new", 2, 0)
    with pytest.raises(VersionConflict):
        await stores.inputs.update(alice, session_id, sent.id, text="newer", version=1)
    cancelled = await stores.inputs.cancel(alice, session_id, sent.id)
    assert (cancelled.state, cancelled.version, cancelled.text) == (InputState.CANCELLED, 3, "new")
    assert await stores.inputs.cancel(alice, session_id, sent.id) == cancelled
    with pytest.raises(InputNotQueued):
        await stores.inputs.update(alice, session_id, sent.id, text="newest", version=0)
    for unknown in (str(uuid4()), "no uuid"):
        with pytest.raises(InputNotFound):
            await stores.inputs.cancel(alice, session_id, unknown)


async def test_an_input_is_changed_or_delivered_but_never_both(stores: Stores, alice: Principal) -> None:
    for _ in range(10):
        claimed = await start_turn(stores, alice)
        sent = (await send(stores, alice, claimed.session.id)).input
        await end(stores, claimed)
        started, cancelled = await asyncio.gather(
            stores.desk.start_next(STARTER, session_id=claimed.session.id),
            stores.inputs.cancel(alice, claimed.session.id, sent.id),
            return_exceptions=True,
        )
        assert not isinstance(started, BaseException)
        assert isinstance(cancelled, InputNotQueued) is bool(started)


async def test_pages_are_in_order_and_tokens_are_checked(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    for n in range(5):
        await send(stores, alice, claimed.session.id, f"n{n}")
    seen: list[str] = []
    token = ""
    while True:
        page = await stores.inputs.list(alice, claimed.session.id, page_size=2, page_token=token, everything=False)
        seen += [each.text for each in page.inputs]
        token = page.next_token
        if not token:
            break
    assert seen == [f"n{n}" for n in range(5)]
    for forged in ("x", "-1", "1" * 30, "１"):
        with pytest.raises(InvalidField):
            await stores.inputs.list(alice, claimed.session.id, page_size=2, page_token=forged, everything=False)


async def test_a_page_ends_early_where_texts_are_long(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    texts = [*["a" * 100_000] * 10, *["\U0001f600" * 100_000] * 3, "b", "c"]
    for text in texts:
        await send(stores, alice, claimed.session.id, text)
    pages: list[list[str]] = []
    token = ""
    while token or not pages:
        page = await stores.inputs.list(alice, claimed.session.id, page_size=50, page_token=token, everything=False)
        pages.append([each.text for each in page.inputs])
        token = page.next_token
    assert pages == [texts[:10], texts[10:12], texts[12:]]


async def test_what_is_told_is_told_once_unless_it_changes_again(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    turn = replace(claimed.turn, state=TurnState.PREPARING)
    sent = (await send(stores, alice, claimed.session.id)).input
    news = await stores.desk.news(turn)
    assert [each.id for each in news.untold_inputs] == [sent.id]
    # It changes while it is being told.
    await stores.inputs.update(alice, claimed.session.id, sent.id, text="new", version=0)
    told = Changes(told_inputs=[(sent.id, 1)])
    await stores.turns.commit(turn, expected_version=1, epoch=claimed.epoch, chunk=chunk(1, 1), changes=told)
    (again,) = (await stores.desk.news(turn)).untold_inputs
    assert (again.text, again.status) == ("new", "EDITED")
    told = Changes(told_inputs=[(sent.id, 2)])
    await stores.turns.commit(turn, expected_version=2, epoch=claimed.epoch, chunk=chunk(2, 2), changes=told)
    assert (await stores.desk.news(turn)).untold_inputs == []


async def test_what_is_offered_cannot_be_changed_until_it_comes_back(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    turn, session_id = claimed.turn, claimed.session.id
    sent = (await send(stores, alice, session_id, delivery=Delivery.STEER)).input
    assert not await stores.desk.offer(turn, sent.id, epoch=claimed.epoch + 1)
    assert await stores.desk.offer(turn, sent.id, epoch=claimed.epoch)
    assert not await stores.desk.offer(turn, sent.id, epoch=claimed.epoch)
    with pytest.raises(InputNotQueued):
        await stores.inputs.cancel(alice, session_id, sent.id)
    assert [each.state for each in (await stores.desk.news(turn)).steering] == [InputState.OFFERED]
    await stores.desk.close(turn, epoch=claimed.epoch + 1)
    assert [each.state for each in (await stores.desk.news(turn)).steering] == [InputState.OFFERED]
    await stores.desk.close(turn, epoch=claimed.epoch)
    assert [each.state for each in (await stores.desk.news(turn)).steering] == [InputState.QUEUED]
    assert (await stores.inputs.cancel(alice, session_id, sent.id)).state is InputState.CANCELLED


async def test_a_request_is_there_with_its_event_or_not_at_all(stores: Stores, alice: Principal) -> None:
    claimed = await start_worker(stores, alice)
    with pytest.raises(Fenced):
        await open_request(stores, claimed, first_seq=1, worker_seq=2)
    with pytest.raises(RequestNotFound):
        await stores.inputs.request(alice, claimed.session.id, "r")
    asked = AgentRequest("r", RequestKind.QUESTION, questions=(Question("q", ("a", "b"), multi=True), Question("p", free_text=True)))
    await open_request(stores, claimed, asked, first_seq=1)
    assert await stores.inputs.request(alice, claimed.session.id, "r") == asked
    head = await stores.events.head(claimed.session.id)
    assert head is not None
    assert (head.next_seq, head.worker_seq, head.open_requests, head.session_state) == (2, 1, ("r",), "AWAITING_APPROVAL")
    session = await stores.sessions.get(alice, claimed.session.id)
    assert (session.state, session.open_requests) == (SessionState.AWAITING_APPROVAL, ("r",))
    # Asked again under the same id: nothing of that step is written.
    with pytest.raises(StoreRejected):
        await open_request(stores, claimed, asked, first_seq=2, version=3)
    assert await stores.events.head(claimed.session.id) == head


async def test_the_first_of_many_answers_counts(stores: Stores, alice: Principal) -> None:
    claimed = await start_worker(stores, alice)
    await open_request(stores, claimed, first_seq=1)
    answers = [replace(YES, note=f"{n}") for n in range(8)]
    results = await asyncio.gather(*(stores.inputs.resolve(alice, claimed.session.id, each) for each in answers), return_exceptions=True)
    (won,) = [result for result in results if isinstance(result, Resolution)]
    lost = [result for result in results if isinstance(result, RequestResolved)]
    assert len(lost) == 7
    assert {each.metadata["resolved_by"] for each in lost} == {"alice"}
    assert await stores.inputs.resolve(alice, claimed.session.id, won) == won
    news = await stores.desk.news(claimed.turn)
    assert (news.open, news.resolved, news.untold_requests) == ([], [won], {"r"})
    assert await stores.desk.calls("r1") == [claimed.session.id]
    told = Changes(told_requests=["r"])
    turn = replace(claimed.turn, awaiting=Awaiting.NOBODY)
    await stores.turns.commit(turn, expected_version=3, epoch=claimed.epoch, chunk=chunk(2, 2), changes=told)
    assert (await stores.desk.news(claimed.turn)).untold_requests == frozenset()
    assert await stores.desk.calls("r1") == []


async def test_answers_survive_as_they_were_given(stores: Stores, alice: Principal) -> None:
    claimed = await start_worker(stores, alice)
    await open_request(stores, claimed, first_seq=1)
    given = Resolution("r", RequestOutcome.ANSWERED, answers=(Answer("q", ("a",)), Answer("p", text='ünï\n"x"')), resolved_by="alice")
    await stores.inputs.resolve(alice, claimed.session.id, given)
    assert (await stores.desk.news(claimed.turn)).resolved == [given]


async def test_what_was_withdrawn_expired_or_closed_takes_no_answer(stores: Stores, alice: Principal) -> None:
    for outcome in (RequestOutcome.CANCELLED, RequestOutcome.EXPIRED, None):
        claimed = await start_worker(stores, alice)
        past = datetime.now(UTC) - timedelta(seconds=1)
        await open_request(stores, claimed, first_seq=1, expires_at=past if outcome is RequestOutcome.EXPIRED else None)
        desk, turn = stores.desk, claimed.turn
        for epoch in (claimed.epoch + 1, claimed.epoch):
            assert [each.id for each in (await desk.news(turn)).open] == ["r"]
            if outcome is RequestOutcome.CANCELLED:
                await desk.withdraw(turn, "r", epoch=epoch)
            elif outcome is RequestOutcome.EXPIRED:
                await desk.expire(turn, epoch=epoch)
            else:
                await desk.close(turn, epoch=epoch)
        with pytest.raises(RequestResolved) as refused:
            await stores.inputs.resolve(alice, claimed.session.id, YES)
        assert refused.value.metadata["outcome"] == (outcome or RequestOutcome.CANCELLED)


async def test_what_does_not_expire_yet_stays_open(stores: Stores, alice: Principal) -> None:
    claimed = await start_worker(stores, alice)
    await open_request(stores, claimed, first_seq=1, expires_at=datetime.now(UTC) + timedelta(hours=1))
    await stores.desk.expire(claimed.turn, epoch=claimed.epoch)
    assert [each.kind for each in (await stores.desk.news(claimed.turn)).open] == [RequestKind.APPROVAL]


async def test_nothing_of_it_is_anybody_elses(stores: Stores, alice: Principal, mallory: Principal) -> None:
    claimed = await start_worker(stores, alice)
    session_id = claimed.session.id
    await open_request(stores, claimed, first_seq=1)
    sent = (await send(stores, alice, session_id)).input
    for stranger in (mallory, replace(mallory, user_id=alice.user_id), replace(alice, user_id="bob")):
        for call in (
            lambda who: send(stores, who, session_id, starter=STARTER),
            lambda who: stores.inputs.list(who, session_id, page_size=1, page_token="", everything=True),
            lambda who: stores.inputs.update(who, session_id, sent.id, text="x", version=0),
            lambda who: stores.inputs.cancel(who, session_id, sent.id),
            lambda who: stores.inputs.request(who, session_id, "r"),
            lambda who: stores.inputs.resolve(who, session_id, YES),
        ):
            with pytest.raises(SessionNotFound):
                await call(stranger)


async def test_a_deleted_session_takes_its_queue_with_it(stores: Stores, alice: Principal) -> None:
    claimed = await start_worker(stores, alice)
    await open_request(stores, claimed, first_seq=1)
    await send(stores, alice, claimed.session.id)
    await end_turn(stores, claimed, version=3)
    await stores.sessions.delete(alice, claimed.session.id)
    assert await stores.desk.start_next(STARTER, limit=9) == []
    with pytest.raises(SessionNotFound):
        await send(stores, alice, claimed.session.id)
