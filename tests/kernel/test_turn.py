import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from server.kernel.session import SessionState
from server.kernel.turn import SESSION_STATE, TERMINAL, TRANSITIONS, Awaiting, Turn, TurnState, can_advance

NEW: dict[str, Any] = {
    "id": "t",
    "tenant_id": "acme",
    "session_id": "s",
    "owner_id": "alice",
    "number": 1,
    "request_id": "",
    "request_digest": "",
    "provider": "replay",
    "model": "",
    "prompt": "go",
}


def test_terminal_states_are_immutable() -> None:
    for old, new in itertools.product(TERMINAL, TurnState):
        assert not can_advance(old, new)


def test_every_turn_can_end_from_everywhere_through_finalizing() -> None:
    for state in set(TurnState) - TERMINAL - {TurnState.FINALIZING}:
        assert can_advance(state, TurnState.FINALIZING)
    assert TRANSITIONS[TurnState.FINALIZING] == TERMINAL


def test_no_turn_goes_back() -> None:
    order = [TurnState.QUEUED, TurnState.PREPARING, TurnState.RUNNING, TurnState.FINALIZING]
    for earlier, later in itertools.combinations(order, 2):
        assert not can_advance(later, earlier)


def test_progress_within_a_state_is_allowed() -> None:
    assert can_advance(TurnState.PREPARING, TurnState.PREPARING)


def test_every_turn_state_has_a_session_state() -> None:
    assert set(SESSION_STATE) == set(TurnState)
    waiting = {Turn(**NEW, state=TurnState.RUNNING, awaiting=whom).session_state for whom in Awaiting}
    assert set(SESSION_STATE.values()) | waiting == set(SessionState)


def test_only_a_running_turn_makes_its_session_wait() -> None:
    for state in set(TurnState) - {TurnState.RUNNING}:
        assert Turn(**NEW, state=state, awaiting=Awaiting.USER).session_state is SESSION_STATE[state]


def test_the_time_in_which_the_agent_waits_is_not_worked() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)

    def after(seconds: int) -> datetime:
        return begin + timedelta(seconds=seconds)

    turn = Turn(**NEW, state=TurnState.RUNNING, started_at=begin).waiting_for(Awaiting.USER, after(10))
    assert turn.worked_seconds(after(100)) == 10
    # A second request, of another kind, does not begin the wait anew; and its end is not the end of the wait.
    turn = turn.waiting_for(Awaiting.APPROVAL, after(20)).waiting_for(Awaiting.USER, after(30))
    assert (turn.awaiting, turn.worked_seconds(after(100))) == (Awaiting.USER, 10)
    turn = turn.waiting_for(Awaiting.NOBODY, after(40))
    assert (turn.awaiting, turn.waited_seconds, turn.worked_seconds(after(50))) == (Awaiting.NOBODY, 30, 20)
    assert turn.waiting_for(Awaiting.USER, after(60)).worked_seconds(after(1000)) == 30
