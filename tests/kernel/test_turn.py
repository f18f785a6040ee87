import itertools

from server.kernel.session import SessionState
from server.kernel.turn import SESSION_STATE, TERMINAL, TRANSITIONS, TurnState, can_advance


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
    assert set(SESSION_STATE.values()) == set(SessionState)
