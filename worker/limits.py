"""No event is larger than 256 KiB: what is too large is cut, and says so."""

from __future__ import annotations

from treadle.worker.v1.worker_event_pb2 import WorkerEvent

MAX_EVENT_BYTES = 256 * 1024
_TEXT_BYTES = 192 * 1024


def cut_to_fit(event: WorkerEvent) -> bytes:
    """An event that is too large, serialised without some of its text and marked so. `event` itself is not changed."""
    smaller = WorkerEvent()
    smaller.CopyFrom(event)
    _cut(smaller)
    data = smaller.SerializeToString()
    return data if len(data) <= MAX_EVENT_BYTES else _replacement(event)


def cut_text(text: str, limit: int) -> str:
    """`text` in at most about `limit` bytes of UTF-8, with a last line that says how much is missing."""
    data = text.encode()
    if len(data) <= limit:
        return text
    return f"{data[:limit].decode(errors='ignore')}\n[{len(data) - limit:,} bytes were cut here]"


def _cut(event: WorkerEvent) -> None:
    match event.WhichOneof("body"):
        case "message":
            for part in event.message.parts:
                part.text = cut_text(part.text, _TEXT_BYTES // len(event.message.parts))
        case "reasoning":
            event.reasoning.text = cut_text(event.reasoning.text, _TEXT_BYTES)
        case "tool_call":
            event.tool_call.command = cut_text(event.tool_call.command, _TEXT_BYTES // 8)
            # Half a JSON text is none.
            event.tool_call.input_json = '{"truncated": true}'
        case "tool_result":
            for part in event.tool_result.parts:
                part.text = cut_text(part.text, _TEXT_BYTES // len(event.tool_result.parts))
            event.tool_result.truncated = True
        case "file_changed":
            for change in event.file_changed.changes:
                change.patch, change.patch_truncated = "", True
        case "error":
            event.error.message = cut_text(event.error.message, _TEXT_BYTES)


def _replacement(event: WorkerEvent) -> bytes:
    note = WorkerEvent(occurred_at=event.occurred_at)
    note.error.code = "EVENT_TOO_LARGE"
    note.error.message = f"a {event.WhichOneof('body')} event of {event.ByteSize():,} bytes was left out"
    return note.SerializeToString()
