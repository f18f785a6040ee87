"""A worker's frames: hostile bytes in, clean batches and results out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from server.kernel.errors import WorkerProtocolBroken
from server.kernel.event import MAX_EVENT_BYTES, TextId, WorkerBatch
from server.kernel.ports.launcher import NoticeKind, WorkerItem, WorkerNotice, WorkerRequest, WorkerResult
from server.kernel.turn import Outcome, TurnCode, TurnState
from server.workers.requests import ASKING, clear_expiry, read_request
from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1 import worker_service_pb2 as wire
from treadle.worker.v1.worker_event_pb2 import WorkerEvent

MAX_FRAME_BYTES = 512 * 1024
MAX_FRAME_EVENTS = 2048
"""A worker's frame has at most 256 KiB, or one event of that size; and no more events than its spool keeps."""
_MAX_MESSAGE_CHARS = 2000
_MAX_STOP_REASON_CHARS = 200
# What a correct worker tells of (worker/). All other codes are the server's: people act on them.
_WORKERS_CODES = frozenset(
    {"PROVIDER", "PROVIDER_RETRY", "RATE_LIMIT", "EVENT_TOO_LARGE", "SETUP_FAILED", "TRANSCRIPT_LOST", "TRANSCRIPT_UNREADABLE"}
)
# Times that cannot be shown as JSON would break every reader of the log; the limits are those of protobuf's JSON mapping.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_LONGEST_SECONDS = 315_576_000_000
_NANOS = 1_000_000_000
_STATUS = {
    session.TURN_STATUS_COMPLETED: TurnState.COMPLETED,
    session.TURN_STATUS_INTERRUPTED: TurnState.INTERRUPTED,
    session.TURN_STATUS_FAILED: TurnState.FAILED,
}


class FrameReader:
    """Reads the frames of one stream of one worker. All methods raise WorkerProtocolBroken for what no correct worker sends."""

    def __init__(self, after_worker_seq: int) -> None:
        self.last = after_worker_seq
        """The worker_seq of the last event that was read."""

    def read(self, data: bytes) -> Sequence[WorkerItem | WorkerResult]:
        """One frame; nothing for a heartbeat. What asks something is an item of its own.

        Every event is parsed, stripped of all fields that WorkerEvent does not have, and serialised anew: what a worker may not
        say does not get through, whatever it sends. The two responses have the same fields, so one type reads both.
        """
        if len(data) > MAX_FRAME_BYTES:
            raise WorkerProtocolBroken(f"the worker sent a frame of {len(data):,} bytes")
        try:
            frame = wire.ResumeResponse.FromString(data)
        except DecodeError as error:
            raise WorkerProtocolBroken("the worker sent a frame that is none") from error
        frame.DiscardUnknownFields()
        match frame.WhichOneof("frame"):
            case "events":
                return self._events(frame.events)
            case "result":
                return [self._result(frame.result)]
            case "notice":
                return [_notice(frame.notice)]
            case "heartbeat":
                return []
        raise WorkerProtocolBroken("the worker sent an empty frame")

    def _events(self, batch: wire.WorkerEventBatch) -> Sequence[WorkerItem]:
        if batch.first_worker_seq != self.last + 1 or not batch.events:
            raise WorkerProtocolBroken(f"after event {self.last} the worker sent {len(batch.events)} events from {batch.first_worker_seq}")
        if len(batch.events) > MAX_FRAME_EVENTS:
            raise WorkerProtocolBroken(f"the worker sent {len(batch.events):,} events in one frame")
        asking = [index for index, event in enumerate(batch.events) if event.WhichOneof("body") in ASKING]
        items: list[WorkerItem] = []
        start = 0
        for index in asking:
            if start < index:
                items.append(self._batch(batch.events[start:index]))
            items.append(self._request(batch.events[index]))
            start = index + 1
        if start < len(batch.events):
            items.append(self._batch(batch.events[start:] if asking else batch.events))
        return items

    def _request(self, event: WorkerEvent) -> WorkerRequest:
        batch = self._batch([event])
        return WorkerRequest(batch, read_request(event, size=len(batch.bodies[0])))

    def _batch(self, events: Sequence[WorkerEvent]) -> WorkerBatch:
        kinds: list[str] = []
        bodies: list[bytes] = []
        deltas: dict[TextId, list[tuple[int, bytes]]] = {}
        for event in events:
            kind = event.WhichOneof("body")
            if kind is None:
                raise WorkerProtocolBroken("the worker sent an event of a kind that it may not say")
            _check_time(event.occurred_at)
            if kind in _CHECKS:
                _CHECKS[kind](event)
            body = event.SerializeToString()
            if len(body) > MAX_EVENT_BYTES:
                raise WorkerProtocolBroken(f"the worker sent an event of {len(body):,} bytes")
            if kind == "content_delta":
                delta = event.content_delta
                deltas.setdefault((event.item_id, delta.channel), []).append((len(bodies), delta.data.encode()))
            kinds.append(kind)
            bodies.append(body)
        clean = WorkerBatch(first_worker_seq=self.last + 1, kinds=kinds, bodies=bodies, deltas=deltas)
        self.last = clean.last_worker_seq
        return clean

    def _result(self, result: wire.TurnResult) -> WorkerResult:
        if result.last_worker_seq != self.last:
            raise WorkerProtocolBroken(f"the worker says that its last event is {result.last_worker_seq}, it sent {self.last}")
        status = _STATUS.get(result.status)
        if status is None:
            raise WorkerProtocolBroken("the worker's result has no status")
        # Why a turn fails is the server's to judge; of the agent's side there is one reason only.
        code = TurnCode.PROVIDER if status is TurnState.FAILED else TurnCode.NONE
        message, stop_reason = plain(result.message, _MAX_MESSAGE_CHARS), plain(result.native_stop_reason, _MAX_STOP_REASON_CHARS)
        return WorkerResult(Outcome(status, code, message, stop_reason), self.last, _worked(result))


