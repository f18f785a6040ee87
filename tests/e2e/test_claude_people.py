"""People beside the real Claude program: leave for its tools, its questions, and what users say while it works, through the whole server.

Only the model is fake, so each test sees what the model hears of it.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.fake_anthropic import FakeAnthropic, fake_anthropic, say, use
from support.git_server import GitServer
from support.nursery import Nursery
from support.sandbox import require_sandbox
from support.treadle import Client, Killable, connected, events_of, in_process, pushed_files, settings_for
from support.workers import eventually, processes_with

from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

pytestmark = pytest.mark.timeout(300)
pytest.importorskip("claude_agent_sdk")

STEER, QUEUE, INTERRUPT = event_pb2.INPUT_DELIVERY_STEER, event_pb2.INPUT_DELIVERY_QUEUE, event_pb2.INPUT_DELIVERY_INTERRUPT
COMPLETED, INTERRUPTED = event_pb2.TURN_STATUS_COMPLETED, event_pb2.TURN_STATUS_INTERRUPTED
ASK = event_pb2.APPROVALS_ASK

WRITE = use("Write", file_path="/workspace/made.txt", content="made\n")
GATE = use("Bash", command="until [ -e /workspace/go ]; do sleep 0.05; done; echo the gate is open")
QUESTION = {
    "question": "Which colour?",
    "header": "Colour",
    "multiSelect": False,
    "options": [{"label": "Red", "description": "warm"}, {"label": "Blue", "description": "cold"}],
}
ASKING = use("AskUserQuestion", questions=[QUESTION])


@pytest.fixture
async def fake() -> AsyncIterator[FakeAnthropic]:
    require_sandbox()
    async with fake_anthropic() as opened:
        yield opened


@pytest.fixture(autouse=True)
def bare(git_server: GitServer) -> Path:
    return git_server.create("acme/app", {"README.md": "# Sample\n"})


@pytest.fixture
def changes(fake: FakeAnthropic) -> dict[str, Any]:
    return {"anthropic_url": fake.url, "anthropic_api_key": "sk-ant-key", "naming": False}


class Passed:
    """The named points that the server has passed."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def __call__(self, name: str) -> None:
        self._events[name].set()

    async def wait(self, name: str) -> None:
        await asyncio.wait_for(self._events[name].wait(), 60)


@pytest.fixture
def passed() -> Passed:
    return Passed()


@pytest.fixture
async def treadle(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, changes: dict[str, Any], passed: Passed
) -> AsyncIterator[tuple[Any, Client]]:
    async with in_process(settings_for(database, server_data_dir, git_server, **changes), mark=passed) as both:
        yield both


class Talk:
    """A session, as one who talks to its agent sees it; `seen` are its events so far."""

    def __init__(self, client: Client, stream: Any, seen: list[event_pb2.Event] | None = None) -> None:
        self.client = client
        self.stream = stream
        self.seen = seen or []

    @property
    def id(self) -> str:
        return self.seen[0].session_id

    async def until(self, kind: str) -> Any:
        """Read on until the next event of this kind; its body."""
        position = len(self.seen)
        async for frame in self.stream:
            self.seen.extend(frame.events.events)
            for event in self.seen[position:]:
                if event.HasField(kind):
                    return getattr(event, kind)
        raise AssertionError(f"the stream ended without {kind}: {[event.WhichOneof('body') for event in self.seen]}")

    async def until_at_the_gate(self) -> None:
        """Until the command runs that waits for `open_gate`."""
        await eventually(lambda: processes_with("/workspace/go"), limit=60)

    async def resolve(self, request_id: str, **answer: Any) -> event_pb2.RequestResolved:
        request = pb.ResolveRequestRequest(session_id=self.id, request_id=request_id, **answer)
        return (await self.client.call("ResolveRequest", request)).resolved

    async def send(self, text: str, delivery: event_pb2.InputDelivery, request_id: str = "") -> str:
        request = pb.SendInputRequest(session_id=self.id, text=text, delivery=delivery, request_id=request_id)
        return str((await self.client.call("SendInput", request)).input.input_id)

    async def session(self) -> Any:
        return (await self.client.call("GetSession", pb.GetSessionRequest(session_id=self.id))).session

    async def rest(self) -> list[event_pb2.Event]:
        """The whole log, when no turn is active and none is due."""
        await events_of(self.client.resume(self.id))
        log = await self.client.log(self.id)
        assert log[: len(self.seen)] == self.seen
        return log


