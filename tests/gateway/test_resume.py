"""A client that is cut and comes back, over every transport and through Envoy: what it kept and what it then gets is the log."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from support.cutting_proxy import cutting_proxy
from support.gateway import Http
from support.git_server import GitServer
from support.treadle import Client, recording
from support.ways_in import STREAMS, Cut, Door, Events, Reader, whole

EVENTS = 300
AT_ONCE = 4

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
    """Of a session of 300 events a client has kept any number when it is cut."""
    _, client = treadle
    git_server.create("acme/many", {"r.jsonl": recording(*[{"say": f"message {n}"} for n in range(EVENTS)])})
    events = await client.run(repository_url=f"{git_server.url}/acme/many.git", prompt="go", provider="replay", model="r.jsonl")
    session_id = events[0].session_id
    log = await client.log(session_id)
    assert len(log) >= EVENTS
    free = asyncio.Semaphore(AT_ONCE)

    async def cut_at(boundary: int) -> None:
        async with free:
            kept = await _first(read, door, session_id, boundary)
            assert len(kept) == boundary
            assert kept + await whole(read, door, session_id, boundary) == log

    async with asyncio.TaskGroup() as group:
        for boundary in range(len(log) + 1):
            group.create_task(cut_at(boundary))


async def _first(read: Reader, door: Door, session_id: str, count: int) -> Events:
    """Leaves in mid-stream, with so many events in its hands."""
    kept: Events = []
    if count:
        async with aclosing(read(door, session_id, 0)) as stream:
            async for events in stream:
                kept += events
                if len(kept) >= count:
                    break
    return kept[:count]


@pytest.mark.timeout(300)
@transports
async def test_cut_in_the_middle_of_frames(door: Door, treadle: tuple[Any, Client], slow_session: dict[str, str], read: Reader) -> None:
    """A live session, followed over connections that are cut at all sorts of bytes: in headers, lengths, events and chunks."""
    _, client = treadle
    stream = client.execute(**slow_session)
    session_id = (await anext(aiter(stream))).started.session_id
    stream.cancel()
    kept: Events = []
    cuts = inside = stuck = 0

    def limit() -> int:
        # What does not fit never becomes complete: without progress it gets more.
        return (120 + cuts * 37 % 1500) << stuck

    async with cutting_proxy(door.address, limit) as proxy:
        through = Door(proxy.address, door.key)
        while True:
            before = len(kept)
            try:
                async with aclosing(read(through, session_id, len(kept))) as frames:
                    async for events in frames:
                        kept += events
            except Cut as cut:
                cuts += 1
                inside += cut.inside
                stuck = 0 if len(kept) > before else min(stuck + 1, 8)
            else:
                break
        assert proxy.cuts >= 50
    assert [event.seq for event in kept] == list(range(1, len(kept) + 1))
    assert kept == await client.log(session_id)
    assert read is STREAMS["gRPC"] or inside >= 20
