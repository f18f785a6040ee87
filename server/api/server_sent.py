"""Frames as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), each in a google.api.HttpBody."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from server.api.streams import encode
from server.kernel.journal import Events, Frame, Idle
from treadle.session.v1 import session_service_pb2 as pb

CONTENT_TYPE = "text/event-stream"
INLINE_BYTES = 16 * 1024
"""A longer frame is written as JSON in a thread: a page of 256 KiB takes some 50 ms."""

_written: WeakKeyDictionary[Events, bytes] = WeakKeyDictionary()
_in_threads: WeakKeyDictionary[Events, asyncio.Task[bytes]] = WeakKeyDictionary()
"""A frame goes to all followers at the same place, and is written once for all of them: also while a thread is still at it."""


def opening(first: bytes) -> bytes:
    """The first message of a stream; it also says what the stream is. `first` is a ResumeResponse with `started`."""
    frame = pb.ResumeResponse.FromString(first)
    return _body(_block("started", frame.started), content_type=CONTENT_TYPE)


async def dress(frame: Frame) -> bytes:
    """A frame as one message with a block for each event."""
    if not isinstance(frame, Events):
        return _body(_notice(frame))
    done = _written.get(frame)
    if done is None:
        done = _written[frame] = await _in_a_thread(frame) if len(frame.frame) > INLINE_BYTES else _events(frame.frame)
    return done


async def _in_a_thread(frame: Events) -> bytes:
    writing = _in_threads.get(frame)
    if writing is None:
        writing = _in_threads[frame] = asyncio.create_task(asyncio.to_thread(_events, frame.frame), name="server-sent frame")
    # A follower that leaves takes it from nobody.
    return await asyncio.shield(writing)


def failure(status: Status) -> bytes:
    """The last message of a stream that fails after it began: over HTTP/1.1 nothing else would tell."""
    return _body(_block("error", status))


def _events(frame: bytes) -> bytes:
    found = pb.ResumeResponse.FromString(frame).events.events
    return _body(b"".join([b"id: %d\n" % event.seq + _block(event.WhichOneof("body") or "unknown", event) for event in found]))


def _notice(frame: Frame) -> bytes:
    if isinstance(frame, Idle):
        return b": heartbeat\n\n"
    told = pb.ResumeResponse.FromString(encode(frame))
    kind = told.WhichOneof("frame")
    return _block(kind, getattr(told, kind))


def _body(data: bytes, *, content_type: str = "") -> bytes:
    return bytes(HttpBody(content_type=content_type, data=data).SerializeToString())


def _block(kind: str, message: Message) -> bytes:
    # JSON without indentation holds no line break: one data line.
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), MessageToJson(message, indent=None, ensure_ascii=False).encode())
