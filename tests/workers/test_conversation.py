"""What people say and are asked, over a real worker's socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from support.workers import assignment, launched, launcher_in

from server.kernel.agent_request import AgentRequest, Answer, Question, RequestKind, RequestOutcome, Resolution
from server.kernel.event import WorkerBatch
from server.kernel.ports.launcher import NoticeKind, WorkerNotice, WorkerRequest, WorkerResult
from server.workers.local import LocalLauncher
from treadle.worker.v1.worker_event_pb2 import WorkerEvent

TALKING = [
    {"ask": "Which colour?", "choices": ["red", "blue"]},
    {"say": "{answer}"},
    {"listen": 1},
    {"say": "heard {input}"},
    {"run": "until [ -e go ]; do sleep 0.02; done"},
]


@pytest.fixture
async def launcher(server_data_dir: Path) -> AsyncIterator[LocalLauncher]:
    async with launcher_in(server_data_dir) as launcher:
        yield launcher


def words(item: object) -> list[str]:
    if not isinstance(item, WorkerBatch):
        return []
    events = [WorkerEvent.FromString(body) for body in item.bodies]
    return [event.message.parts[0].text for event in events if event.HasField("message")]


async def until(items: Any, kind: type, seen: list[object]) -> Any:
    async for item in items:
        seen.append(item)
        if isinstance(item, kind):
            return item
    raise AssertionError(seen)


async def test_answers_and_inputs_arrive_once_and_a_new_stream_brings_what_was_told(launcher: LocalLauncher) -> None:
    async with launched(launcher, TALKING) as (worker, link, workspace):
        seen: list[object] = []
        async with aclosing(link.execute(assignment(worker))) as items:
            asked = await until(items, WorkerRequest, seen)
            question = Question("question", ("red", "blue"))
            assert asked.request == AgentRequest(asked.request.id, RequestKind.QUESTION, questions=(question,))
            blue = Resolution(asked.request.id, RequestOutcome.ANSWERED, answers=(Answer("question", ("blue",)),))
            await link.resolve(blue)
            await link.resolve(Resolution(asked.request.id, RequestOutcome.DECLINED))
            wanted = await until(items, WorkerNotice, seen)
            assert wanted == WorkerNotice(NoticeKind.INPUT_WANTED)
            for text in ("tabs", "not again"):
                await link.give("i-1", text)
            # INPUT_UNWANTED or INPUT_TAKEN, whichever the stream was in time for.
            taken = await until(items, WorkerNotice, seen)
            if taken.kind is NoticeKind.INPUT_UNWANTED:
                taken = await until(items, WorkerNotice, seen)
            assert taken == WorkerNotice(NoticeKind.INPUT_TAKEN, "i-1")
            await until(items, WorkerBatch, seen)
        assert [word for item in seen for word in words(item)] == ["blue", "heard tabs"]
        (workspace / "go").touch()
        again: list[object] = []
        async with aclosing(link.resume(0)) as items:
            await until(items, WorkerResult, again)
        assert [word for item in again for word in words(item)] == ["blue", "heard tabs"]
        assert [item for item in again if isinstance(item, WorkerNotice)] == [WorkerNotice(NoticeKind.INPUT_TAKEN, "i-1")]
        place = again.index(WorkerNotice(NoticeKind.INPUT_TAKEN, "i-1"))
        assert [word for item in again[:place] for word in words(item)] == ["blue"]


async def test_an_interrupt_ends_an_agent_that_waits(launcher: LocalLauncher) -> None:
    async with launched(launcher, TALKING) as (worker, link, _):
        async with aclosing(link.execute(assignment(worker))) as items:
            seen: list[object] = []
            asked = await until(items, WorkerRequest, seen)
            await link.interrupt("enough")
            withdrawn = await until(items, WorkerNotice, seen)
            assert withdrawn == WorkerNotice(NoticeKind.REQUEST_WITHDRAWN, asked.request.id)
            result = await until(items, WorkerResult, seen)
        assert result.outcome.status == "INTERRUPTED"
