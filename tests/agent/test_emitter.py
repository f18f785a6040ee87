"""What an agent says, on its way to the spool."""

from __future__ import annotations

import asyncio
import time

import pytest

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1 import worker_service_pb2 as wire
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.emitter import COALESCE_SECONDS, SpoolEmitter
from worker.limits import MAX_EVENT_BYTES
from worker.spool import Spool


def events(spool: Spool) -> list[WorkerEvent]:
    found: list[WorkerEvent] = []
    while (frame := spool.frame(len(found)))[0]:
        found += wire.WorkerEventBatch.FromString(frame[0]).events
    return found


def deltas(spool: Spool) -> list[tuple[str, int, str]]:
    return [(event.item_id, event.content_delta.offset, event.content_delta.data) for event in events(spool)]


async def test_small_deltas_become_one_event_after_a_tenth_of_a_second() -> None:
    spool = Spool()
    emitter = SpoolEmitter(spool)
    started = time.monotonic()
    for word in ("one ", "two ", "three"):
        await emitter.delta("m", session.CHANNEL_TEXT, word)
    assert spool.last == 0
    await asyncio.wait_for(spool.news(0), 5)
    assert time.monotonic() - started >= COALESCE_SECONDS * 0.9
    assert deltas(spool) == [("m", 0, "one two three")]
    emitter.stop()


async def test_offsets_are_code_points_and_go_on() -> None:
    spool = Spool()
    emitter = SpoolEmitter(spool)
    for text in ("naïve ", "𝄞", "end"):
        await emitter.delta("m", session.CHANNEL_TEXT, text)
        await emitter.flush()
    assert [offset for _, offset, _ in deltas(spool)] == [0, 6, 7]


async def test_deltas_come_before_the_event_that_follows_them() -> None:
    spool = Spool()
    emitter = SpoolEmitter(spool)
    await emitter.delta("m", session.CHANNEL_TEXT, "hello")
    await emitter.emit(WorkerEvent(item_id="m", message=session.Message(final=True)))
    assert [event.WhichOneof("body") for event in events(spool)] == ["content_delta", "message"]
    assert all(event.occurred_at.seconds for event in events(spool))


async def test_four_kibi_characters_do_not_wait() -> None:
    spool = Spool()
    emitter = SpoolEmitter(spool)
    await emitter.delta("m", session.CHANNEL_STDOUT, "x" * 100_000)
    assert sum(len(data) for _, _, data in deltas(spool)) == 100_000


async def test_deltas_of_a_full_spool_wait_without_loss() -> None:
    spool = Spool(events=1)
    emitter = SpoolEmitter(spool)
    spool.push(b"")
    await emitter.delta("m", session.CHANNEL_TEXT, "late")
    await asyncio.sleep(COALESCE_SECONDS * 1.5)
    assert spool.last == 1
    spool.acknowledge(1)
    await asyncio.wait_for(spool.news(1), 5)
    assert deltas_after(spool, 1) == ["late"]
    emitter.stop()


def deltas_after(spool: Spool, after: int) -> list[str]:
    return [event.content_delta.data for event in wire.WorkerEventBatch.FromString(spool.frame(after)[0]).events]


HUGE = "x" * 400_000
LARGE = {
    "message": WorkerEvent(message=session.Message(parts=[session.Part(text=HUGE)])),
    "reasoning": WorkerEvent(reasoning=session.Reasoning(text=HUGE)),
    "tool_call": WorkerEvent(tool_call=session.ToolCall(call_id="c", input_json=HUGE, command=HUGE)),
    "tool_result": WorkerEvent(tool_result=session.ToolResult(call_id="c", parts=[session.Part(text=HUGE), session.Part(text=HUGE)])),
    "file_changed": WorkerEvent(file_changed=session.FileChanged(changes=[session.FileChange(path="a", patch=HUGE)])),
    "error": WorkerEvent(error=session.Error(code="X", message=HUGE)),
    "plan_updated": WorkerEvent(plan_updated=session.PlanUpdated(entries=[session.PlanEntry(text=HUGE)])),
}


@pytest.mark.parametrize("kind", LARGE)
async def test_an_event_that_is_too_large_is_cut_and_says_so(kind: str) -> None:
    spool = Spool()
    await SpoolEmitter(spool).emit(LARGE[kind])
    (event,) = events(spool)
    assert event.ByteSize() <= MAX_EVENT_BYTES
    assert event.WhichOneof("body") == ("error" if kind == "plan_updated" else kind)
    assert any(sign in str(event) for sign in ("were cut here", "truncated", "EVENT_TOO_LARGE"))
