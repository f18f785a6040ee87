"""Cuts that come just after a turn's end: only the server knows whether another turn follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from support.clients import Driver
from support.frame_relay import FrameRelay, Frames, typed

import treadle_client as tc
from server.kernel import errors
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb


async def _answer(world: Any, session_id: str, request_id: str) -> None:
    answers = [tc.Answer(question_id="question", option_ids=["a"])]
    await world.client.call("ResolveRequest", pb.ResolveRequestRequest(session_id=session_id, request_id=request_id, answers=answers))


@pytest.mark.parametrize("seen_in_the_queue", [True, False])
async def test_a_turn_that_was_queued_is_not_missed(
    world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any], seen_in_the_queue: bool
) -> None:
    """`seen_in_the_queue`: who resumes knows the input already, so the stream does not tell of it."""
    name = f"acme/queued-{driver}-{seen_in_the_queue}".lower()
    fields = world.repository(name, {"ask": "Which?", "choices": ["a"]}, {"say": "{answer}"})
    first = world.client.execute(**_as_message(fields))
    question = await _until(first, lambda event: event.HasField("question_requested"))
    session_id, request_id = question.session_id, question.question_requested.request_id
    await world.client.call("SendInput", pb.SendInputRequest(session_id=session_id, text="second"))
    queued = (await _until(first, lambda event: event.user_input.status == event_pb2.INPUT_STATUS_QUEUED)).seq
    first.cancel()

    async def cut_at_the_first_turns_end(number: int, frames: Frames) -> Frames:
        async for frame in frames:
            yield frame
            if number == 0 and frame.HasField("synced"):
                await _answer(world, session_id, request_id)
            if number == 0 and frame.HasField("events") and frame.events.events[-1].HasField("turn_completed"):
                raise typed(errors.ShuttingDown())

    async def answer(event: tc.Event) -> None:
        if isinstance(event.body, tc.QuestionRequested):
            await _answer(world, session_id, event.body.request_id)

    relay.tamper = cut_at_the_first_turns_end
    after_seq = queued if seen_in_the_queue else queued - 1
    client = connect(relay.address, world.client.key)
    seen = await driver.read(client.resume(session_id, after_seq=after_seq), answer)
    whole = await world.client.log(session_id)
    assert [event.HasField("turn_completed") for event in whole].count(True) == 2
    assert [event.proto for event in seen] == whole[after_seq:]
    assert relay.asked == ["Resume"] * 2


async def test_a_session_that_ended_is_asked_about_once_more(
    world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any]
) -> None:
    """The cut comes between the last event and the word that it was the last."""

    async def cut_before_closed(number: int, frames: Frames) -> Frames:
        async for frame in frames:
            if number == 0 and frame.HasField("closed"):
                raise typed(errors.ShuttingDown())
            yield frame

    relay.tamper = cut_before_closed
    client = connect(relay.address, world.client.key)
    seen = await driver.read(client.resume(world.session_id))
    assert [event.proto for event in seen] == world.log
    assert relay.asked == ["Resume"] * 2


async def _until(stream: Any, wanted: Callable[[event_pb2.Event], bool]) -> event_pb2.Event:
    while (frame := await stream.read()) is not grpc.aio.EOF:
        for event in frame.events.events:
            if wanted(event):
                return event
    raise AssertionError("the stream ended without it")


def _as_message(fields: dict[str, str]) -> dict[str, str]:
    return {"repository_url" if name == "repository" else name: value for name, value in fields.items()}