def _worked(result: wire.TurnResult) -> tuple[datetime, datetime] | None:
    if not (result.HasField("began_at") and result.HasField("ended_at")):
        return None
    for at in (result.began_at, result.ended_at):
        _check_time(at)
    return result.began_at.ToDatetime(UTC), result.ended_at.ToDatetime(UTC)


def _notice(notice: wire.WorkerNotice) -> WorkerNotice:
    match notice.WhichOneof("notice"):
        case "input_wanted":
            return WorkerNotice(NoticeKind.INPUT_WANTED if notice.input_wanted else NoticeKind.INPUT_UNWANTED)
        case "input_taken":
            return WorkerNotice(NoticeKind.INPUT_TAKEN, notice.input_taken)
        case "request_withdrawn":
            return WorkerNotice(NoticeKind.REQUEST_WITHDRAWN, notice.request_withdrawn)
        case "prepared":
            return WorkerNotice(NoticeKind.PREPARED, notice.prepared)
    raise WorkerProtocolBroken("the worker sent an empty notice")


def plain(text: str, limit: int) -> str:
    """Text that a database can keep: Postgres has no NUL characters."""
    return text[:limit].replace("\0", "\ufffd")


def _check_time(at: Timestamp) -> None:
    if not (_FIRST_SECOND <= at.seconds <= _LAST_SECOND and 0 <= at.nanos < _NANOS):
        raise WorkerProtocolBroken("the worker sent an impossible time")


def _check_duration(event: WorkerEvent) -> None:
    lasted = event.tool_result.duration
    if abs(lasted.seconds) > _LONGEST_SECONDS or abs(lasted.nanos) >= _NANOS or lasted.seconds * lasted.nanos < 0:
        raise WorkerProtocolBroken("the worker sent an impossible duration")


def _clear_total(event: WorkerEvent) -> None:
    # The sum of the turn is the server's to say.
    event.file_changed.turn_total = False


def _check_role(event: WorkerEvent) -> None:
    # What the user said is the server's to tell (user_input).
    if event.message.role == session.ROLE_USER:
        raise WorkerProtocolBroken("the worker sent a message of the user")


def _clear_error(event: WorkerEvent) -> None:
    # How and why a turn ends is the server's to say, and so is what the model's provider answered: the server asks it.
    event.error.fatal = False
    event.error.provider_status = 0
    if event.error.code not in _WORKERS_CODES:
        event.error.code = TurnCode.PROVIDER


def _clear_budget(event: WorkerEvent) -> None:
    # The purses are the server's. That an agent with a way to models tells no usage at all is seen by who knows the turn (work.py).
    event.usage_updated.ClearField("budget_left_micros")
    event.usage_updated.ClearField("budget_left_tokens")


_CHECKS = {
    "tool_result": _check_duration,
    "file_changed": _clear_total,
    "message": _check_role,
    "error": _clear_error,
    "usage_updated": _clear_budget,
    **dict.fromkeys(ASKING, clear_expiry),
}
