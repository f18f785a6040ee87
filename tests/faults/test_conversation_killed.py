"""`kill -9` of the main server while people talk to a session and its agent asks: nothing that was said or asked is lost or doubled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.nursery import Nursery
from support.treadle import Client, Killable, connected, events_of, recording, settings_for

from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

# Every named point of what people say and are asked, with which passing of it is the last. The conversation below passes `tell` for
# each of two queued inputs, for the answer and for the steering input; `send` for three inputs and for the one that starts a turn.
POINTS = [
    *[(f"send.{side}", nth) for nth in (1, 4) for side in ("before", "after")],
    *[(f"tell.commit.{side}", nth) for nth in (1, 3, 4) for side in ("before", "after")],
    *[(f"ask.commit.{side}", 1) for side in ("before", "after")],
    *[(f"resolve.{side}", 1) for side in ("before", "after")],
    *[(f"answer.{side}", 1) for side in ("before", "after")],
    *[(f"offer.{side}", 1) for side in ("before", "after")],
    *[(f"give.{side}", 1) for side in ("before", "after")],
    *[(f"taken.commit.{side}", 1) for side in ("before", "after")],
    *[(f"follow_up.{side}", nth) for nth in (1, 2) for side in ("before", "after")],
    ("conclude.commit.before", 1),
    ("conclude.commit.after", 1),
    ("end.commit.after", 1),
]

TALKING = [{"ask": "Which colour?", "choices": ["red", "blue"]}, {"say": "{answer}"}, {"listen": 1}, {"say": "heard {input}"}]
# Only the first turn asks and listens: later ones find a recording of the same name that says what they were asked for.
LATER = recording({"say": "turn {turn}: {prompt}"})
RECORDING = recording(*TALKING, {"run": "cp later.jsonl r.jsonl"})
SAID = ["blue", "heard steer", "turn 2: first", "turn 3: second", "turn 4: last"]


@dataclass
class World:
    server: Killable
    git: GitServer


@pytest.fixture
async def world(database: DatabaseUrls, server_data_dir: Path, tmp_path: Path, nursery: Nursery) -> AsyncIterator[World]:
    with serving(tmp_path / "host") as git_server:
        settings = settings_for(database, server_data_dir, git_server, log_format="json")
        server = Killable(settings, tmp_path / "server.log", nursery=nursery)
        git_server.create("acme/app", {"README.md": "# App\n", "r.jsonl": RECORDING, "later.jsonl": LATER})
        try:
            yield World(server, git_server)
        finally:
            await server.stop()


@dataclass
class Talk:
    """What a user does, from the start; every call can be repeated, and is, by another talk after a restart."""

    client: Client
    url: str
    session_id: str = ""
    seen: list[event_pb2.Event] = field(default_factory=list)

    async def whole(self) -> list[event_pb2.Event]:
        request = {"request_id": "one", "repository_url": self.url, "prompt": "go", "provider": "replay", "model": "r.jsonl"}
        stream = self.client.execute(**request)
        asked = await self.until(stream, lambda event: event.HasField("question_requested"))
        self.session_id = asked.session_id
        for text in ("first", "second"):
            sent = await self.send(text, event_pb2.INPUT_DELIVERY_QUEUE)
            await self.until(stream, lambda event, sent=sent: event.user_input.input_id == sent)
        answers = [event_pb2.Answer(question_id="question", option_ids=["blue"])]
        request_id = asked.question_requested.request_id
        await self.call("ResolveRequest", pb.ResolveRequestRequest(session_id=self.session_id, request_id=request_id, answers=answers))
        await self.until(stream, lambda event: event.HasField("message"))
        await self.send("steer", event_pb2.INPUT_DELIVERY_STEER)
        await self.until(stream, lambda event: event.HasField("turn_completed"))
        await events_of(self.client.resume(self.session_id))
        await self.send("last", event_pb2.INPUT_DELIVERY_QUEUE)
        await events_of(self.client.resume(self.session_id))
        return await self.client.log(self.session_id)

    async def until(self, stream: Any, condition: Any) -> event_pb2.Event:
        """Read on until an event fulfils the condition."""
        while not (found := [event for event in self.seen if condition(event)]):
            frame = await stream.read()
            assert frame is not grpc.aio.EOF, [event.WhichOneof("body") for event in self.seen]
            self.seen.extend(frame.events.events)
        return found[0]

    async def send(self, text: str, delivery: int) -> str:
        request = pb.SendInputRequest(
            session_id=self.session_id, text=text, delivery=delivery, request_id=f"input {text}".replace(" ", "-")
        )
        return str((await self.call("SendInput", request)).input.input_id)

    async def call(self, method: str, request: Any) -> Any:
        return await self.client.call(method, request)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("point", "nth"), POINTS, ids=[f"{point}-{nth}" for point, nth in POINTS])
async def test_killed_at_a_named_point_the_conversation_goes_on(world: World, point: str, nth: int) -> None:
    url = f"{world.git.url}/acme/app.git"
    await world.server.start(kill_at=point, nth=nth)
    async with connected(world.server.address, world.server.key) as client:
        with pytest.raises(grpc.aio.AioRpcError):
            await Talk(client, url).whole()
    assert await world.server.wait_killed() == -9, "the point was not passed"
    await world.server.start()
    async with connected(world.server.address, world.server.key) as client:
        log = await Talk(client, url).whole()
    assert [event.message.parts[0].text for event in log if event.HasField("message")] == SAID
    ends = [event.turn_completed.status for event in log if event.HasField("turn_completed")]
    assert ends == [event_pb2.TURN_STATUS_COMPLETED] * 4
    # The checker has seen that each was delivered once and each request resolved once; and nothing is left.
    told = [event.user_input for event in log if event.user_input.status == event_pb2.INPUT_STATUS_DELIVERED]
    assert [each.parts[0].text for each in told] == ["go", "steer", "first", "second", "last"]
    (resolved,) = [event.request_resolved for event in log if event.HasField("request_resolved")]
    assert resolved.answers[0].option_ids == ["blue"]
    assert {event.attempt for event in log} == {0, 1}


INTERRUPTIONS = [
    *[(f"send.{side}", 1) for side in ("before", "after")],
    *[(f"tell.commit.{side}", 1) for side in ("before", "after")],
    *[(f"{step}.commit.{side}", 1) for step in ("conclude", "end") for side in ("before", "after")],
    *[(f"follow_up.{side}", 1) for side in ("before", "after")],
]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("point", "nth"), INTERRUPTIONS, ids=[f"{point}-{nth}" for point, nth in INTERRUPTIONS])
async def test_killed_at_a_named_point_an_interrupt_stops_one_turn_and_is_the_next(world: World, point: str, nth: int) -> None:
    asking = recording({"run": "cp later.jsonl r.jsonl"}, {"ask": "Which colour?", "choices": ["red"]}, {"say": "never"})
    world.git.create("acme/asking", {"r.jsonl": asking, "later.jsonl": LATER})
    url = f"{world.git.url}/acme/asking.git"

    async def whole(client: Client) -> list[event_pb2.Event]:
        talk = Talk(client, url)
        request = {"request_id": "one", "repository_url": url, "prompt": "go", "provider": "replay", "model": "r.jsonl"}
        asked = await talk.until(client.execute(**request), lambda event: event.HasField("question_requested"))
        talk.session_id = asked.session_id
        await talk.send("now", event_pb2.INPUT_DELIVERY_INTERRUPT)
        await events_of(client.resume(talk.session_id))
        return await client.log(talk.session_id)

    await world.server.start(kill_at=point, nth=nth)
    async with connected(world.server.address, world.server.key) as client:
        with pytest.raises(grpc.aio.AioRpcError):
            await whole(client)
    assert await world.server.wait_killed() == -9, "the point was not passed"
    await world.server.start()
    async with connected(world.server.address, world.server.key) as client:
        log = await whole(client)
    ends = [event.turn_completed.status for event in log if event.HasField("turn_completed")]
    assert ends == [event_pb2.TURN_STATUS_INTERRUPTED, event_pb2.TURN_STATUS_COMPLETED]
    assert [event.message.parts[0].text for event in log if event.HasField("message")] == ["turn 2: now"]
    (resolved,) = [event.request_resolved.outcome for event in log if event.HasField("request_resolved")]
    assert resolved == event_pb2.REQUEST_OUTCOME_CANCELLED
