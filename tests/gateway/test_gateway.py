"""What the gateway itself does: limits, its own replies in every client's form, TLS, and how it stops."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from support.gateway import ORIGIN, Http, own_certificate
from support.treadle import Client, connected, error_info
from support.ways_in import READERS, Cut, Door, Refused, grpc_web, whole
from yarl import URL

from gateway.config import Gateway
from server.api.keyless import REFLECTIONS_OF_ONE
from server.embedded.gateway import embedded_gateway
from server.kernel.sessions import Sessions
from treadle.session.v1 import session_service_pb2 as pb

NOBODY = "127.0.0.1:9"
GET = "/treadle.session.v1.SessionService/GetSession"


@pytest.fixture
def gateway(program: Path, passable: Path) -> Any:
    """Makes a gateway with given settings."""

    @asynccontextmanager
    async def make(upstream: str, drain_seconds: float = 5.0, **settings: Any) -> AsyncIterator[str]:
        wanted = Gateway(listen="127.0.0.1:0", upstream=upstream, admin="", origins=(ORIGIN,), **settings)
        async with embedded_gateway(program, wanted, passable / "own", drain_seconds=drain_seconds) as address:
            yield address

    return make


async def _json(address: str, path: str = "/v1/sessions", **options: Any) -> tuple[int, str]:
    """(status, reason) of a refused HTTP request."""
    options = {"method": "GET"} | options
    async with aiohttp.ClientSession() as session, session.request(url=URL(f"http://{address}{path}", encoded=True), **options) as answer:
        assert answer.content_type == "application/json", await answer.text()
        told = await answer.json()
    assert told["message"]
    assert told["details"][0]["domain"] == "treadle"
    return answer.status, told["details"][0]["reason"]


async def _grpc(address: str, request: Any = None, key: str = "trd_x") -> tuple[grpc.StatusCode, str]:
    async with connected(address, key) as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call("GetSession", request or pb.GetSessionRequest(session_id="x"))
    assert "{" not in (caught.value.details() or "")
    return error_info(caught.value)[:2]


async def _web(address: str, request: Any = None) -> tuple[int, str]:
    with pytest.raises((Refused, Cut)) as caught:
        async for _ in grpc_web(Door(address, "trd_x"), GET, request or pb.GetSessionRequest(session_id="x"), pb.GetSessionResponse):
            pass
    if isinstance(caught.value, Cut):
        return 14, str(caught.value)
    status = json.loads(str(caught.value))
    return status["code"], status["details"][0]["reason"]


async def test_without_a_server_every_client_is_told_so_in_its_own_form(gateway: Any) -> None:
    async with gateway(NOBODY) as address:
        assert await _json(address) == (503, "SERVER_UNREACHABLE")
        assert await _json(address, "/resume?sessionId=x") == (503, "SERVER_UNREACHABLE")
        assert await _grpc(address) == (grpc.StatusCode.UNAVAILABLE, "SERVER_UNREACHABLE")
        assert await _web(address) == (14, "SERVER_UNREACHABLE")


async def test_too_many_requests_are_refused_to_every_client_in_its_own_form(gateway: Any) -> None:
    async with gateway(NOBODY, requests_per_second=1) as address:
        async with aiohttp.ClientSession() as session:
            for _ in range(2):  # the burst
                async with session.get(f"http://{address}/v1/sessions") as answer:
                    assert answer.status == 503
            async with session.get(f"http://{address}/v1/sessions") as answer:
                assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        # A second brings one more, which one of these may get; two of them in a row never do.
        for ask, refusal in (
            (_json, (429, "RATE_LIMITED")),
            (_grpc, (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")),
            (_web, (8, "RATE_LIMITED")),
        ):
            assert refusal in [await ask(address) for _ in range(3)]


async def test_a_client_who_asks_too_much_takes_nothing_from_others(gateway: Any, http: Http, treadle: tuple[Any, Client]) -> None:
    """A stranger without a key floods; who has one, and comes from elsewhere, is served all the while."""
    stranger = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with gateway(http.upstream, client_requests_per_second=20) as address, aiohttp.ClientSession(connector=stranger) as session:

        async def refused() -> bool:
            async with session.get(f"http://{address}/v1/sessions") as answer:
                return answer.status == 429

        while not await refused():
            pass
        for _ in range(10):
            answers = await asyncio.gather(*(refused() for _ in range(50)))
            assert sum(answers) > 25
            async with http.session.get(f"http://{address}/v1/sessions") as answer:
                assert answer.status == 200, await answer.text()


async def test_whoever_holds_reflections_holds_no_others_back(http: Http) -> None:
    """It is known by where the gateway sees it, whatever it claims."""
    question = ServerReflectionRequest(list_services="")
    async with grpc.aio.insecure_channel(http.address) as channel:
        held = []
        for number in range(REFLECTIONS_OF_ONE + 1):
            call = ServerReflectionStub(channel).ServerReflectionInfo(metadata=(("x-forwarded-for", f"192.0.2.{number}"),))
            await call.write(question)
            held.append(call)
        answers = [await call.read() for call in held[:-1]]
        assert all(answer.HasField("list_services_response") for answer in answers)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await held[-1].read()
        assert error_info(caught.value)[1] == "TOO_MANY_STREAMS"
        for call in held:
            call.cancel()


async def test_what_is_too_large_is_refused_to_every_client_in_its_own_form(gateway: Any, http: Http) -> None:
    async with gateway(http.upstream, max_request_bytes=100_000) as address:
        big = pb.GetSessionRequest(session_id="x" * 200_000)
        assert await _json(address, "/execute", method="POST", data=b"x" * 200_000) == (413, "REQUEST_TOO_LARGE")
        assert (await _grpc(address, big))[1] == "REQUEST_TOO_LARGE"
        assert await _web(address, big) == (3, "REQUEST_TOO_LARGE")


@pytest.mark.parametrize("size", [17, 20, 31])
async def test_what_is_too_large_is_told_by_whoever_sees_it_first(http: Http, treadle: tuple[Any, Client], size: int) -> None:
    """With the limits as they are shipped: the server refuses what the gateway still lets through, and what comes without it."""
    for address in (http.address, treadle[1].address):
        assert (await _grpc(address, pb.GetSessionRequest(session_id="x" * (size << 20)), key=treadle[1].key))[1] == "REQUEST_TOO_LARGE"


async def test_what_nobody_serves_is_told_with_a_reason(http: Http, treadle: tuple[Any, Client]) -> None:
    unknown = (grpc.StatusCode.UNIMPLEMENTED, "ROUTE_UNKNOWN")
    for address in (http.address, treadle[1].address):
        async with connected(address, treadle[1].key) as client:
            for path in ("/treadle.session.v1.SessionService/Nothing", "/treadle.worker.v1.WorkerService/Handshake", "/execute"):
                for call in (client.channel.unary_unary(path), client.channel.stream_unary(path)):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await call(b"" if isinstance(call, grpc.aio.UnaryUnaryMultiCallable) else iter([b""]), metadata=client.metadata)
                    assert error_info(caught.value)[:2] == unknown, (address, path)
    with pytest.raises(Refused) as refused:
        async for _ in grpc_web(Door(http.address, "trd_x"), "/execute", pb.GetSessionRequest(), pb.GetSessionResponse):
            pass
    assert json.loads(str(refused.value))["details"][0]["reason"] == "ROUTE_UNKNOWN"


async def test_what_is_not_spoken_here_is_refused_for_what_it_is(http: Http) -> None:
    socket = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert await _json(http.address, headers=socket) == (403, "UPGRADE_REFUSED")
    assert await _json(http.address, "/v1/sessions%2Fx") == (400, "REQUEST_MALFORMED")


async def test_headers_have_limits(http: Http) -> None:
    for headers in ({"x-large": "x" * 40_000}, {f"x-{n}": "x" for n in range(120)}):
        async with http.session.get(http.base + "/v1/sessions", headers=headers) as answer:
            assert (answer.status, (await answer.json())["details"][0]["reason"]) == (431, "REQUEST_TOO_LARGE")
    async with http.session.get(http.base + "/v1/sessions", headers={"x_user": "1"}) as answer:
        assert answer.status == 400


async def test_nobody_can_vouch_for_a_user_by_a_header(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    from server.api import edge

    seen: list[dict[str, Any]] = []
    original = edge.api_key

    def looking(context: Any) -> str:
        seen.append(dict(context.invocation_metadata()))
        return original(context)

    monkeypatch.setattr(edge, "api_key", looking)
    claims = {"x-user-id": "root", "X-Forwarded-User": "root", "x-tenant-id": "other", "x-remote-user": "root"}
    async with http.session.get(http.base + "/v1/sessions", headers=claims | {"x-mine": "yes"}) as answer:
        assert answer.status == 200
    assert seen[0]["x-mine"] == "yes"
    assert not {name.lower() for name in claims} & set(seen[0])


async def test_a_defect_of_the_server_shows_nothing_of_it(http: Http, through: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("kaboom in /srv/secret.py")

    monkeypatch.setattr(Sessions, "get", broken)
    async with http.session.get(http.base + "/v1/sessions/x") as answer:
        text = await answer.text()
        assert answer.status == 500
    assert "kaboom" not in text
    assert "secret" not in text
    info = json.loads(text)["details"][0]
    assert (info["reason"], list(info["metadata"])) == ("INTERNAL", ["error_id"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await through.call("GetSession", pb.GetSessionRequest(session_id="x"))
    assert error_info(caught.value)[1] == "INTERNAL"
    assert "kaboom" not in repr(caught.value)


async def test_a_defect_in_mid_stream_ends_it_with_a_word(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> Any:
        async def frames() -> AsyncIterator[Any]:
            raise RuntimeError("kaboom")
            yield

        return frames()

    monkeypatch.setattr(Sessions, "follow", broken)
    async with http.session.get(http.base + "/resume?sessionId=x") as answer:
        blocks = http.blocks(await answer.text())
    assert [block["event"] for block in blocks] == ["started", "error"]
    assert json.loads(blocks[-1]["data"])["details"][0]["reason"] == "INTERNAL"
    assert "kaboom" not in str(blocks)


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"], ids=["tag", "short", "utf-8"])
async def test_bytes_that_are_no_message_are_refused_with_a_reason(treadle: tuple[Any, Client], data: bytes) -> None:
    _, client = treadle
    for method in ("GetSession", "Resume"):
        kind = client.channel.unary_stream if method == "Resume" else client.channel.unary_unary
        call = kind(f"/treadle.session.v1.SessionService/{method}")(data, metadata=client.metadata, timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call.read() if method == "Resume" else call)
        assert error_info(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED"), caught.value


async def test_a_watcher_of_health_may_hear_nothing_for_long(gateway: Any, http: Http, treadle: tuple[Any, Client]) -> None:
    """Here a reflection, which is cut after two seconds of silence, tells that the time has passed."""
    async with gateway(http.upstream, silent_seconds=2) as address, grpc.aio.insecure_channel(address) as channel, asyncio.timeout(30):
        watcher = HealthStub(channel).Watch(HealthCheckRequest())
        assert (await watcher.read()).status == HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError):
            await ServerReflectionStub(channel).ServerReflectionInfo().read()
        draining = asyncio.create_task(treadle[0].api.drain())
        assert (await watcher.read()).status == HealthCheckResponse.NOT_SERVING
        assert await watcher.read() == grpc.aio.EOF
        await draining


async def test_tls_with_http2_and_http1(gateway: Any, http: Http, treadle: tuple[Any, Client], tmp_path: Path) -> None:
    certificate, key = await own_certificate(tmp_path)
    async with gateway(http.upstream, tls_certificate=certificate, tls_key=key) as address:
        host, _, port = address.rpartition(":")
        trust = ssl.create_default_context(cafile=certificate)
        trust.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection(host, int(port), ssl=trust)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        assert writer.get_extra_info("ssl_object").version() in ("TLSv1.3", "TLSv1.2")
        writer.close()
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        async with grpc.aio.secure_channel(address, credentials) as channel:
            listing = channel.unary_unary("/treadle.session.v1.SessionService/ListSessions")
            assert await listing(b"", metadata=treadle[1].metadata, timeout=20) == b""
        async with http.session.get(f"https://{address}/v1/sessions", ssl=ssl.create_default_context(cafile=certificate)) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.session.get(f"http://{address}/v1/sessions")


async def test_a_gateway_that_stops_lets_live_streams_finish(
    gateway: Any, http: Http, treadle: tuple[Any, Client], repository: dict[str, str]
) -> None:
    """It is told to stop while a stream is open: the stream goes on to its end, and only then Envoy goes."""
    context = gateway(http.upstream, drain_seconds=60)
    address = await context.__aenter__()
    async with http.session.post(f"http://{address}/execute", json=repository) as answer:
        first = await answer.content.readany()
        stopping = asyncio.create_task(context.__aexit__(None, None, None))
        blocks = http.blocks((first + await answer.read()).decode())
    assert blocks[-1]["event"] == "closed"
    await stopping
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.session.get(f"http://{address}/v1/sessions")
    session_id = json.loads(blocks[0]["data"])["sessionId"]
    assert len(await whole(READERS["gRPC"], Door(treadle[1].address, treadle[1].key), session_id)) == len([b for b in blocks if "id" in b])


async def test_a_full_queue_of_long_inputs_can_be_listed(http: Http, treadle: tuple[Any, Client], repository: dict[str, str]) -> None:
    """As JSON each of these characters takes six bytes."""
    _, client = treadle
    fields = {"repository_url": repository["repositoryUrl"], "prompt": "go", "provider": "replay", "model": "slow.jsonl"}
    stream = client.execute(**fields)
    session_id = ""
    while not session_id:
        frame = await stream.read()
        session_id = frame.events.events[0].session_id if frame.events.events else ""
    for number in range(15):
        await client.call("SendInput", pb.SendInputRequest(session_id=session_id, text=f"{number:02}" + "\x01" * 99_998))
    found, token = [], ""
    while token or not found:
        async with http.session.get(f"{http.base}/v1/sessions/{session_id}/inputs?page_size=200&page_token={token}") as answer:
            page = await answer.json()
            assert answer.status == 200, page
        found += [int(each["text"][:2]) for each in page["inputs"]]
        token = page.get("nextPageToken", "")
    assert found == [*range(15)]
    stream.cancel()
    await client.call("Interrupt", pb.InterruptRequest(session_id=session_id))


METHODS = [
    ("GET", "/execute", "POST"),
    ("HEAD", "/resume", "GET"),
    ("PUT", "/v1/sessions", "GET, POST"),
    ("POST", "/v1/sessions/x", "DELETE, GET, PATCH"),
    ("OPTIONS", "/v1/sessions/x/events?page_size=1", "GET"),
    ("DELETE", "/v1/sessions/x:resume", "GET"),
    ("GET", "/v1/sessions/x:interrupt", "POST"),
    ("GET", "/v1/sessions/x/requests/y:resolve", "POST"),
    ("GET", "/v1/sessions:execute/", "POST"),
]


@pytest.mark.parametrize(("method", "path", "allowed"), METHODS)
async def test_a_path_with_other_methods_names_them(http: Http, method: str, path: str, allowed: str) -> None:
    async with http.session.request(method, http.base + path) as answer:
        assert (answer.status, answer.headers.get("allow"), answer.content_type) == (405, allowed, "application/json")
        if method != "HEAD":
            told = await answer.json()
            assert (told["code"], told["details"][0]["reason"]) == (12, "METHOD_NOT_ALLOWED")


async def test_where_nothing_is_no_method_helps(http: Http) -> None:
    for path in ("/nothing", "/v1/sessions/x/nothing", "/v1/sessions:nothing"):
        for method in ("GET", "POST", "PUT", "OPTIONS"):
            assert await _json(http.address, path, method=method) == (404, "ROUTE_UNKNOWN"), (method, path)
    assert await _json(http.address, "/v1/sessions/x:interupt", method="POST") == (404, "ROUTE_UNKNOWN")


@pytest.mark.parametrize("path", ["/v1/sessions", "/execute", GET])
async def test_a_page_that_may_not_call_is_told_so_before_it_does(http: Http, path: str) -> None:
    asking = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    foreign = asking | {"origin": "https://evil.example.org"}
    async with http.session.options(http.base + path, headers=foreign) as answer:
        assert answer.status == 403
        assert (await answer.json())["details"][0]["reason"] == "ORIGIN_NOT_ALLOWED"
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    async with http.session.options(http.base + path, headers=asking | {"origin": ORIGIN}) as answer:
        assert (answer.status, answer.headers.get("access-control-allow-origin")) == (200, ORIGIN), await answer.text()


async def test_an_answer_that_cannot_be_turned_into_json_is_a_defect(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask for it again does not help, which is what 502 and UNAVAILABLE say."""

    async def broken(*_: object, **__: object) -> tuple[bytes, int]:
        return b"\x0a\x05ab", 1

    monkeypatch.setattr(Sessions, "events", broken)
    async with http.session.get(http.base + "/v1/sessions/x/events") as answer:
        told = await answer.json()
    assert (answer.status, told["code"], told["details"][0]["reason"]) == (500, 13, "ANSWER_UNREADABLE")
