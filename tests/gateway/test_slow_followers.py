"""Followers that do not read: each is told, or at least ended, and comes back to a whole log; the others do not notice."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY
from support.gateway import Http
from support.git_server import GitServer
from support.treadle import Client, in_process, recording, settings_for
from support.ways_in import STREAMS, Door, digest, whole

from server.api import streams
from server.embedded.postgres_home import DatabaseUrls

WRITE_SECONDS = 1.0


@pytest.fixture
async def treadle(database: DatabaseUrls, server_data_dir: Any, git_server: GitServer) -> AsyncIterator[tuple[Any, Client]]:
    settings = settings_for(database, server_data_dir, git_server, heartbeat_seconds=0.5, write_timeout_seconds=WRITE_SECONDS)
    async with in_process(settings) as both:
        yield both


@pytest.fixture
async def session_id(treadle: tuple[Any, Client], git_server: GitServer) -> str:
    """A session whose log, 20 MB, fits into no buffer on the way."""
    git_server.create("acme/big", {"r.jsonl": recording({"burst": 1000, "text": "x" * 20_000})})
    request = {"repository_url": f"{git_server.url}/acme/big.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}
    return (await treadle[1].run(**request))[0].session_id


class Lazy:
    """An HTTP client that has asked, and then does nothing."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def rest(self) -> bytes:
        """The body, without its chunks' lengths, to the end that the server gave it."""
        data = bytearray()
        async with asyncio.timeout(30):
            while not data.endswith(b"\r\n0\r\n\r\n"):
                piece = await asyncio.get_running_loop().sock_recv(self._connection, 1 << 20)
                assert piece, "cut without an end"
                data += piece
        head, _, body = bytes(data).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        chunks, at = [], 0
        while at < len(body):
            begin = body.index(b"\r\n", at) + 2
            at = begin + int(body[at : begin - 2], 16) + 2
            chunks.append(body[begin : at - 2])
        return b"".join(chunks)


@asynccontextmanager
async def lazy(door: Door, path: str) -> AsyncIterator[Lazy]:
    host, _, port = door.address.rpartition(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        connection.connect((host, int(port)))
        connection.setblocking(False)
        key = door.headers["authorization"]
        connection.send(f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\n\r\n".encode())
        yield Lazy(connection)


def given_up(method: str) -> float:
    return REGISTRY.get_sample_value("treadle_calls_total", {"method": method, "code": "RESOURCE_EXHAUSTED"}) or 0.0


async def until_given_up(method: str, before: float, count: int = 1) -> None:
    async with asyncio.timeout(60):
        while given_up(method) < before + count:
            await asyncio.sleep(0.05)


@pytest.fixture
def door(http: Http, treadle: tuple[Any, Client]) -> Door:
    return Door(http.address, treadle[1].key)


async def test_a_server_sent_stream_that_is_not_read_comes_to_its_end(
    door: Door, treadle: tuple[Any, Client], session_id: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "LAST_WORD_SECONDS", 0.5)
    before = given_up("StreamResume")
    async with lazy(door, f"/resume?sessionId={session_id}") as client:
        await until_given_up("StreamResume", before)
        blocks = Http.blocks((await client.rest()).decode())
    assert "closed" not in [block["event"] for block in blocks]
    seen = [int(block["id"]) for block in blocks if "id" in block]
    assert seen == list(range(1, len(seen) + 1))
    rest = await whole(STREAMS["SSE"], door, session_id, seen[-1])
    assert [event.seq for event in rest] == list(range(seen[-1] + 1, (await treadle[1].log(session_id))[-1].seq + 1))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_one_that_is_read_again_soon_is_told_why_it_ends(
    door: Door, session_id: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "LAST_WORD_SECONDS", 60)
    async with lazy(door, f"/resume?sessionId={session_id}") as client:
        await asyncio.sleep(WRITE_SECONDS * 3)  # it is time itself that passes here
        blocks = Http.blocks((await client.rest()).decode())
    told = json.loads(blocks[-1]["data"])["details"][0]
    assert (blocks[-1]["event"], told["reason"]) == ("error", "SLOW_CONSUMER")
    assert told["metadata"]["after_seq"] == [block["id"] for block in blocks if "id" in block][-1]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_json_lines_that_are_not_read_end_without_a_line_that_says_closed(
    door: Door, session_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LAST_WORD_SECONDS", 0.5)
    before = given_up("Resume")
    async with lazy(door, f"/v1/sessions/{session_id}:resume") as client:
        await until_given_up("Resume", before)
        frames = [json.loads(line) for line in (await client.rest()).splitlines()]
    assert not [frame for frame in frames if "closed" in frame]


async def test_those_that_read_do_not_wait_for_those_that_do_not(door: Door, treadle: tuple[Any, Client], session_id: str) -> None:
    """All of them share one connection between Envoy and the server."""
    log = digest(await treadle[1].log(session_id))
    async with asyncio.timeout(60):
        stalled = [lazy(door, f"/resume?sessionId={session_id}") for _ in range(30)]
        for each in stalled:
            await each.__aenter__()
        try:
            for read in STREAMS.values():
                assert digest(await whole(read, door, session_id)) == log
        finally:
            for each in stalled:
                await each.__aexit__(None, None, None)
