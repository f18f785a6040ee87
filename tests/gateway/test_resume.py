"""A client that is cut and comes back, over every transport and through Envoy: what it kept and what it then gets is the log."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest
from support.cutting_proxy import cutting_proxy
from support.gateway import Http
from support.git_server import GitServer
from support.treadle import Client, recording
from support.ways_in import STREAMS, Cut, Door, Events, Reader, whole

EVENTS = 300
WHOLE_EVERY = 10
CUTS = 60

transports = pytest.mark.parametrize("read", STREAMS.values(), ids=STREAMS.keys())


@pytest.fixture
def door(http: Http, treadle: tuple[Any, Client]) -> Door:
    return Door(http.address, treadle[1].key)


@pytest.fixture
def slow_session(git_server: GitServer) -> dict[str, str]:
    """A session that tells something every few milliseconds, for some seconds."""
    git_server.create("acme/long", {"r.jsonl": recording({"burst": EVENTS, "text": "x" * 40, "per_second": 60})})
    return {"repository_url": f"{git_server.url}/acme/long.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}


@pytest.mark.timeout(300)
@transports
async def test_cut_at_every_boundary(door: Door, treadle: tuple[Any, Client], git_server: GitServer, read: Reader) -> None:
    """A client that is cut after every single event of a session of 300, and comes back each time; now and then it stays to the end."""
    _, client = treadle
    git_server.create("acme/many", {"r.jsonl": recording(*[{"say": f"message {n}"} for n in range(EVENTS)])})
    events = await client.run(repository_url=f"{git_server.url}/acme/many.git", prompt="go", provider="replay", model="r.jsonl")
    session_id = events[0].session_id
    log = await client.log(session_id)
    assert len(log) >= EVENTS
    kept: Events = []
    while len(kept) < len(log):
        if len(kept) % WHOLE_EVERY == 0:
            assert kept + await whole(read, door, session_id, len(kept)) == log
        kept += await _next(read, door, session_id, len(kept))
    assert kept == log
    assert await whole(read, door, session_id, len(log)) == []


async def _next(read: Reader, door: Door, session_id: str, after_seq: int) -> Events:
    """One event more: then the client is gone, in mid-stream."""
    async with aclosing(read(door, session_id, after_seq)) as stream:
        async for events in stream:
            return events[:1]
    raise AssertionError(f"nothing came after {after_seq}")


@pytest.mark.timeout(300)
@transports
async def test_cut_in_the_middle_of_frames(door: Door, treadle: tuple[Any, Client], slow_session: dict[str, str], read: Reader) -> None:
    """A live session, and then the finished one, over connections that are cut at all sorts of bytes: in headers, lengths and events."""
    _, client = treadle
    stream = client.execute(**slow_session)
    session_id = (await anext(aiter(stream))).started.session_id
    stream.cancel()
    way = _Cut(read, session_id)
    async with cutting_proxy(door.address, way.limit) as proxy:
        through = Door(proxy.address, door.key)
        kept = await way.read_all(through)
        log = await client.log(session_id)
        assert kept == log
        while proxy.cuts < CUTS:
            assert await way.read_all(through) == log
    # gRPC keeps from its callers what was not complete; what came over its connections tells.
    inside = sum(map(_ends_inside_a_message, proxy.cut_answers)) if read is STREAMS["gRPC"] else way.inside
    assert inside >= CUTS // 3


def _ends_inside_a_message(answer: bytes) -> bool:
    """Of one gRPC call over an HTTP/2 connection of its own: a frame is three bytes of length, type, flags and four of stream
    (RFC 9113, 4.1); frames of the type 0 hold the messages, each behind a byte of flags and four of length."""
    data = b""
    while len(answer) > 9:
        end = 9 + int.from_bytes(answer[:3])
        data += answer[9:end] if answer[3] == 0 else b""
        answer = answer[end:]
    while len(data) >= 5 and len(data) >= (size := 5 + int.from_bytes(data[1:5])):
        data = data[size:]
    return bool(data)


class _Cut:
    """Reads through a proxy that cuts, and counts."""

    def __init__(self, read: Reader, session_id: str) -> None:
        self._read = read
        self._session_id = session_id
        self._cuts = self._stuck = 0
        self.inside = 0

    def limit(self) -> int:
        """Bytes until the next cut. What does not fit never becomes complete: without progress it gets more."""
        return (120 + self._cuts * 37 % 1500) << self._stuck

    async def read_all(self, through: Door) -> Events:
        """To the end, however often it is cut."""
        kept: Events = []
        self._stuck = 0  # what was too little for the last one's end would let all of the next one through, and never cut again
        while True:
            before = len(kept)
            try:
                async with aclosing(self._read(through, self._session_id, len(kept))) as frames:
                    async for events in frames:
                        kept += events
            except Cut as cut:
                self._cuts += 1
                self.inside += cut.inside
                self._stuck = 0 if len(kept) > before else min(self._stuck + 1, 8)
            else:
                return kept
