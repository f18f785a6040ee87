"""Every way to read a session, as one function each: what differs is the wire, what comes out are the same events.

A reader is `async def read(door, session_id, after_seq)`, an async generator of lists of events, one list for what became complete at once.
It returns when the stream is complete, raises Cut when it was not, and Refused when the server said no. Add one to READERS, and the
tests of equal messages read through it too.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
import struct
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from support.requirements import require
from support.treadle import connected, error_info

from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb
from treadle_client import AsyncTreadle

RESUME = "/treadle.session.v1.SessionService/Resume"
TIMEOUT = aiohttp.ClientTimeout(total=100)
BACK_OFF_SECONDS = 0.05
COME_AGAIN = {"SHUTTING_DOWN", "STORE_UNAVAILABLE", "SERVER_UNREACHABLE", "SLOW_CONSUMER"}

Events = list[event_pb2.Event]


@dataclass(frozen=True)
class Door:
    """Where to go in, and with which key."""

    address: str
    """`host:port`."""
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


class Cut(Exception):
    """The stream ended before it was complete. `inside`: in the middle of a frame, as far as the reader can tell."""

    def __init__(self, why: str, *, inside: bool = False) -> None:
        super().__init__(why)
        self.inside = inside


class Refused(Exception):
    """The server said no, with a google.rpc.Status as JSON (or what a gRPC client makes of it)."""


Reader = Callable[[Door, str, int], AsyncGenerator[Events, None]]


def digest(events: Sequence[event_pb2.Event]) -> str:
    """SHA-256 over seq, kind and body of every event."""
    total = hashlib.sha256()
    for event in events:
        kind = event.WhichOneof("body") or ""
        body = getattr(event, kind).SerializeToString(deterministic=True)
        total.update(b"%d %s %d " % (event.seq, kind.encode(), len(body)) + body)
    return total.hexdigest()


def parse(data: Any) -> event_pb2.Event:
    """An event from its JSON form."""
    return json_format.ParseDict(data, event_pb2.Event())


@lru_cache(maxsize=4096)
def parse_text(data: bytes) -> event_pb2.Event:
    """The same, remembered: the tests read the same text hundreds of times."""
    return parse(json.loads(data))


async def whole(read: Reader, door: Door, session_id: str, after_seq: int = 0) -> Events:
    """All events of a complete stream."""
    async with aclosing(read(door, session_id, after_seq)) as stream:
        return [event async for events in stream for event in events]


async def grpc_reader(door: Door, session_id: str, after_seq: int) -> AsyncGenerator[Events, None]:
    """gRPC over HTTP/2."""
    async with connected(door.address, door.key) as client:
        closed = False
        try:
            async for frame in client.resume(session_id, after_seq):
                closed = frame.HasField("closed")
                if frame.events.events:
                    yield list(frame.events.events)
        except grpc.aio.AioRpcError as error:
            # Without a reason it is not the server who speaks: a proxy whose upstream died resets the stream, which gRPC calls INTERNAL.
            reason = error_info(error)[1]
            if reason and reason not in COME_AGAIN:
                raise
            raise Cut(reason or str(error.details())) from None
    if not closed:
        raise Cut("no closing frame")


@asynccontextmanager
async def _answer(door: Door, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = door.headers | options.pop("headers", {})
    try:
        async with (
            aiohttp.ClientSession(timeout=TIMEOUT, headers=headers) as session,
            session.request(method, f"http://{door.address}{path}", **options) as answer,
        ):
            if answer.status != 200:
                _refuse(await answer.json())
            yield answer
    except aiohttp.ClientConnectionError as error:
        raise Cut(repr(error)) from None


def _refuse(status: dict[str, Any]) -> None:
    reason = status["details"][0]["reason"]
    raise Cut(reason) if reason in COME_AGAIN else Refused(json.dumps(status))


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """What arrives, as it arrives; empty at the end of the answer, or where it was cut."""
    try:
        async for data in answer.content.iter_any():
            yield data
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
        return


async def sse_reader(door: Door, session_id: str, after_seq: int) -> AsyncGenerator[Events, None]:
    """Server-sent events, resumed by Last-Event-ID as EventSource does."""
    headers = {"last-event-id": str(after_seq)} if after_seq else {}
    async with _answer(door, "GET", f"/resume?sessionId={session_id}", headers=headers) as answer:
        assert answer.content_type == "text/event-stream"
        text = b""
        async for data in _pieces(answer):
            *blocks, text = (text + data).split(b"\n\n")
            found = []
            for block in blocks:
                fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":"))
                if b"id" in fields:
                    found.append(parse_text(fields[b"data"]))
                    assert (found[-1].seq, found[-1].WhichOneof("body")) == (int(fields[b"id"]), fields[b"event"].decode())
                elif fields.get(b"event") == b"error":
                    _refuse(json.loads(fields[b"data"]))
            if found:
                yield found
            if blocks and blocks[-1].startswith(b"event: closed"):
                return
        raise Cut("no closing block", inside=bool(text))


async def json_reader(door: Door, session_id: str, after_seq: int) -> AsyncGenerator[Events, None]:
    """One JSON object per line."""
    async with _answer(door, "GET", f"/v1/sessions/{session_id}:resume?afterSeq={after_seq}") as answer:
        assert answer.content_type == "application/jsonl"
        text, closed = b"", False
        async for data in _pieces(answer):
            *lines, text = (text + data).split(b"\n")
            frames = [json.loads(line) for line in lines if line]
            closed = closed or any("closed" in frame for frame in frames)
            yield [parse(event) for frame in frames for event in frame.get("events", {}).get("events", [])]
        if not closed:
            raise Cut("no closing frame", inside=bool(text))


async def grpc_web_reader(door: Door, session_id: str, after_seq: int) -> AsyncGenerator[Events, None]:
    """gRPC-web over HTTP/1.1."""
    request = pb.ResumeRequest(session_id=session_id, after_seq=after_seq)
    async with aclosing(grpc_web(door, RESUME, request, pb.ResumeResponse)) as frames:
        async for frame in frames:
            if frame.events.events:
                yield list(frame.events.events)


async def grpc_web(door: Door, path: str, request: Any, response: Any) -> AsyncGenerator[Any, None]:
    """Any call over gRPC-web: a byte of flags, four of length, the message; trailers are a last frame with the flag 0x80, or the headers
    (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md). Errors: Refused with the status, Cut without one."""
    body = request.SerializeToString()
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    async with _answer(door, "POST", path, data=b"\0" + struct.pack(">I", len(body)) + body, headers=headers) as answer:
        if "grpc-status" in answer.headers:
            _judge({name.lower(): value for name, value in answer.headers.items()})
        assert answer.content_type.startswith("application/grpc-web"), answer.content_type
        data = b""
        async for piece in _pieces(answer):
            data += piece
            while len(data) >= 5 and len(data) >= 5 + (size := struct.unpack(">I", data[1:5])[0]):
                frame, flags, data = data[5 : 5 + size], data[0], data[5 + size :]
                if flags & 0x80:
                    _judge(dict(line.replace(": ", ":").split(":", 1) for line in frame.decode().strip().split("\r\n")))
                    return
                yield response.FromString(frame)
        raise Cut("no trailers", inside=bool(data))


def _judge(trailers: dict[str, str]) -> None:
    if trailers["grpc-status"] == "0":
        return
    details = trailers.get("grpc-status-details-bin", "")
    status = Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
    assert str(status.code) == trailers["grpc-status"], trailers
    _refuse(json_format.MessageToDict(status))


async def grpcurl_reader(door: Door, session_id: str, after_seq: int) -> AsyncGenerator[Events, None]:
    """The program grpcurl, which learns the messages by reflection."""
    grpcurl = Path(sys.executable).with_name("grpcurl")
    request = json.dumps({"sessionId": session_id, "afterSeq": after_seq})
    key = f"authorization: {door.headers['authorization']}"
    out = await _printed(grpcurl, "-plaintext", "-H", key, "-d", request, door.address, RESUME.removeprefix("/"))
    decoder, text = json.JSONDecoder(), out.strip()
    while text:
        frame, end = decoder.raw_decode(text)
        text = text[end:].lstrip()
        yield [parse(event) for event in frame.get("events", {}).get("events", [])]


async def curl_reader(door: Door, session_id: str, after_seq: int) -> AsyncGenerator[Events, None]:
    """The program curl, with JSON lines."""
    require(shutil.which("curl"), "curl", "apt-get install curl")
    url = f"http://{door.address}/v1/sessions/{session_id}:resume?afterSeq={after_seq}"
    out = await _printed("curl", "--silent", "--show-error", "--fail", "-H", f"authorization: {door.headers['authorization']}", url)
    frames = [json.loads(line) for line in out.splitlines()]
    assert "closed" in frames[-1]
    yield [parse(event) for frame in frames for event in frame.get("events", {}).get("events", [])]


async def python_reader(door: Door, session_id: str, after_seq: int) -> AsyncGenerator[Events, None]:
    """The Python client, which comes back by itself: it never raises Cut."""
    async with AsyncTreadle(door.address, door.key) as treadle:
        async for event in treadle.resume(session_id, after_seq=after_seq):
            yield [event.proto]


async def _printed(*command: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, command[0]
    return out.decode()


STREAMS: dict[str, Reader] = {"gRPC": grpc_reader, "gRPC-web": grpc_web_reader, "SSE": sse_reader}
"""The transports that clients resume over."""
READERS: dict[str, Reader] = STREAMS | {"JSON lines": json_reader, "grpcurl": grpcurl_reader, "curl": curl_reader, "Python": python_reader}
