"""The invariants of an event log (DESIGN.md 13), checked after every end-to-end and fault test."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from treadle.session.v1 import event_pb2 as pb

SERVER_KINDS = {
    "session_updated",
    "session_forked",
    "worker_updated",
    "turn_started",
    "turn_completed",
    "user_input",
    "request_resolved",
    "git_updated",
    "artifact_added",
}
REQUEST_KINDS = {"approval_requested", "question_requested"}


def check_log(events: Sequence[pb.Event], *, ended: bool = True) -> None:
    """Raise AssertionError with what is wrong. `ended`: every turn in it must have its terminal event."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "seq is not 1..n"
    assert len({event.session_id for event in events}) <= 1, "events of several sessions"
    ids = Counter(event.event_id for event in events)
    assert len(ids) == len(events), f"event_ids occur twice: {[each for each, count in ids.items() if count > 1]}"
    epochs = [event.epoch for event in events]
    assert epochs == sorted(epochs), "epochs go back"
    _check_turns(events, ended=ended)
    _check_workers(events)
    _check_deltas(events)
    _check_requests(events, ended=ended)
    _check_inputs(events)


def _check_turns(events: Sequence[pb.Event], *, ended: bool) -> None:
    turns: dict[str, list[pb.Event]] = defaultdict(list)
    for event in events:
        if event.turn_id:
            turns[event.turn_id].append(event)
    for turn_id, own in turns.items():
        kinds = [event.WhichOneof("body") for event in own]
        assert kinds[0] == "turn_started", f"turn {turn_id} begins with {kinds[0]}"
        assert kinds.count("turn_started") == 1, f"turn {turn_id} began {kinds.count('turn_started')} times"
        terminal = kinds.count("turn_completed")
        assert terminal == 1 or (not ended and terminal == 0), f"turn {turn_id} has {terminal} terminal events"
        if terminal:
            assert kinds[-1] == "turn_completed", f"turn {turn_id} goes on after its end with {kinds[-1]}"


def _check_workers(events: Sequence[pb.Event]) -> None:
    expected: dict[tuple[str, int], int] = defaultdict(lambda: 1)
    for event in events:
        if not event.attempt:
            # Between turns users act themselves, and while an agent works they edit its files.
            edits = not event.turn_id or event.HasField("file_changed")
            own = pb.ACTOR_KIND_USER if edits else pb.ACTOR_KIND_SERVER
            assert event.actor.kind in (own, pb.ACTOR_KIND_SERVER), f"event {event.seq} is nobody's"
            continue
        assert event.WhichOneof("body") not in SERVER_KINDS, f"a worker said {event.WhichOneof('body')}"
        turn_id, attempt, worker_seq = event.event_id.rsplit("/", 2)
        key = (turn_id, int(attempt))
        assert key == (event.turn_id, event.attempt), f"event {event.seq} has the key {event.event_id}"
        assert int(worker_seq) == expected[key], f"worker_seq {worker_seq} where {expected[key]} was due"
        expected[key] += 1


def _check_deltas(events: Sequence[pb.Event]) -> None:
    lengths: dict[tuple[str, int, str, int], int] = defaultdict(int)
    for event in events:
        if event.WhichOneof("body") == "content_delta":
            delta = event.content_delta
            key = (event.turn_id, event.attempt, event.item_id, delta.channel)
            assert delta.offset == lengths[key], f"event {event.seq} continues at {delta.offset}, not at {lengths[key]}"
            lengths[key] += len(delta.data)


def _check_requests(events: Sequence[pb.Event], *, ended: bool) -> None:
    """Each request is resolved exactly once, within its turn."""
    asked: dict[str, str] = {}
    resolved: set[str] = set()
    for event in events:
        kind = event.WhichOneof("body") or ""
        if kind in REQUEST_KINDS:
            request_id = getattr(event, kind).request_id
            assert request_id not in asked, f"request {request_id} was asked twice"
            asked[request_id] = event.turn_id
        elif kind == "request_resolved":
            request_id = event.request_resolved.request_id
            assert asked.get(request_id) == event.turn_id, f"request {request_id} was resolved before it was asked, or in another turn"
            assert request_id not in resolved, f"request {request_id} was resolved twice"
            resolved.add(request_id)
    assert not ended or resolved == set(asked), f"requests that nothing became of: {set(asked) - resolved}"


def _check_inputs(events: Sequence[pb.Event]) -> None:
    """An input is delivered or cancelled at most once, and nothing is told of it afterwards; each turn's input is delivered to it."""
    over: set[str] = set()
    begun = {event.turn_id: event.turn_started.input_ids[0] for event in events if event.HasField("turn_started")}
    for event in events:
        if event.WhichOneof("body") == "user_input":
            told = event.user_input
            assert told.input_id not in over, f"input {told.input_id} is told of after its end"
            if told.status in (pb.INPUT_STATUS_DELIVERED, pb.INPUT_STATUS_CANCELLED):
                over.add(told.input_id)
    assert set(begun.values()) <= over, "a turn began with an input that was not delivered"