@pytest.fixture
def begin(client: Client, git_server: GitServer) -> Any:
    def begin(prompt: str, **fields: Any) -> Talk:
        return Talk(client, client.execute(repository_url=f"{git_server.url}/acme/app.git", prompt=prompt, **fields))

    return begin


def open_gate(data_dir: Path) -> None:
    for workspace in data_dir.glob("workers/*/workspace"):
        (workspace / "go").touch()


def ends(events: list[event_pb2.Event]) -> list[int]:
    return [event.turn_completed.status for event in events if event.HasField("turn_completed")]


def said(events: list[event_pb2.Event]) -> list[str]:
    return [event.message.parts[0].text for event in events if event.HasField("message") and event.message.parts]


def results(events: list[event_pb2.Event]) -> list[event_pb2.ToolResult]:
    return [event.tool_result for event in events if event.HasField("tool_result")]


def resolutions(events: list[event_pb2.Event]) -> list[int]:
    return [event.request_resolved.outcome for event in events if event.HasField("request_resolved")]


def deliveries(events: list[event_pb2.Event], input_id: str) -> list[tuple[int, str]]:
    """(status, turn) of all that the log tells of an input."""
    return [(event.user_input.status, event.turn_id) for event in events if event.user_input.input_id == input_id]


def pushed(bare: Path, events: list[event_pb2.Event]) -> dict[str, str]:
    return pushed_files(bare, next(event.git_updated.branch for event in events if event.git_updated.branch))


def heard(asked: Any) -> str:
    """All that the model was told in one request."""
    return json.dumps(asked.body["messages"], ensure_ascii=False)


def result_heard(asked: Any) -> tuple[bool, str]:
    """(whether it was an error, text) of the result of a tool that stands last in a request."""
    blocks = [block for message in asked.body["messages"] if message["role"] == "user" for block in message["content"]]
    result = [block for block in blocks if isinstance(block, dict) and block["type"] == "tool_result"][-1]
    content = result["content"]
    return result.get("is_error", False), content if isinstance(content, str) else "".join(part["text"] for part in content)


# -- leave ------------------------------------------------------------------------------------------------------------------


async def test_a_tool_that_is_allowed_runs(begin: Any, fake: FakeAnthropic, bare: Path) -> None:
    talk = begin(fake.plays("write", [WRITE], [say("Written.")]), approvals=ASK)
    asked = await talk.until("approval_requested")
    assert (asked.tool.name, list(asked.tool.locations)) == ("Write", ["made.txt"])
    assert (await talk.session()).state == event_pb2.SESSION_STATE_AWAITING_APPROVAL
    assert len(fake.messages) == 1, "the model waits too"
    await talk.resolve(asked.request_id, option_id="allow")
    events = await talk.rest()
    assert (ends(events), said(events)) == ([COMPLETED], ["Written."])
    assert pushed(bare, events)["made.txt"] == "made"
    assert resolutions(events) == [event_pb2.REQUEST_OUTCOME_CHOSEN]
    assert [result.status for result in results(events)] == [event_pb2.TOOL_OUTCOME_COMPLETED]
    assert result_heard(fake.messages[1])[0] is False


