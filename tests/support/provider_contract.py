"""What every provider promises; a suite for each is a subclass with four fixtures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.workers import eventually, processes_with

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.provider import GROUP, Provider, ProviderFailed, Request, UserMessage, make_provider

Asked = session.ApprovalRequested | session.QuestionRequested


class People:
    """An Inbox and a Desk whose people say what a test has them say. `answer` makes the answer to a request; None: nobody answers."""

    def __init__(self, *says: str, answer: Callable[[Asked], session.RequestResolved] | None = None) -> None:
        self.asked: list[Asked] = []
        self.taken_inputs: list[str] = []
        self.withdrawn: list[str] = []
        self._says = [UserMessage(f"input-{number}", text) for number, text in enumerate(says, 1)]
        self._answer = answer

    async def next(self) -> UserMessage:
        if not self._says:
            await asyncio.Event().wait()
        return self._says.pop(0)

    async def taken(self, input_id: str) -> None:
        self.taken_inputs.append(input_id)

    async def approve(self, request: session.ApprovalRequested) -> session.RequestResolved:
        return await self._resolve(request)

    async def ask(self, request: session.QuestionRequested) -> session.RequestResolved:
        return await self._resolve(request)

    async def _resolve(self, request: Asked) -> session.RequestResolved:
        self.asked.append(request)
        if self._answer is not None:
            return self._answer(request)
        try:
            await asyncio.Event().wait()
        finally:
            self.withdrawn.append(request.title if isinstance(request, session.ApprovalRequested) else request.questions[0].text)
        raise AssertionError


def allow(asked: Asked) -> session.RequestResolved:
    """Yes, this once."""
    return _choose(asked, session.APPROVAL_OPTION_KIND_ALLOW_ONCE)


def reject(asked: Asked) -> session.RequestResolved:
    """No."""
    return _choose(asked, session.APPROVAL_OPTION_KIND_REJECT_ONCE)


def _choose(asked: Asked, kind: session.ApprovalOptionKind) -> session.RequestResolved:
    assert isinstance(asked, session.ApprovalRequested)
    option_id = next(option.id for option in asked.options if option.kind == kind)
    return session.RequestResolved(request_id=asked.request_id, outcome=session.REQUEST_OUTCOME_CHOSEN, option_id=option_id)


def request_for(
    workspace: Path,
    *,
    prompt: str = "do it",
    model: str = "",
    turn_number: int = 1,
    approvals: session.Approvals = session.APPROVALS_UNSPECIFIED,
    people: People | None = None,
) -> Request:
    """A request as the engine makes it; without `people` nobody says or answers anything."""
    people = people or People()
    return Request(prompt, model, workspace, turn_number, approvals, inbox=people, desk=people)


@dataclass
class Recorder:
    """An Emitter that keeps what it is told; with `after` it stands still from that event on, like a full spool."""

    events: list[WorkerEvent] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def emit(self, event: WorkerEvent) -> None:
        copy = WorkerEvent()
        copy.CopyFrom(event)
        self.events.append(copy)
        self.news.set()

    async def delta(self, item_id: str, channel: session.Channel, text: str) -> None:
        await self.emit(WorkerEvent(item_id=item_id, content_delta=session.ContentDelta(channel=channel, data=text)))

    def kinds(self) -> list[str | None]:
        return [event.WhichOneof("body") for event in self.events]


class ProviderContract:
    """Subclasses give `name` (the entry point), and what to ask for to see each behaviour."""

    name = ""
    nap = ""
    """So many seconds to sleep: a number that no other test sleeps for, to find the process by."""
    steerable = True
    """Whether the agent takes what the user says while it works."""

    @pytest.fixture
    def working(self, tmp_path: Path) -> Request:
        """A request that makes the agent write `made.txt`, run a command and end by itself."""
        raise NotImplementedError

    @pytest.fixture
    def endless(self, tmp_path: Path) -> Request:
        """A request that makes the agent run `sleep <nap>`."""
        raise NotImplementedError

    @pytest.fixture
    def failing(self, tmp_path: Path) -> Request:
        """A request that the agent cannot carry out."""
        raise NotImplementedError

    def approving(self, workspace: Path, people: People) -> Request:
        """A request with approvals ASK that makes the agent write `made.txt` if it may, and end by itself."""
        raise NotImplementedError

    def listening(self, workspace: Path, people: People) -> Request:
        """A request that makes the agent work until the user has said something, and end then. Only for steerable ones."""
        raise NotImplementedError

    @pytest.fixture
    def provider(self) -> Provider:
        return make_provider(self.name)

    async def run(self, provider: Provider, request: Request) -> tuple[Recorder, str]:
        recorder = Recorder()
        async with asyncio.timeout(60):
            return recorder, await provider.run(request, recorder, asyncio.Event())

    async def test_it_does_its_work_in_the_workspace_and_says_why_it_stopped(self, provider: Provider, working: Request) -> None:
        _, reason = await self.run(provider, working)
        assert reason
        assert (working.workspace / "made.txt").exists()

    async def test_it_tells_a_message_and_tool_calls_with_their_results(self, provider: Provider, working: Request) -> None:
        recorder, _ = await self.run(provider, working)
        told = [event.tool_call for event in recorder.events if event.WhichOneof("body") == "tool_call"]
        # One may be told as pending first; from then on it is the same one.
        calls = [call.call_id for call in told if call.status == session.TOOL_STATUS_RUNNING]
        results = [event.tool_result.call_id for event in recorder.events if event.WhichOneof("body") == "tool_result"]
        assert "message" in recorder.kinds()
        assert calls
        assert len(set(calls)) == len(calls)
        assert sorted(results) == sorted(calls)
        for call in calls:
            positions = [n for n, event in enumerate(recorder.events) if call in (event.tool_call.call_id, event.tool_result.call_id)]
            assert recorder.kinds()[positions[0]] == "tool_call"

    async def test_a_failure_is_provider_failed_with_a_sentence(self, provider: Provider, failing: Request) -> None:
        with pytest.raises(ProviderFailed, match=r"\w+ \w+"):
            await self.run(provider, failing)

    async def test_an_interrupt_stops_it_within_a_second(self, provider: Provider, endless: Request) -> None:
        recorder, interrupted = Recorder(), asyncio.Event()
        running = asyncio.create_task(provider.run(endless, recorder, interrupted))
        await eventually(lambda: processes_with(self.nap), limit=30)
        interrupted.set()
        asked = time.monotonic()
        assert await asyncio.wait_for(running, 5)
        assert time.monotonic() - asked < 1
        await eventually(lambda: not processes_with(self.nap), limit=1)

    async def test_a_cancelled_one_leaves_no_process(self, provider: Provider, endless: Request) -> None:
        running = asyncio.create_task(provider.run(endless, Recorder(), asyncio.Event()))
        await eventually(lambda: processes_with(self.nap), limit=30)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        await eventually(lambda: not processes_with(self.nap), limit=1)

    async def test_without_approvals_it_never_asks_for_leave(self, provider: Provider, working: Request) -> None:
        await self.run(provider, working)
        assert isinstance(working.desk, People)
        assert not any(isinstance(asked, session.ApprovalRequested) for asked in working.desk.asked)

    @pytest.mark.parametrize("given", [True, False])
    async def test_with_approvals_it_acts_only_when_it_may(self, provider: Provider, tmp_path: Path, given: bool) -> None:
        people = People(answer=allow if given else reject)
        recorder, _ = await self.run(provider, self.approving(tmp_path, people))
        assert people.asked
        for asked in people.asked:
            assert isinstance(asked, session.ApprovalRequested)
            kinds = {option.kind for option in asked.options}
            assert {session.APPROVAL_OPTION_KIND_ALLOW_ONCE, session.APPROVAL_OPTION_KIND_REJECT_ONCE} <= kinds
            assert asked.title
        assert (tmp_path / "made.txt").exists() is given
        assert "message" in recorder.kinds()

    @pytest.mark.parametrize("outcome", [session.REQUEST_OUTCOME_DECLINED, session.REQUEST_OUTCOME_EXPIRED])
    async def test_leave_that_nobody_gives_is_none(self, provider: Provider, tmp_path: Path, outcome: session.RequestOutcome) -> None:
        people = People(answer=lambda asked: session.RequestResolved(request_id=asked.request_id, outcome=outcome))
        await self.run(provider, self.approving(tmp_path, people))
        assert people.asked
        assert not (tmp_path / "made.txt").exists()

    async def test_an_interrupt_withdraws_what_it_asks(self, provider: Provider, tmp_path: Path) -> None:
        people, interrupted = People(), asyncio.Event()
        running = asyncio.create_task(provider.run(self.approving(tmp_path, people), Recorder(), interrupted))
        await eventually(lambda: people.asked, limit=30)
        interrupted.set()
        assert await asyncio.wait_for(running, 5)
        assert people.withdrawn
        assert not (tmp_path / "made.txt").exists()

    async def test_what_the_user_says_meanwhile_is_taken(self, provider: Provider, tmp_path: Path) -> None:
        if not self.steerable:
            return
        people = People("use tabs")
        recorder, _ = await self.run(provider, self.listening(tmp_path, people))
        assert people.taken_inputs == ["input-1"]
        assert "message" in recorder.kinds()

    def test_its_entry_point_is_known_without_importing_it(self) -> None:
        from importlib.metadata import entry_points

        assert self.name in {entry.name for entry in entry_points(group=GROUP)}
