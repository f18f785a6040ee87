"""Clients that want the gateway's memory: strangers, and who has a key."""

from __future__ import annotations

import asyncio
import io
import json
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from support.gateway import ORIGIN, Http, control
from support.git_server import GitServer
from support.treadle import Client, error_info, recording
from support.ways_in import STREAMS, Door, digest, whole

from gateway.config import Gateway
from gateway.draining import open_requests
from server.embedded.gateway import embedded_gateway
from server.identity.authenticator import ApiKeyAuthenticator
from server.kernel.errors import StoreUnavailable
from treadle.file.v1 import file_service_pb2 as file_pb
from treadle.file.v1.file_service_pb2_grpc import FileServiceStub
from treadle.session.v1 import session_service_pb2 as session_pb

MIB = 1024 * 1024
CONNECTIONS = 60
HEAD = b"POST /v1/sessions:execute HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
TICKETED = "/treadle.session.v1.EventStreamService/StreamResume"


def memory(home: Path) -> int:
    """The most resident bytes that the Envoy which was started in `home` ever had."""
    (pid,) = [entry for entry in Path("/proc").glob("[0-9]*") if _is_envoy(entry, home)]
    return next(int(line.split()[1]) for line in (pid / "status").read_text().splitlines() if line.startswith("VmHWM")) * 1024


def _is_envoy(process: Path, home: Path) -> bool:
    try:
        return (process / "exe").readlink().name == "envoy" and str(home).encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False


async def ask(address: str, body: bytes, *, length: int, key: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A request with a body of which only the beginning is sent."""
    return await begin(address, key, b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % length + body)


async def begin(address: str, key: str, rest: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(HEAD + (f"authorization: Bearer {key}\r\n".encode() if key else b"") + rest)
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


async def test_unfinished_requests_hold_little_and_not_for_long(
    program: Path, http: Http, treadle: tuple[Any, Client], passable: Path
) -> None:
    key = treadle[1].key
    wanted = Gateway(listen="127.0.0.1:0", upstream=http.upstream, admin="", origins=(ORIGIN,), request_seconds=2)
    home = passable / "own"
    async with embedded_gateway(program, wanted, home) as address:
        before = memory(home)
        large = [await ask(address, b'{"prompt": "' + b"x" * (15 * MIB), length=16 * MIB - 1, key=key) for _ in range(CONNECTIONS)]
        async with asyncio.timeout(30):
            assert {await refused(*each) for each in large} <= {(413, "REQUEST_TOO_LARGE"), (408, "REQUEST_TOO_SLOW"), (0, "")}
        small = [await ask(address, b'{"prompt": "' + b"x" * MIB, length=MIB + 1000, key=key) for _ in range(CONNECTIONS)]
        begun = time.monotonic()
        async with asyncio.timeout(30):
            assert {await refused(*each) for each in small} == {(408, "REQUEST_TOO_SLOW")}
        assert time.monotonic() - begun < 20
        assert memory(home) - before < 400 * MIB


async def test_unfinished_requests_of_strangers_hold_next_to_nothing(program: Path, http: Http, passable: Path) -> None:
    wanted = Gateway(listen="127.0.0.1:0", upstream=http.upstream, admin="", request_seconds=2)
    home = passable / "own"
    async with embedded_gateway(program, wanted, home) as address:
        before = memory(home)
        held = [await ask(address, b'{"prompt": "' + b"x" * (15 * MIB), length=16 * MIB - 1) for _ in range(CONNECTIONS)]
        held += [await ask(address, b'{"prompt": "' + b"x" * 16_000, length=16_384) for _ in range(CONNECTIONS)]
        async with asyncio.timeout(30):
            told = {await refused(*each) for each in held}
        assert told <= {(401, "API_KEY_MISSING"), (408, "REQUEST_TOO_SLOW"), (0, "")}
        # Of some 900 MiB: what came in until the server had said whose it is, a piece of each.
        assert memory(home) - before < 2 * CONNECTIONS * MIB


async def test_an_upload_may_take_longer_than_a_request_may(
    program: Path, http: Http, treadle: tuple[Any, Client], repository: dict[str, str], passable: Path
) -> None:
    """Another request, begun later and never finished, tells that the time has passed."""
    _, client = treadle
    created = await client.call("CreateSession", session_pb.CreateSessionRequest(repository_url=repository["repositoryUrl"]))
    start = file_pb.UploadStart(session_id=created.session.session_id, path="big", size=3 * MIB)
    wanted = Gateway(listen="127.0.0.1:0", upstream=http.upstream, admin="", request_seconds=1)
    async with embedded_gateway(program, wanted, passable / "own") as address, grpc.aio.insecure_channel(address) as channel:
        async with asyncio.timeout(60):
            upload = FileServiceStub(channel).UploadFile(metadata=client.metadata)
            await upload.write(file_pb.UploadFileRequest(start=start))
            await upload.initial_metadata()
            for number in range(3):
                assert await refused(*await ask(address, b"{", length=9, key=client.key)) == (408, "REQUEST_TOO_SLOW")
                await upload.write(file_pb.UploadFileRequest(data=bytes([number]) * MIB))
            await upload.done_writing()
            assert (await upload).file.file.size == 3 * MIB


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
        held = [await ask(address, b'{"prompt": "' + b"x" * (8 * MIB), length=9 * MIB, key=treadle[1].key) for _ in range(30)]
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


@pytest.mark.parametrize(("key", "reason"), [("", "API_KEY_MISSING"), ("trd_aaaaaaaa_" + "A" * 43, "API_KEY_INVALID")])
@pytest.mark.parametrize("length", [b"content-length: 1000000", b"transfer-encoding: chunked"], ids=["announced", "chunked"])
async def test_of_a_strangers_large_body_nothing_is_awaited(http: Http, key: str, reason: str, length: bytes) -> None:
    reader, writer = await begin(http.address, key, length + b"\r\n\r\n")
    async with asyncio.timeout(20):
        assert await refused(reader, writer) == (401, reason)


async def test_while_nobody_can_tell_who_calls_a_large_body_is_told_to_come_again(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unavailable(*_: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(ApiKeyAuthenticator, "authenticate", unavailable)
    async with http.session.post(http.base + "/v1/sessions", data=b" " * 100_000) as answer:
        assert (answer.status, (await answer.json())["details"][0]["reason"]) == (503, "SERVER_UNREACHABLE")


@pytest.mark.parametrize(
    "path", ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", TICKETED]
)
async def test_where_no_key_is_asked_for_little_is_taken(http: Http, path: str) -> None:
    async with grpc.aio.insecure_channel(http.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary(path)(iter([b"\x0a\x80\x80\x01" + b"x" * 16384]), timeout=20)
    assert error_info(caught.value)[1] == "REQUEST_TOO_LARGE"
