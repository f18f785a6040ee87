"""Clients without a key that want the gateway's memory."""

from __future__ import annotations

import asyncio
import io
import json
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.gateway import ORIGIN, Http, control
from support.git_server import GitServer
from support.treadle import Client, recording
from support.ways_in import STREAMS, Door, digest, whole

from gateway.config import Gateway
from gateway.draining import open_requests
from server.embedded.gateway import embedded_gateway

MIB = 1024 * 1024
CONNECTIONS = 60
HEAD = b"POST /v1/sessions:execute HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"


def memory(home: Path) -> int:
    """The most resident bytes that the Envoy which was started in `home` ever had."""
    (pid,) = [entry for entry in Path("/proc").glob("[0-9]*") if _is_envoy(entry, home)]
    return next(int(line.split()[1]) for line in (pid / "status").read_text().splitlines() if line.startswith("VmHWM")) * 1024


def _is_envoy(process: Path, home: Path) -> bool:
    try:
        return (process / "exe").readlink().name == "envoy" and str(home).encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False


async def ask(address: str, body: bytes, *, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request with a body of which only the beginning is sent."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % length + body)
    return reader, writer


async def refused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, str]:
    """(status, reason); ("", 0) when it was cut without a word, as it may be while it still sends."""
    try:
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)["details"][0]["reason"]
    except (ConnectionError, IndexError):
        return 0, ""
    finally:
        writer.close()


async def test_unfinished_requests_hold_little_and_not_for_long(program: Path, http: Http, passable: Path) -> None:
    wanted = Gateway(listen="127.0.0.1:0", upstream=http.upstream, admin="", origins=(ORIGIN,), request_seconds=2)
    home = passable / "own"
    async with embedded_gateway(program, wanted, home) as address:
        before = memory(home)
        large = [await ask(address, b'{"prompt": "' + b"x" * (15 * MIB), length=16 * MIB - 1) for _ in range(CONNECTIONS)]
        async with asyncio.timeout(30):
            assert {await refused(*each) for each in large} <= {(413, "REQUEST_TOO_LARGE"), (408, "REQUEST_TOO_SLOW"), (0, "")}
        small = [await ask(address, b'{"prompt": "' + b"x" * MIB, length=MIB + 1000) for _ in range(CONNECTIONS)]
        begun = time.monotonic()
        async with asyncio.timeout(30):
            assert {await refused(*each) for each in small} == {(408, "REQUEST_TOO_SLOW")}
        assert time.monotonic() - begun < 20
        assert memory(home) - before < 400 * MIB


async def test_the_longest_prompt_of_all_still_goes_through(http: Http, repository: dict[str, str]) -> None:
    """Each of its characters outside the first plane, and escaped: twelve bytes."""
    body = json.dumps(repository | {"prompt": "\U0001f6b2" * 100_000}).encode()
    assert len(body) > 1_200_000
    async with http.session.post(http.base + "/execute", data=io.BytesIO(body), headers={"content-type": "application/json"}) as answer:
        assert answer.status == 200
        assert http.blocks(await answer.text())[-1]["event"] == "closed"


async def overloaded(home: Path) -> bool:
    """Whether it lets nothing new in."""
    name = "overload.envoy.overload_actions.stop_accepting_requests.active"
    connector = aiohttp.UnixConnector(str(control(home)))
    async with aiohttp.ClientSession(connector=connector) as admin, admin.get(f"http://admin/stats?filter={name}") as answer:
        return (await answer.text()).strip() == f"{name}: 1"


async def test_at_the_limit_of_its_memory_it_lets_nothing_new_in_until_there_is_room(
    program: Path, http: Http, treadle: tuple[Any, Client], session: str, passable: Path
) -> None:
    wanted = Gateway(
        listen="127.0.0.1:0", upstream=http.upstream, admin="", max_json_bytes=16 * MIB, max_heap_bytes=160 * MIB, request_seconds=5
    )
    home = passable / "own"
    async with embedded_gateway(program, wanted, home) as address, asyncio.timeout(60):
        host, _, port = address.rpartition(":")
        early = await asyncio.open_connection(host, int(port))
        held = [await ask(address, b'{"prompt": "' + b"x" * (8 * MIB), length=9 * MIB) for _ in range(30)]
        while not await overloaded(home):
            await asyncio.sleep(0.02)
        early[1].write(HEAD + b"content-length: 0\r\n\r\n")
        assert await refused(*early) == (503, "SERVER_UNREACHABLE")
        await asyncio.gather(*(refused(*each) for each in held))
        while await overloaded(home):
            await asyncio.sleep(0.02)
        assert digest(await whole(STREAMS["SSE"], Door(address, treadle[1].key), session)) == digest(await treadle[1].log(session))


@pytest.fixture
async def session(treadle: tuple[Any, Client], git_server: GitServer) -> str:
    git_server.create("acme/big", {"r.jsonl": recording({"burst": 1000, "text": "x" * 20_000})})
    request = {"repository_url": f"{git_server.url}/acme/big.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}
    return (await treadle[1].run(**request))[0].session_id


async def test_a_stream_that_nobody_reads_is_given_up_and_a_silent_one_goes_on(
    program: Path, http: Http, treadle: tuple[Any, Client], session: str, git_server: GitServer, passable: Path
) -> None:
    """The server's heartbeats come each half second."""
    wanted = Gateway(listen="127.0.0.1:0", upstream=http.upstream, admin="", silent_seconds=2)
    git_server.create("acme/slow", {"r.jsonl": recording({"say": "waiting"}, {"wait_ms": 6000}, {"say": "done"})})
    home = passable / "own"
    async with embedded_gateway(program, wanted, home) as address:
        host, _, port = address.rpartition(":")
        lazy = await asyncio.open_connection(host, int(port), limit=1024)
        lazy[1].write(f"GET /resume?sessionId={session} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {treadle[1].key}\r\n\r\n".encode())
        request = {"repository_url": f"{git_server.url}/acme/slow.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}
        execution = treadle[1].execute(**request)
        silent = (await execution.read()).started.session_id
        async with aclosing(STREAMS["SSE"](Door(address, treadle[1].key), silent, 0)) as stream:
            assert [event async for events in stream for event in events] == await treadle[1].log(silent)
        execution.cancel()
        async with asyncio.timeout(20):
            while await open_requests(control(home)):
                await asyncio.sleep(0.05)
        lazy[1].close()
