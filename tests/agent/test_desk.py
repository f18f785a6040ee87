"""The worker's side of what people say and are asked: inbox, desk, and notices between the events."""

from __future__ import annotations

import asyncio

import pytest

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1 import worker_service_pb2 as wire
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.desk import MAX_OPEN, TurnDesk
from worker.emitter import SpoolEmitter
from worker.inbox import TurnInbox
from worker.notices import Notices
from worker.provider import RequestMalformed
from worker.spool import Spool

YES = session.ApprovalOption(id="yes", kind=session.APPROVAL_OPTION_KIND_ALLOW_ONCE)


class Turn:
    """A desk and an inbox with what the server would see of them."""

    def __init__(self) -> None:
        self.spool = Spool()
        self.notices = Notices(self.spool)
        emitter = SpoolEmitter(self.spool)
        self.desk = TurnDesk(emitter, self.notices)
        self.inbox = TurnInbox(emitter, self.notices)
        self.emitter = emitter

    def events(self) -> list[WorkerEvent]:
        data, _ = self.spool.frame(0)
        return list(wire.WorkerEventBatch.FromString(data).events)

    async def asked(self, count: int = 1) -> list[WorkerEvent]:
        async with asyncio.timeout(5):
            while len(found := [event for event in self.events() if "requested" in (event.WhichOneof("body") or "")]) < count:
                await self.spool.news(self.spool.last)
        return found

    def stream(self) -> list[int | wire.WorkerNotice]:
        """What a new stream brings: how many events, and the notices between them."""
        reader, after, seen = self.notices.reader(), 0, []
        while True:
            batch, last = self.spool.frame(after, up_to=reader.limit)
            if batch:
                seen.append(last - after)
                after = last
            elif (notice := reader.next()) is not None:
                seen.append(wire.WorkerNotice.FromString(notice))
            else:
                return seen


def approval(**fields: object) -> session.ApprovalRequested:
    return session.ApprovalRequested(**{"title": "May I?", "options": [YES], **fields})  # type: ignore[arg-type]


async def test_a_request_waits_for_its_answer_and_only_for_its_own() -> None:
    turn = Turn()
    first, second = asyncio.create_task(turn.desk.approve(approval())), asyncio.create_task(turn.desk.approve(approval()))
    one, two = [event.approval_requested.request_id for event in await turn.asked(2)]
    assert one != two
    turn.desk.resolve(session.RequestResolved(request_id="unknown"))
    turn.desk.resolve(session.RequestResolved(request_id=two, option_id="yes"))
    assert (await second).option_id == "yes"
    assert not first.done()
    turn.desk.resolve(session.RequestResolved(request_id=one, option_id="no"))
    turn.desk.resolve(session.RequestResolved(request_id=one, option_id="yes"))
    assert (await first).option_id == "no"
    assert turn.stream() == [2]


async def test_a_cancelled_wait_withdraws_the_request_behind_its_event() -> None:
    turn = Turn()
    asking = asyncio.create_task(turn.desk.ask(session.QuestionRequested(questions=[session.Question(id="q", free_text=True)])))
    (event,) = await turn.asked()
    asking.cancel()
    await asyncio.wait([asking])
    await turn.emitter.emit(WorkerEvent(reasoning=session.Reasoning(text="then not")))
    assert turn.stream() == [1, wire.WorkerNotice(request_withdrawn=event.question_requested.request_id), 1]


async def test_so_many_requests_are_open_and_the_next_waits() -> None:
    turn = Turn()
    asking = [asyncio.create_task(turn.desk.approve(approval())) for _ in range(MAX_OPEN + 1)]
    asked = await turn.asked(MAX_OPEN)
    await asyncio.sleep(0)
    assert len(turn.events()) == MAX_OPEN
    turn.desk.resolve(session.RequestResolved(request_id=asked[0].approval_requested.request_id))
    assert len(await turn.asked(MAX_OPEN + 1)) == MAX_OPEN + 1
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)