@pytest.mark.parametrize("answer", [{"option_id": "reject"}, {"decline": True}], ids=["reject", "decline"])
async def test_the_model_hears_a_refusal_with_its_reason_and_goes_on(
    begin: Any, fake: FakeAnthropic, bare: Path, answer: dict[str, Any]
) -> None:
    talk = begin(fake.plays("write", [WRITE], [say("Then not.")]), approvals=ASK)
    asked = await talk.until("approval_requested")
    await talk.resolve(asked.request_id, note="not while I am looking", **answer)
    events = await talk.rest()
    assert (ends(events), said(events)) == ([COMPLETED], ["Then not."])
    assert "made.txt" not in pushed(bare, events)
    assert [result.status for result in results(events)] == [event_pb2.TOOL_OUTCOME_DECLINED]
    error, text = result_heard(fake.messages[1])
    assert error
    assert "not while I am looking" in text


async def test_the_like_is_allowed_until_the_turn_ends(begin: Any, fake: FakeAnthropic, bare: Path) -> None:
    once = use("Bash", command="echo once more >> one.txt")
    talk = begin(fake.plays("touch", [once], [once], [say("Done.")]), approvals=ASK)
    asked = await talk.until("approval_requested")
    await talk.resolve(asked.request_id, option_id="allow-like")
    first = await talk.rest()
    assert pushed(bare, first)["one.txt"] == "once more\nonce more"
    # The next turn asks as the last one did, and asks anew.
    await talk.send(fake.plays("again", [use("Bash", command="touch three.txt")], [say("Done.")]), QUEUE)
    follow = Talk(talk.client, talk.client.resume(talk.id, len(first)), first)
    asked = await follow.until("approval_requested")
    await follow.resolve(asked.request_id, option_id="reject")
    events = await follow.rest()
    assert ends(events) == [COMPLETED, COMPLETED]
    assert "three.txt" not in pushed(bare, events)


async def test_an_interrupt_withdraws_what_is_asked_and_the_next_turn_knows_of_it(begin: Any, fake: FakeAnthropic, bare: Path) -> None:
    talk = begin(fake.plays("write", [WRITE], [say("never")]), approvals=ASK)
    await talk.until("approval_requested")
    await talk.send("[[script:echo]]", INTERRUPT)
    events = await talk.rest()
    assert ends(events) == [INTERRUPTED, COMPLETED]
    assert resolutions(events) == [event_pb2.REQUEST_OUTCOME_CANCELLED]
    assert said(events) == ["history: write,echo"]
    assert "made.txt" not in pushed(bare, events)


# -- questions --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("approvals", [event_pb2.APPROVALS_UNSPECIFIED, ASK], ids=["unasked", "asked"])
async def test_the_answer_to_a_question_reaches_the_model(begin: Any, fake: FakeAnthropic, approvals: event_pb2.Approvals) -> None:
    talk = begin(fake.plays("ask", [ASKING], [say("Noted.")]), approvals=approvals)
    asked = await talk.until("question_requested")
    (question,) = asked.questions
    assert (question.header, question.text, [option.label for option in question.options]) == ("Colour", "Which colour?", ["Red", "Blue"])
    assert (await talk.session()).state == event_pb2.SESSION_STATE_AWAITING_USER
    answer = event_pb2.Answer(question_id=question.id, option_ids=[question.options[1].id], text="a dark one")
    await talk.resolve(asked.request_id, answers=[answer])
    events = await talk.rest()
    assert (ends(events), said(events)) == ([COMPLETED], ["Noted."])
    assert resolutions(events) == [event_pb2.REQUEST_OUTCOME_ANSWERED]
    error, text = result_heard(fake.messages[1])
    assert not error
    assert "Which colour?" in text
    assert "Blue, a dark one" in text
    assert "Red" not in text


async def test_several_questions_at_once_have_each_their_answer(begin: Any, fake: FakeAnthropic) -> None:
    many = {
        "question": "Which parts?",
        "header": "Parts",
        "multiSelect": True,
        "options": [{"label": name, "description": name} for name in "abc"],
    }
    talk = begin(fake.plays("ask", [use("AskUserQuestion", questions=[QUESTION, many])], [say("Noted.")]))
    asked = await talk.until("question_requested")
    colour, parts = asked.questions
    assert (colour.multi, parts.multi) == (False, True)
    answers = [
        event_pb2.Answer(question_id=parts.id, option_ids=[parts.options[0].id, parts.options[2].id]),
        event_pb2.Answer(question_id=colour.id, text="Green"),
    ]
    await talk.resolve(asked.request_id, answers=answers)
    await talk.rest()
    _, text = result_heard(fake.messages[1])
    assert '"Which colour?"="Green"' in text
    assert '"Which parts?"="a, c"' in text


