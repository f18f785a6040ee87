"""What users say while a turn runs: queued, changed, taken back, handed to the agent, and made into the next turns."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.git_server import GitServer
from support.treadle import Client, error_info, events_of, kinds, pushed_files, recording

from treadle.session.v1 import event_pb2, input_pb2
from treadle.session.v1 import session_service_pb2 as pb

STEER, QUEUE, INTERRUPT = event_pb2.INPUT_DELIVERY_STEER, event_pb2.INPUT_DELIVERY_QUEUE, event_pb2.INPUT_DELIVERY_INTERRUPT
QUEUED, DELIVERED = event_pb2.INPUT_STATUS_QUEUED, event_pb2.INPUT_STATUS_DELIVERED
EDITED, CANCELLED = event_pb2.INPUT_STATUS_EDITED, event_pb2.INPUT_STATUS_CANCELLED
COMPLETED, INTERRUPTED = event_pb2.TURN_STATUS_COMPLETED, event_pb2.TURN_STATUS_INTERRUPTED

# The first turn waits until the test lets it go on; later turns only say what was asked.
GATE = "if [ {turn} = 1 ]; then until [ -e go ]; do sleep 0.02; done; fi"
GATED = recording({"say": "begun"}, {"run": GATE}, {"say": "turn {turn}: {prompt}"})
LISTENING = recording({"say": "begun"}, {"listen": 1}, {"say": "heard {input}"}, {"run": GATE}, {"say": "done"})
FAILING = recording({"run": GATE}, {"fail": "the model said no"})


@pytest.fixture
def bare(git_server: GitServer) -> Path:
    files = {"README.md": "# App\n", "gated.jsonl": GATED, "listening.jsonl": LISTENING, "failing.jsonl": FAILING}
    return git_server.create("acme/app", files)


class Conversation:
    """A session whose first turn is under way."""

    def __init__(self, client: Client, stream: Any, data_dir: Path) -> None:
        self.client = client
        self.seen: list[event_pb2.Event] = []
        self._stream = stream
        self._data_dir = data_dir

    @property
    def id(self) -> str:
        return self.seen[0].session_id

    @property
    def turn_id(self) -> str:
        return self.seen[0].turn_id

    async def until(self, condition: Any) -> event_pb2.Event:
        """Read on until an event fulfils the condition."""
        for event in self.seen:
            if condition(event):
                return event
        async for frame in self._stream:
            self.seen.extend(frame.events.events)
            for event in frame.events.events:
                if condition(event):
                    return event
        raise AssertionError("the stream ended early")

    async def until_waiting(self) -> None:
        await self.until(lambda event: "until" in event.tool_call.command)

    def open_gate(self) -> None:
        for workspace in self._data_dir.glob("workers/*/workspace"):
            (workspace / "go").touch()

    async def send(self, text: str, delivery: int = QUEUE, **fields: Any) -> input_pb2.Input:
        request = pb.SendInputRequest(session_id=self.id, text=text, delivery=delivery, **fields)
        return (await self.client.call("SendInput", request)).input

    async def waiting(self) -> list[int]:
        """What GetSession and ListSessions say."""
        one = (await self.client.call("GetSession", pb.GetSessionRequest(session_id=self.id))).session
        some = (await self.client.call("ListSessions", pb.ListSessionsRequest())).sessions
        return [each.waiting_inputs for each in (one, *some) if each.session_id == self.id]

    async def inputs(self, **fields: Any) -> list[input_pb2.Input]:
        return list((await self.client.call("ListInputs", pb.ListInputsRequest(session_id=self.id, **fields))).inputs)

    async def rest(self) -> list[event_pb2.Event]:
        """The whole log, when no turn is active and none is due."""
        events = await events_of(self.client.resume(self.id))
        assert await self.client.log(self.id) == events
        return events


@pytest.fixture
async def begin(client: Client, bare: Path, git_server: GitServer, server_data_dir: Path) -> Any:
    async def begin(model: str = "gated.jsonl", **fields: Any) -> Conversation:
        url = f"{git_server.url}/acme/app.git"
        stream = client.execute(repository_url=url, prompt="one", provider="replay", model=model, **fields)
        conversation = Conversation(client, stream, server_data_dir)
        await conversation.until(lambda event: event.HasField("turn_started"))
        return conversation

    return begin


def said(events: list[event_pb2.Event]) -> list[str]:
    return [event.message.parts[0].text for event in events if event.HasField("message")]


def told(events: list[event_pb2.Event], input_id: str) -> list[tuple[int, str]]:
    """(status, text) of all that the log tells of an input."""
    own = [event.user_input for event in events if event.user_input.input_id == input_id]
    return [(each.status, each.parts[0].text) for each in own]


def ends(events: list[event_pb2.Event]) -> list[int]:
    return [event.turn_completed.status for event in events if event.HasField("turn_completed")]


async def refused(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_info(caught.value)[:3]


async def test_queued_inputs_become_the_next_turns_in_order(begin: Any) -> None:
    talk = await begin()
    await talk.until_waiting()
    two, three = await talk.send("two"), await talk.send("three")
    assert (two.status, two.turn_id, two.position, two.version) == (QUEUED, "", 1, 1)
    assert await talk.inputs() == [two, three]
    assert await talk.waiting() == [2, 2]
    await talk.until(lambda event: event.user_input.input_id == three.input_id)
    talk.open_gate()
    events = await talk.rest()
    assert said(events) == ["begun", "turn 1: one", "begun", "turn 2: two", "begun", "turn 3: three"]
    assert ends(events) == [COMPLETED] * 3
    for sent in (two, three):
        assert told(events, sent.input_id) == [(QUEUED, sent.text), (DELIVERED, sent.text)]
    started = [event.turn_started for event in events if event.HasField("turn_started")]
    assert [list(each.input_ids) for each in started][1:] == [[two.input_id], [three.input_id]]
    assert [(each.provider, each.model) for each in started] == [("replay", "gated.jsonl")] * 3
    assert await talk.inputs() == []
    assert await talk.waiting() == [0, 0]
    everything = await talk.inputs(all=True)
    assert [(each.text, each.status) for each in everything] == [("two", DELIVERED), ("three", DELIVERED)]
    turns = [event.turn_id for event in events if event.HasField("turn_started")]
    assert [each.turn_id for each in everything] == turns[1:]


async def test_an_idle_session_starts_at_once(begin: Any) -> None:
    talk = await begin("listening.jsonl")
    await talk.send("x", STEER)
    await talk.until_waiting()
    talk.open_gate()
    first = await talk.rest()
    sent = await talk.send("again", STEER, request_id="r-1")
    assert sent.status == DELIVERED
    assert sent.turn_id
    assert (await talk.send("again", STEER, request_id="r-1")).input_id == sent.input_id
    assert (await refused(talk.send("other", STEER, request_id="r-1")))[1] == "REQUEST_ID_REUSED"
    # Steering the second turn lets it end.
    await talk.send("y", STEER)
    events = await talk.rest()
    assert said(events[len(first) :])[:2] == ["begun", "heard y"]
    assert told(events, sent.input_id) == [(DELIVERED, "again")]


async def test_what_waits_can_be_changed_and_taken_back_and_what_was_delivered_cannot(begin: Any) -> None:
    talk = await begin()
    await talk.until_waiting()
    two, three = await talk.send("two"), await talk.send("three")
    await talk.until(lambda event: event.user_input.input_id == three.input_id)

    async def update(version: int) -> Any:
        return await talk.client.call(
            "UpdateInput", pb.UpdateInputRequest(session_id=talk.id, input_id=two.input_id, text="two, better", version=version)
        )

    async def cancel(input_id: str) -> Any:
        return (await talk.client.call("CancelInput", pb.CancelInputRequest(session_id=talk.id, input_id=input_id))).input

    edited = (await update(two.version)).input
    assert (edited.text, edited.version, edited.status) == ("two, better", 2, QUEUED)
    assert (await refused(update(two.version)))[:2] == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")
    assert (await cancel(three.input_id)).status == CANCELLED
    assert (await cancel(three.input_id)).status == CANCELLED
    await talk.until(lambda event: event.user_input.status == CANCELLED)
    talk.open_gate()
    events = await talk.rest()
    assert said(events)[-1] == "turn 2: two, better"
    assert told(events, two.input_id) == [(QUEUED, "two"), (EDITED, "two, better"), (DELIVERED, "two, better")]
    assert told(events, three.input_id) == [(QUEUED, "three"), (CANCELLED, "three")]
    code, reason, facts = await refused(update(0))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INPUT_NOT_QUEUED")
    assert facts["state"] == "DELIVERED"
    assert (await refused(cancel(two.input_id)))[1] == "INPUT_NOT_QUEUED"
    assert (await refused(cancel("00000000-0000-0000-0000-000000000000")))[1] == "INPUT_NOT_FOUND"
    assert (await refused(cancel("no uuid")))[1] == "INPUT_NOT_FOUND"


async def test_steering_reaches_the_agent_where_it_listens(begin: Any) -> None:
    talk = await begin("listening.jsonl")
    await talk.until(lambda event: event.HasField("message"))
    sent = await talk.send("use tabs", STEER)
    await talk.until_waiting()
    talk.open_gate()
    events = await talk.rest()
    assert said(events) == ["begun", "heard use tabs", "done"]
    assert ends(events) == [COMPLETED]
    assert told(events, sent.input_id) == [(QUEUED, "use tabs"), (DELIVERED, "use tabs")]
    # It stands before what the agent makes of it.
    delivered = next(event.seq for event in events if event.user_input.status == DELIVERED and event.user_input.input_id == sent.input_id)
    heard = next(event.seq for event in events if event.HasField("message") and "heard" in event.message.parts[0].text)
    assert delivered < heard
    (listed,) = await talk.inputs(all=True)
    assert (listed.status, listed.turn_id) == (DELIVERED, talk.turn_id)


async def test_an_agent_that_does_not_listen_gets_it_as_the_next_turn(begin: Any) -> None:
    talk = await begin()
    await talk.until_waiting()
    sent = await talk.send("use tabs", STEER)
    await talk.until(lambda event: event.user_input.input_id == sent.input_id)
    assert [each.input_id for each in await talk.inputs()] == [sent.input_id]
    talk.open_gate()
    events = await talk.rest()
    assert said(events)[-1] == "turn 2: use tabs"
    assert told(events, sent.input_id) == [(QUEUED, "use tabs"), (DELIVERED, "use tabs")]


async def test_an_interrupt_goes_first_and_the_rest_follows(begin: Any, bare: Path) -> None:
    talk = await begin()
    await talk.until_waiting()
    later = await talk.send("later")
    now = await talk.send("stop, do this", INTERRUPT)
    events = await talk.rest()
    assert ends(events) == [INTERRUPTED, COMPLETED, COMPLETED]
    assert said(events) == ["begun", "begun", "turn 2: stop, do this", "begun", "turn 3: later"]
    assert "for a new request" in next(event.turn_completed.message for event in events if event.HasField("turn_completed"))
    assert [told(events, each.input_id)[-1][0] for each in (later, now)] == [DELIVERED, DELIVERED]


@pytest.mark.parametrize("how", ["failed", "interrupted"])
async def test_after_a_turn_that_did_not_complete_the_queue_waits_for_its_user(begin: Any, how: str) -> None:
    talk = await begin("failing.jsonl" if how == "failed" else "gated.jsonl")
    await talk.until_waiting()
    two = await talk.send("two")
    if how == "failed":
        talk.open_gate()
    else:
        await talk.client.call("Interrupt", pb.InterruptRequest(session_id=talk.id))
    events = await talk.rest()
    assert len(ends(events)) == 1
    assert [each.input_id for each in await talk.inputs()] == [two.input_id]
    # The next word sets it going, with what is first.
    three = await talk.send("three")
    assert (three.status, three.turn_id) == (QUEUED, "")
    assert [each.input_id for each in await talk.inputs()] == [three.input_id]
    events = await talk.rest()
    if how == "failed":
        # It fails again, and again nothing is started behind its user's back.
        assert len(ends(events)) == 2
        assert told(events, three.input_id) == [(QUEUED, "three")]
    else:
        assert said(events)[-3:] == ["turn 2: two", "begun", "turn 3: three"]


async def test_a_session_without_a_turn_begins_with_an_input_and_the_servers_default_agent(
    client: Client, bare: Path, git_server: GitServer
) -> None:
    created = await client.call("CreateSession", pb.CreateSessionRequest(repository_url=f"{git_server.url}/acme/app.git"))
    session_id = created.session.session_id
    sent = await client.call("SendInput", pb.SendInputRequest(session_id=session_id, text="begin"))
    events = await events_of(client.resume(session_id))
    assert sent.input.turn_id == events[0].turn_id
    assert events[-1].turn_completed.status == COMPLETED
    assert "treadle-notes/turn-1.md" in pushed_files(bare, next(e.git_updated.branch for e in events if e.git_updated.branch))


async def test_what_is_said_to_a_session_that_ended_or_is_nobodys_is_refused(begin: Any) -> None:
    talk = await begin("failing.jsonl")
    await talk.until_waiting()
    await talk.send("two")
    talk.open_gate()
    await talk.rest()
    await talk.client.call("DeleteSession", pb.DeleteSessionRequest(session_id=talk.id))
    gone = (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    assert (await refused(talk.send("three")))[:2] == gone
    assert (await refused(talk.inputs()))[:2] == gone
    for text, reason in (("", "INVALID_FIELD"), ("  \n", "INVALID_FIELD"), ("x" * 100_001, "REQUEST_TOO_LARGE"), ("a\0b", "INVALID_FIELD")):
        assert (await refused(talk.send(text)))[:2] == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_a_full_queue_takes_no_more(begin: Any) -> None:
    talk = await begin()
    await talk.until_waiting()
    await asyncio.gather(*(talk.send(f"input {number}") for number in range(100)))
    code, reason, facts = await refused(talk.send("one too many"))
    assert (code, reason, facts) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_INPUTS", {"limit": "100"})
    seen: list[input_pb2.Input] = []
    token = ""
    while True:
        page = await talk.client.call("ListInputs", pb.ListInputsRequest(session_id=talk.id, page_size=30, page_token=token))
        seen += page.inputs
        token = page.next_page_token
        if not token:
            break
    assert [each.position for each in seen] == [*range(1, 101)]
    for each in seen:
        await talk.client.call("CancelInput", pb.CancelInputRequest(session_id=talk.id, input_id=each.input_id))
    talk.open_gate()
    events = await talk.rest()
    assert ends(events) == [COMPLETED]
    assert kinds(events).count("user_input") >= 101
