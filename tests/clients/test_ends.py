"""Cuts that come just after the end: what was waited for has been seen."""

from __future__ import annotations

import pytest

from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb
from treadle_client.errors import Unavailable, unreachable
from treadle_client.following import Following
from treadle_client.retry import Retry

END = event_pb2.Event(seq=2, turn_id="t", turn_completed=event_pb2.TurnCompleted())
EVENTS = pb.ResumeResponse(events=pb.EventBatch(events=[event_pb2.Event(seq=1, turn_id="t"), END]))
NEXT = pb.ResumeResponse(events=pb.EventBatch(events=[event_pb2.Event(seq=3, turn_id="u")]))
SYNCED = pb.ResumeResponse(synced=pb.Synced(watermark_seq=2))


@pytest.mark.parametrize(
    ("frames", "done"),
    [([EVENTS, SYNCED], True), ([SYNCED, EVENTS], True), ([EVENTS], False), ([SYNCED], False), ([EVENTS, SYNCED, NEXT], False)],
)
def test_a_session_whose_last_turn_was_seen_to_end_is_not_waited_for(frames: list[pb.ResumeResponse], done: bool) -> None:
    told: list[Unavailable | None] = []
    following = Following(pb.ResumeRequest(session_id="s"), Retry(), told.append)
    following.request()
    for frame in frames:
        following.take(frame)
    wait = following.cut(unreachable("cut"))
    assert following.done is done
    assert (wait == 0 and not told) is done


def test_what_is_past_is_told_anew_on_each_connection() -> None:
    following = Following(pb.ResumeRequest(session_id="s"), Retry())
    following.request()
    following.take(SYNCED)
    following.cut(unreachable("cut"))
    following.request()
    following.take(EVENTS)
    following.cut(unreachable("cut"))
    assert not following.done
