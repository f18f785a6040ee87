"""What agents ask: approvals and questions, who answers them, and what becomes of those that nobody answers."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from support.git_server import GitServer
from support.postgres import open_directory
from support.treadle import Client, connected, error_info, events_of, in_process, recording, settings_for

from server.embedded.postgres_home import DatabaseUrls
from server.identity.keys import create_key
from server.kernel.identity import Principal
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

ASKING = recording({"ask": "Which colour?", "choices": ["red", "blue"]}, {"say": "it is {answer} ({note})"})
FREE = recording({"ask": "Which name?"}, {"say": "it is {answer}"})
APPROVING = recording(
    {"approve": "Run the tests", "command": "make test"},
    {"run": "echo ran > ran.txt", "if": "allow"},
    {"say": "{answer} ({note})"},
)
ASK, UNASKED = event_pb2.APPROVALS_ASK, event_pb2.APPROVALS_UNSPECIFIED


@pytest.fixture(autouse=True)
def bare(git_server: GitServer) -> Path:
    return git_server.create("acme/app", {"README.md": "# App\n", "ask.jsonl": ASKING, "free.jsonl": FREE, "approve.jsonl": APPROVING})


class Talk:
    """A session whose agent asks."""

    def __init__(self, client: Client, stream: Any) -> None:
        self.client = client
        self.stream = stream
        self.seen: list[event_pb2.Event] = []

    @property
    def id(self) -> str:
        return self.seen[0].session_id

    async def asked(self) -> str:
        """Read until the session waits; the open request's id."""
        async for frame in self.stream:
            self.seen.extend(frame.events.events)
            for event in self.seen:
                if event.WhichOneof("body") in ("approval_requested", "question_requested"):
                    assert event.attempt == 1
                    return str((event.approval_requested if event.HasField("approval_requested") else event.question_requested).request_id)
        raise AssertionError("nothing was asked")

    def resolve(self, request_id: str, **answer: Any) -> Any:
        return self.client.call("ResolveRequest", pb.ResolveRequestRequest(session_id=self.id, request_id=request_id, **answer))

    async def session(self) -> Any:
        return (await self.client.call("GetSession", pb.GetSessionRequest(session_id=self.id))).session

    async def resolve_when_asked(self, **answer: Any) -> None:
        await self.resolve(await self.asked(), **answer)

    async def rest_of_log(self) -> list[event_pb2.Event]:
        """The whole log, when no turn is active and none is due."""
        await events_of(self.stream)
        return await self.client.log(self.id)

    async def rest(self) -> list[event_pb2.Event]:
        """To the end of the turn."""
        self.seen += await events_of(self.stream)
        log = await self.client.log(self.id, ended=False)
        assert log[: len(self.seen)] == self.seen
        return self.seen


@pytest.fixture
def talk(client: Client, git_server: GitServer) -> Any:
    def talk(model: str = "ask.jsonl", **fields: Any) -> Talk:
        url = f"{git_server.url}/acme/app.git"
        return Talk(client, client.execute(repository_url=url, prompt="go", provider="replay", model=model, **fields))

    return talk


def said(events: list[event_pb2.Event]) -> list[str]:
    return [event.message.parts[0].text for event in events if event.HasField("message")]


def states(events: list[event_pb2.Event]) -> list[str]:
    told = [event_pb2.SessionState.Name(event.session_updated.state) for event in events if event.HasField("session_updated")]
    return [state.removeprefix("SESSION_STATE_") for state in told]


def resolved(events: list[event_pb2.Event]) -> event_pb2.RequestResolved:
    (found,) = [event.request_resolved for event in events if event.HasField("request_resolved")]
    return found