async def test_a_question_that_is_declined_is_told_to_the_model(begin: Any, fake: FakeAnthropic) -> None:
    talk = begin(fake.plays("ask", [ASKING], [say("I assume red.")]))
    asked = await talk.until("question_requested")
    await talk.resolve(asked.request_id, decline=True, note="ask me tomorrow")
    events = await talk.rest()
    assert (ends(events), said(events)) == ([COMPLETED], ["I assume red."])
    error, text = result_heard(fake.messages[1])
    assert error
    assert "did not answer" in text
    assert "ask me tomorrow" in text


# -- what users say meanwhile -----------------------------------------------------------------------------------------------


async def test_steering_reaches_the_model_with_the_result_of_the_command_that_runs(
    begin: Any, fake: FakeAnthropic, passed: Passed, server_data_dir: Path
) -> None:
    talk = begin(fake.plays("gate", [GATE], [use("Bash", command="true")], [say("Done.")]))
    await talk.until("tool_call")
    await talk.until_at_the_gate()
    sent = await talk.send("use tabs", STEER)
    await passed.wait("give.after")
    open_gate(server_data_dir)
    events = await talk.rest()
    assert (ends(events), said(events)) == ([COMPLETED], ["Done."])
    told = [heard(asked).count("use tabs") for asked in fake.messages]
    assert told == [0, 1, 1]
    assert "the gate is open" in heard(fake.messages[1])
    assert deliveries(events, sent) == [
        (event_pb2.INPUT_STATUS_QUEUED, talk.seen[0].turn_id),
        (event_pb2.INPUT_STATUS_DELIVERED, talk.seen[0].turn_id),
    ]
    # It stands before what the agent makes of it.
    delivered = next(e.seq for e in events if e.user_input.input_id == sent and e.user_input.status == event_pb2.INPUT_STATUS_DELIVERED)
    assert delivered < next(event.seq for event in events if event.HasField("message"))


async def test_what_is_said_while_leave_is_asked_for_reaches_the_model_with_the_answer(
    begin: Any, fake: FakeAnthropic, passed: Passed, bare: Path
) -> None:
    talk = begin(fake.plays("write", [WRITE], [say("Done.")]), approvals=ASK)
    asked = await talk.until("approval_requested")
    sent = await talk.send("use tabs", STEER)
    await passed.wait("give.after")
    await talk.resolve(asked.request_id, option_id="allow")
    events = await talk.rest()
    assert ends(events) == [COMPLETED]
    assert [heard(each).count("use tabs") for each in fake.messages] == [0, 1]
    assert deliveries(events, sent)[-1] == (event_pb2.INPUT_STATUS_DELIVERED, talk.seen[0].turn_id)
    assert pushed(bare, events)["made.txt"] == "made"


async def test_what_is_said_during_the_last_answer_is_heard_and_done(begin: Any, fake: FakeAnthropic, passed: Passed, bare: Path) -> None:
    """There is no step left to bring it to. It must not be lost with the program's end, and what it asks for is work like any other."""
    mark = fake.plays("more", [WRITE], [say("Written.")])
    talk = begin("[[script:slow n=40 delay=0.05]]", approvals=ASK)
    await talk.until("content_delta")
    sent = await talk.send(f"use tabs {mark}", STEER)
    await passed.wait("give.after")
    asked = await talk.until("approval_requested")
    await talk.resolve(asked.request_id, option_id="allow")
    events = await talk.rest()
    assert set(ends(events)) == {COMPLETED}
    assert said(events)[-1] == "Written."
    assert [heard(each).count("use tabs") for each in fake.messages] == [0, 1, 1]
    assert deliveries(events, sent)[-1][0] == event_pb2.INPUT_STATUS_DELIVERED
    assert pushed(bare, events)["made.txt"] == "made"
    edits = [event.file_changed for event in events if event.HasField("file_changed") and not event.file_changed.turn_total]
    assert [change.path for edit in edits for change in edit.changes] == ["made.txt"]