@pytest.mark.parametrize(
    "request_",
    [
        approval(options=[]),
        approval(options=[YES, YES]),
        approval(options=[session.ApprovalOption(id=str(n)) for n in range(17)]),
        approval(options=[session.ApprovalOption(id="x" * 65)]),
        approval(options=[session.ApprovalOption(id="a\nb")]),
        approval(options=[session.ApprovalOption(id="")]),
    ],
)
async def test_what_nobody_could_answer_is_not_asked(request_: session.ApprovalRequested) -> None:
    turn = Turn()
    with pytest.raises(RequestMalformed):
        await turn.desk.approve(request_)
    assert turn.stream() == []


async def test_a_question_without_any_possible_answer_is_not_asked() -> None:
    with pytest.raises(RequestMalformed):
        await Turn().desk.ask(session.QuestionRequested(questions=[session.Question(id="q")]))


async def test_long_texts_are_cut_and_the_callers_message_stays_as_it_is() -> None:
    turn = Turn()
    tool = session.ToolCall(command="x" * 100_000, input_json='{"a": "' + "x" * 100_000 + '"}', title="t" * 1000)
    request = approval(title="t" * 1000, description="d" * 100_000, tool=tool)
    asking = asyncio.create_task(turn.desk.approve(request))
    (event,) = await turn.asked()
    assert event.ByteSize() < 64 * 1024
    assert event.approval_requested.tool.input_json == '{"truncated": true}'
    assert request.request_id == ""
    assert len(request.description) == 100_000
    asking.cancel()
    await asyncio.wait([asking])


async def test_long_diffs_are_cut_and_say_so() -> None:
    turn = Turn()
    changes = [session.FileChange(path=name, patch="+ü\n" * 30_000) for name in ("a", "b")]
    asking = asyncio.create_task(turn.desk.approve(approval(changes=changes)))
    (event,) = await turn.asked()
    first, second = event.approval_requested.changes
    assert first.patch.startswith("+ü\n" * 10_000)
    assert (first.patch_truncated, second.patch_truncated) == (True, True)
    assert event.ByteSize() < 128 * 1024
    asking.cancel()
    await asyncio.wait([asking])


async def test_the_inbox_says_when_it_is_read_and_what_was_taken() -> None:
    turn = Turn()
    turn.inbox.give("1", "early")
    turn.inbox.give("1", "early")
    assert (await turn.inbox.next()).text == "early"
    assert turn.stream() == []
    reading = asyncio.create_task(turn.inbox.next())
    await turn.spool.news(0)
    assert turn.stream() == [wire.WorkerNotice(input_wanted=True)]
    await turn.emitter.delta("m", session.CHANNEL_TEXT, "before")
    turn.inbox.give("2", "now")
    message = await reading
    assert (message.input_id, message.text) == ("2", "now")
    await turn.inbox.taken("2")
    await turn.emitter.emit(WorkerEvent(reasoning=session.Reasoning(text="after")))
    # Every stream brings it again, in its place; and only the latest of what is wanted.
    for _ in range(2):
        assert turn.stream() == [1, wire.WorkerNotice(input_taken="2"), 1]


async def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    turn = Turn()
    reading = asyncio.create_task(turn.inbox.next())
    await turn.spool.news(0)
    reading.cancel()
    await asyncio.wait([reading])
    assert turn.stream() == []
    turn.inbox.give("1", "kept")
    assert (await turn.inbox.next()).text == "kept"


async def test_a_stream_that_begins_behind_a_notice_brings_it_first() -> None:
    turn = Turn()
    await turn.inbox.taken("1")
    await turn.emitter.emit(WorkerEvent(reasoning=session.Reasoning(text="a")))
    reader = turn.notices.reader()
    assert turn.spool.frame(1, up_to=reader.limit)[0] == b""
    assert reader.next() == wire.WorkerNotice(input_taken="1").SerializeToString()
    assert reader.limit is None
