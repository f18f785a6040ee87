"""Both clients while an agent works: what the user says, and answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.clients import Driver

import treadle_client as tc


async def test_what_is_said_and_answered_meanwhile(world: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    steps = ({"approve": "Go on?", "command": "make"}, {"say": "{answer} {note}"})
    fields = world.repository(f"talk/{driver}", *steps)
    client = connect(world.client.address, world.client.key)
    open_then: list[list[str]] = []
    queued: list[tc.Input] = []

    async def each(event: tc.Event) -> None:
        if not isinstance(event.body, tc.ApprovalRequested):
            return
        session_id, request_id = event.session_id, event.body.request_id
        session = await driver.call(client, "get_session", session_id)
        assert (session.state, list(session.open_request_ids)) == (tc.SessionState.SESSION_STATE_AWAITING_APPROVAL, [request_id])
        queued.append(await driver.call(client, "send_input", session_id, "later", request_id=f"{driver}-1"))
        assert await driver.call(client, "send_input", session_id, "later", request_id=f"{driver}-1") == queued[0]
        edited = await driver.call(client, "update_input", session_id, queued[0].input_id, "much later", version=1)
        assert await driver.call(client, "list_inputs", session_id) == [edited]
        with pytest.raises(tc.VersionConflict):
            await driver.call(client, "update_input", session_id, queued[0].input_id, "x", version=1)
        cancelled = await driver.call(client, "cancel_input", session_id, queued[0].input_id)
        assert await driver.call(client, "list_inputs", session_id, everything=True) == [cancelled]
        with pytest.raises(tc.InputNotQueued):
            await driver.call(client, "update_input", session_id, queued[0].input_id, "x")
        with pytest.raises(tc.InputNotFound):
            await driver.call(client, "cancel_input", session_id, session_id)
        with pytest.raises(tc.RequestNotFound):
            await driver.call(client, "resolve_request", session_id, "unknown", decline=True)
        resolved = await driver.call(client, "resolve_request", session_id, request_id, option_id="allow", note="please")
        assert resolved.outcome == tc.RequestOutcome.REQUEST_OUTCOME_CHOSEN
        with pytest.raises(tc.AlreadyResolved) as late:
            await driver.call(client, "resolve_request", session_id, request_id, decline=True)
        assert late.value.metadata["resolved_by"] == "local"

    stream = client.execute(**fields, approvals=tc.Approvals.APPROVALS_ASK, on_synced=lambda ids: open_then.append(list(ids)))
    events = await driver.read(stream, each)
    assert [event.body.parts[0].text for event in events if isinstance(event.body, tc.Message)] == ["allow please"]
    assert len(open_then) == 1
    assert [type(event.body) for event in events].count(tc.RequestResolved) == 1


async def test_who_comes_later_learns_what_is_open_when_the_past_was_given(world: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    fields = world.repository(f"late/{driver}", {"ask": "Which?", "choices": ["a"]}, {"say": "{answer}"})
    client = connect(world.client.address, world.client.key)

    async def each(event: tc.Event) -> None:
        if isinstance(event.body, tc.QuestionRequested):
            open_then: list[str] = []
            other = client.resume(event.session_id, follow=False, on_synced=open_then.extend)
            past = await driver.read(other)
            assert past[-1].seq >= event.seq
            assert open_then == [event.body.request_id]
            answers = [tc.Answer(question_id="question", option_ids=["a"])]
            await driver.call(client, "resolve_request", event.session_id, event.body.request_id, answers=answers)

    events = await driver.read(client.execute(**fields), each)
    assert isinstance(events[-1].body, tc.TurnCompleted)