async def test_what_was_said_and_not_heard_before_an_interrupt_is_for_the_next_turn(
    begin: Any, fake: FakeAnthropic, passed: Passed
) -> None:
    talk = begin(fake.plays("gate", [GATE], [say("never")]))
    await talk.until("tool_call")
    await talk.until_at_the_gate()
    sent = await talk.send("use tabs [[script:echo]]", STEER)
    await passed.wait("give.after")
    await talk.client.call("Interrupt", pb.InterruptRequest(session_id=talk.id))
    events = await talk.rest()
    assert ends(events) == [INTERRUPTED]
    assert [status for status, _ in deliveries(events, sent)] == [event_pb2.INPUT_STATUS_QUEUED]
    assert len(fake.messages) == 1
    # The next word sets it going, with what is first.
    await talk.send("[[script:echo]]", QUEUE)
    events = await talk.rest()
    assert ends(events) == [INTERRUPTED, COMPLETED, COMPLETED]
    assert said(events) == ["history: gate,echo", "history: gate,echo,echo"]


async def test_queued_inputs_become_the_next_turns_and_the_agent_remembers(begin: Any, fake: FakeAnthropic, server_data_dir: Path) -> None:
    talk = begin(fake.plays("gate", [GATE], [say("One.")]))
    await talk.until("tool_call")
    await talk.until_at_the_gate()
    two = await talk.send("[[script:echo]]", QUEUE)
    three = await talk.send("[[script:echo]] again", QUEUE)
    assert await talk.until("user_input")
    open_gate(server_data_dir)
    events = await talk.rest()
    assert ends(events) == [COMPLETED] * 3
    assert said(events) == ["One.", "history: gate,echo", "history: gate,echo,echo"]
    started = [(list(event.turn_started.input_ids), event.turn_started.provider) for event in events if event.HasField("turn_started")]
    assert started[1:] == [([two], "claude"), ([three], "claude")]
    assert not any("script:echo" in heard(asked) for asked in fake.messages[:2])


# -- restarts of the server -------------------------------------------------------------------------------------------------


class World:
    """A server that can be killed, and sessions that go on behind it."""

    def __init__(self, server: Killable, git_server: GitServer, data_dir: Path) -> None:
        self.server = server
        self.data_dir = data_dir
        self._url = f"{git_server.url}/acme/app.git"

    @asynccontextmanager
    async def begin(self, prompt: str, *, kill_at: str = "", **fields: Any) -> AsyncIterator[Talk]:
        """A session at a server, which is dead in the end."""
        await self.server.start(kill_at=kill_at)
        async with connected(self.server.address, self.server.key) as client:
            yield Talk(client, client.execute(repository_url=self._url, prompt=prompt, **fields))
            if kill_at:
                assert await self.server.wait_killed() == -9, "the point was not passed"
            else:
                await self.server.stop(kill=True)

    @asynccontextmanager
    async def again(self, before: Talk) -> AsyncIterator[Talk]:
        """The same session at the next server."""
        await self.server.start()
        async with connected(self.server.address, self.server.key) as client:
            yield Talk(client, client.resume(before.id, len(before.seen)), [*before.seen])


@pytest.fixture
async def world(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, changes: dict[str, Any], tmp_path: Path, nursery: Nursery
) -> AsyncIterator[World]:
    server = Killable(settings_for(database, server_data_dir, git_server, **changes), tmp_path / "server.log", nursery=nursery)
    try:
        yield World(server, git_server, server_data_dir)
    finally:
        await server.stop()