async def refused(call: Any) -> tuple[str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_info(caught.value)[1:3]


def answer(*option_ids: str, text: str = "", question_id: str = "question") -> event_pb2.Answer:
    return event_pb2.Answer(question_id=question_id, option_ids=option_ids, text=text)


async def test_a_question_waits_for_its_answer(talk: Any) -> None:
    asking = talk()
    request_id = await asking.asked()
    waiting = await asking.session()
    assert (waiting.state, list(waiting.open_request_ids)) == (event_pb2.SESSION_STATE_AWAITING_USER, [request_id])
    reply = await asking.resolve(request_id, answers=[answer("blue")], note="as ever")
    events = await asking.rest()
    assert said(events) == ["it is blue (as ever)"]
    assert resolved(events) == reply.resolved
    assert (reply.resolved.outcome, reply.resolved.resolved_by) == (event_pb2.REQUEST_OUTCOME_ANSWERED, "local")
    assert states(events) == ["PROVISIONING", "PROVISIONING", "RUNNING", "AWAITING_USER", "RUNNING", "RUNNING", "IDLE"]
    after = await asking.session()
    assert (after.state, list(after.open_request_ids)) == (event_pb2.SESSION_STATE_IDLE, [])


@pytest.mark.parametrize(("option", "ran"), [("allow", True), ("reject", False)])
async def test_an_approval_is_given_or_not(talk: Any, option: str, ran: bool) -> None:
    asking = talk("approve.jsonl", approvals=ASK)
    request_id = await asking.asked()
    assert (await asking.session()).state == event_pb2.SESSION_STATE_AWAITING_APPROVAL
    (asked,) = [event.approval_requested for event in asking.seen if event.HasField("approval_requested")]
    assert (asked.title, asked.tool.command) == ("Run the tests", "make test")
    await asking.resolve(request_id, option_id=option)
    events = await asking.rest()
    assert said(events) == [f"{option} ()"]
    assert any(event.HasField("tool_call") for event in events) is ran


async def test_without_approvals_the_agent_does_not_ask_for_leave(talk: Any) -> None:
    quiet = talk("approve.jsonl")
    events = await events_of(quiet.stream)
    assert said(events) == ["allow ()"]
    assert not any(event.HasField("approval_requested") for event in events)


async def test_a_follow_up_asks_as_the_turn_before_did(talk: Any) -> None:
    asking = talk("approve.jsonl", approvals=ASK)
    await asking.resolve(await asking.asked(), decline=True)
    assert said(await asking.rest()) == ["declined ()"]
    await asking.client.call("SendInput", pb.SendInputRequest(session_id=asking.id, text="more"))
    follow = Talk(asking.client, asking.client.resume(asking.id, len(asking.seen)))
    request_id = await follow.asked()
    await follow.resolve(request_id, option_id="allow_all")
    events = await events_of(follow.stream)
    assert said(events)[-1] == "allow_all ()"


async def test_of_many_answers_at_once_the_first_counts_and_the_others_learn_whose_it_was(talk: Any) -> None:
    asking = talk("free.jsonl")
    request_id = await asking.asked()
    calls = [asking.resolve(request_id, answers=[answer(text=f"name {number}")]) for number in range(8)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    (won,) = [result.resolved for result in results if not isinstance(result, Exception)]
    for lost in (result for result in results if isinstance(result, Exception)):
        assert isinstance(lost, grpc.aio.AioRpcError)
        code, reason, facts, _ = error_info(lost)
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_RESOLVED")
        assert facts == {"request_id": request_id, "outcome": "ANSWERED", "resolved_by": "local"}
    events = await asking.rest()
    assert resolved(events) == won
    assert said(events) == [f"it is {won.answers[0].text}"]
    # The winner may say it again.
    assert (await asking.resolve(request_id, answers=won.answers)).resolved == won
    assert (await refused(asking.resolve(request_id, decline=True)))[0] == "REQUEST_RESOLVED"


async def test_answers_that_are_not_offered_are_refused_and_the_request_stays_open(talk: Any) -> None:
    asking = talk()
    request_id = await asking.asked()
    wrong: list[dict[str, Any]] = [
        {},
        {"option_id": "allow"},
        {"answers": [answer("green")]},
        {"answers": [answer("red", "blue")]},
        {"answers": [answer(text="any")]},
        {"answers": [answer()]},
        {"answers": [answer("red"), answer("blue", question_id="other")]},
        {"answers": [answer("red")], "decline": True},
    ]
    for each in wrong:
        assert (await refused(asking.resolve(request_id, **each)))[0] == "INVALID_FIELD", each
    assert (await refused(asking.resolve(request_id, answers=[answer("red")], note="x" * 10_001)))[0] == "REQUEST_TOO_LARGE"
    for unknown in ("unknown", "", "\0", "x" * 3_000_000):
        assert (await refused(asking.resolve(unknown, decline=True)))[0] == "REQUEST_NOT_FOUND"
    assert list((await asking.session()).open_request_ids) == [request_id]
    await asking.resolve(request_id, answers=[answer("red")])
    assert said(await asking.rest()) == ["it is red ()"]


async def test_whoever_comes_later_learns_what_is_open(talk: Any) -> None:
    asking = talk()
    request_id = await asking.asked()
    late = asking.client.resume(asking.id)
    seen: list[event_pb2.Event] = []
    async for frame in late:
        seen.extend(frame.events.events)
        if frame.HasField("synced"):
            assert list(frame.synced.open_request_ids) == [request_id]
            break
    await asking.resolve(request_id, decline=True)
    seen += await events_of(late)
    assert await asking.rest() == seen
    assert resolved(seen).outcome == event_pb2.REQUEST_OUTCOME_DECLINED


async def test_an_interrupt_withdraws_what_is_open(talk: Any) -> None:
    asking = talk()
    request_id = await asking.asked()
    await asking.client.call("Interrupt", pb.InterruptRequest(session_id=asking.id))
    events = await asking.rest()
    assert resolved(events).outcome == event_pb2.REQUEST_OUTCOME_CANCELLED
    assert events[-1].turn_completed.status == event_pb2.TURN_STATUS_INTERRUPTED
    reason, facts = await refused(asking.resolve(request_id, decline=True))
    assert (reason, facts["outcome"], facts["resolved_by"]) == ("REQUEST_RESOLVED", "CANCELLED", "")
    await asking.client.call("DeleteSession", pb.DeleteSessionRequest(session_id=asking.id))
    assert (await refused(asking.resolve(request_id, decline=True)))[0] == "SESSION_NOT_FOUND"


@pytest.mark.parametrize("changes", [{"request_timeout_seconds": 1.0}])
async def test_what_nobody_answers_expires_and_says_so_beforehand(talk: Any) -> None:
    asking = talk()
    await asking.asked()
    (question,) = [event for event in asking.seen if event.HasField("question_requested")]
    expires, recorded = question.question_requested.expires_at, question.recorded_at
    assert 0 < seconds(expires) - seconds(recorded) <= 1.1
    assert question.question_requested.questions[0].text == "Which colour?"
    events = await asking.rest()
    assert said(events) == ["it is expired ()"]
    assert resolved(events).outcome == event_pb2.REQUEST_OUTCOME_EXPIRED


def seconds(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / 1e9


@pytest.mark.parametrize("changes", [{"turn_timeout_seconds": 1.5}])
async def test_the_time_limit_does_not_run_while_the_agent_waits(talk: Any, client: Client, git_server: GitServer) -> None:
    steps = recording({"ask": "Which colour?", "choices": ["red"]}, {"say": "it is {answer}"}, {"run": "sleep 1000"})
    git_server.create("acme/slow", {"r.jsonl": steps})
    stream = client.execute(repository_url=f"{git_server.url}/acme/slow.git", prompt="go", provider="replay", model="r.jsonl")
    asking = Talk(client, stream)
    request_id = await asking.asked()
    # Longer than the limit; nothing can be waited for, since nothing must happen.
    await asyncio.sleep(2.5)
    assert list((await asking.session()).open_request_ids) == [request_id]
    await asking.resolve(request_id, answers=[answer("red")])
    events = await asking.rest()
    assert said(events) == ["it is red"]
    # And then it runs again.
    assert events[-1].turn_completed.code == event_pb2.TURN_CODE_TIMEOUT
    assert events[-1].turn_completed.duration.seconds >= 3


async def test_an_agent_that_is_lost_while_it_waits_asks_no_more(talk: Any, server_data_dir: Path) -> None:
    asking = talk()
    request_id = await asking.asked()
    follow_up = await asking.client.call("SendInput", pb.SendInputRequest(session_id=asking.id, text="two"))
    (pid,) = [int(path.read_text().split()[0]) for path in server_data_dir.glob("workers/*/pid")]
    os.kill(pid, signal.SIGKILL)
    events = await asking.rest()
    assert events[-1].turn_completed.code == event_pb2.TURN_CODE_WORKER_LOST
    assert resolved(events).outcome == event_pb2.REQUEST_OUTCOME_CANCELLED
    assert (await refused(asking.resolve(request_id, answers=[answer("red")])))[0] == "REQUEST_RESOLVED"
    # And nothing is started behind its user's back.
    listed = (await asking.client.call("ListInputs", pb.ListInputsRequest(session_id=asking.id))).inputs
    assert list(listed) == [follow_up.input]


@pytest.mark.parametrize("changes", [{"lease_seconds": 1.5}])
async def test_what_another_replica_was_told_is_found_by_the_one_that_drives(
    talk: Any, database: DatabaseUrls, git_server: GitServer
) -> None:
    asking = talk()
    request_id = await asking.asked()
    with open_directory() as directory:
        async with in_process(settings_for(database, directory / "data", git_server, lease_seconds=1.5)) as (_, other):
            sent = await other.call("SendInput", pb.SendInputRequest(session_id=asking.id, text="two"))
            answers = [answer("blue")]
            await other.call("ResolveRequest", pb.ResolveRequestRequest(session_id=asking.id, request_id=request_id, answers=answers))
            first = await asking.rest()
            assert said(first) == ["it is blue ()"]
            # The next turn asks again; whichever of the two starts it, the other one's callers can answer.
            follow = Talk(asking.client, asking.client.resume(asking.id, len(first)))
            again = await follow.asked()
            assert again != request_id
            await other.call("ResolveRequest", pb.ResolveRequestRequest(session_id=asking.id, request_id=again, decline=True))
            events = await follow.rest_of_log()
    assert [each.input_ids[0] for each in (e.turn_started for e in events if e.HasField("turn_started"))][1:] == [sent.input.input_id]


async def test_nobody_else_learns_of_it_or_answers(talk: Any, server: Any) -> None:
    asking = talk()
    request_id = await asking.asked()
    stranger = Principal("elsewhere", "mallory", "Mallory", "mallory@example.invalid")
    await server.stores.keys.ensure_user(stranger)
    key = await create_key(server.stores.keys, stranger)
    async with connected(asking.client.address, key) as theirs:
        session_id = asking.id
        for call in (
            theirs.call("ResolveRequest", pb.ResolveRequestRequest(session_id=session_id, request_id=request_id, answers=[answer("red")])),
            theirs.call("SendInput", pb.SendInputRequest(session_id=session_id, text="x", delivery=event_pb2.INPUT_DELIVERY_INTERRUPT)),
            theirs.call("ListInputs", pb.ListInputsRequest(session_id=session_id, all=True)),
            theirs.call("UpdateInput", pb.UpdateInputRequest(session_id=session_id, input_id=session_id, text="x")),
            theirs.call("CancelInput", pb.CancelInputRequest(session_id=session_id, input_id=session_id)),
        ):
            assert (await refused(call))[0] == "SESSION_NOT_FOUND"
    assert list((await asking.session()).open_request_ids) == [request_id]
    await asking.resolve(request_id, answers=[answer("red")])
    assert said(await asking.rest()) == ["it is red ()"]


async def test_no_secret_of_the_servers_gets_into_the_log_by_an_answer_or_an_input(talk: Any, client: Client) -> None:
    asking = talk("free.jsonl")
    request_id = await asking.asked()
    await asking.client.call("SendInput", pb.SendInputRequest(session_id=asking.id, text=f"use {client.key}"))
    await asking.resolve(request_id, answers=[answer(text=f"it is {client.key}")], note=client.key)
    await asking.rest()
    follow = Talk(client, client.resume(asking.id, len(asking.seen)))
    await follow.resolve_when_asked(decline=True)
    log = await follow.rest_of_log()
    assert client.key.encode() not in b"".join(event.SerializeToString() for event in log)
