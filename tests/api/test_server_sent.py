"""Frames as server-sent events."""

from __future__ import annotations

import asyncio

import pytest

from server.api import server_sent
from server.kernel.journal import Events
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

FOLLOWERS = 50


def frame_of(count: int) -> Events:
    events = [event_pb2.Event(seq=seq, content_delta=event_pb2.ContentDelta(data="x" * 200)) for seq in range(1, count + 1)]
    return Events(pb.ResumeResponse(events=pb.EventBatch(events=events)).SerializeToString(), count)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per time that a frame was turned into JSON."""
    found: list[int] = []
    write = server_sent._events

    def counting(frame: bytes) -> bytes:
        found.append(len(frame))
        return write(frame)

    monkeypatch.setattr(server_sent, "_events", counting)
    return found


@pytest.mark.parametrize("count", [1, 500], ids=["small", "large"])
async def test_a_frame_is_written_once_for_all_followers_also_when_they_come_at_the_same_time(written: list[int], count: int) -> None:
    frame = frame_of(count)
    assert (len(frame.frame) > server_sent.INLINE_BYTES) == (count > 1)
    first, *others = await asyncio.gather(*(server_sent.dress(frame) for _ in range(FOLLOWERS)))
    assert first.count(b"\nevent: content_delta\n") == count
    assert all(other is first for other in others)
    assert await server_sent.dress(frame) is first
    assert len(written) == 1


async def test_a_follower_that_leaves_does_not_take_the_frame_from_the_others(written: list[int]) -> None:
    frame = frame_of(500)
    followers = [asyncio.create_task(server_sent.dress(frame)) for _ in range(3)]
    await asyncio.sleep(0)
    followers[0].cancel()
    gone, *others = await asyncio.gather(*followers, return_exceptions=True)
    assert isinstance(gone, asyncio.CancelledError)
    assert others[0] is others[1]
    assert isinstance(others[0], bytes)
    assert len(written) == 1