def check_one_worker(events: list[event_pb2.Event]) -> None:
    """The turn went on where it was."""
    phases = [event.worker_updated.phase for event in events if event.HasField("worker_updated")]
    assert phases.count(event_pb2.WORKER_PHASE_STARTING) == 1
    assert event_pb2.WORKER_PHASE_ADOPTED in phases
    assert {event.attempt for event in events} == {0, 1}


@pytest.mark.parametrize("kill_at", ["", "resolve.before", "resolve.after", "answer.before", "answer.after"])
async def test_leave_that_is_asked_for_waits_through_kill_9_of_the_server(
    world: World, fake: FakeAnthropic, bare: Path, kill_at: str
) -> None:
    async with world.begin(fake.plays("write", [WRITE], [say("Written.")]), kill_at=kill_at, approvals=ASK) as talk:
        request_id = (await talk.until("approval_requested")).request_id
        if kill_at:
            with pytest.raises(grpc.aio.AioRpcError):
                await talk.resolve(request_id, option_id="allow")
                await events_of(talk.stream)
    async with world.again(talk) as talk:
        if kill_at in ("", "resolve.before"):
            assert list((await talk.session()).open_request_ids) == [request_id]
        # Given again, an answer is the same answer.
        assert (await talk.resolve(request_id, option_id="allow")).option_id == "allow"
        events = await talk.rest()
    assert (ends(events), said(events)) == ([COMPLETED], ["Written."])
    assert resolutions(events) == [event_pb2.REQUEST_OUTCOME_CHOSEN]
    assert pushed(bare, events)["made.txt"] == "made"
    assert len(fake.messages) == 2
    check_one_worker(events)


@pytest.mark.parametrize("kill_at", ["", "resolve.after"])
async def test_a_question_waits_through_kill_9_of_the_server(world: World, fake: FakeAnthropic, kill_at: str) -> None:
    answers = [event_pb2.Answer(question_id="1", option_ids=["2"])]
    async with world.begin(fake.plays("ask", [ASKING], [say("Noted.")]), kill_at=kill_at) as talk:
        request_id = (await talk.until("question_requested")).request_id
        if kill_at:
            with pytest.raises(grpc.aio.AioRpcError):
                await talk.resolve(request_id, answers=answers)
    async with world.again(talk) as talk:
        if not kill_at:
            # What came to be open under the first server is known to whoever comes now.
            assert list((await talk.session()).open_request_ids) == [request_id]
            await talk.resolve(request_id, answers=answers)
        events = await talk.rest()
    assert (ends(events), said(events)) == ([COMPLETED], ["Noted."])
    assert "Blue" in result_heard(fake.messages[1])[1]
    assert len(fake.messages) == 2
    check_one_worker(events)


@pytest.mark.parametrize("kill_at", ["send.after", "offer.after", "give.before", "give.after", "taken.commit.before", "taken.commit.after"])
async def test_what_is_said_is_heard_once_whenever_the_server_is_killed(world: World, fake: FakeAnthropic, kill_at: str) -> None:
    prompt = fake.plays("gate", [GATE], [use("Bash", command="true")], [say("Done.")])
    async with world.begin(prompt, kill_at=kill_at) as talk:
        await talk.until("tool_call")
        await talk.until_at_the_gate()
        with pytest.raises(grpc.aio.AioRpcError):
            await talk.send("use tabs", STEER, "steer-1")
            if kill_at.startswith("taken"):
                open_gate(world.data_dir)
            await events_of(talk.stream)
    async with world.again(talk) as talk:
        sent = await talk.send("use tabs", STEER, "steer-1")
        open_gate(world.data_dir)
        events = await talk.rest()
    # In this turn, or as the next one, where the agent had no step left to take it: but once.
    assert set(ends(events)) == {COMPLETED}
    assert said(events)[0] == "Done."
    assert heard(fake.messages[-1]).count("use tabs") == 1
    assert [status for status, _ in deliveries(events, sent)].count(event_pb2.INPUT_STATUS_DELIVERED) == 1
    check_one_worker([event for event in events if event.turn_id == events[0].turn_id])
