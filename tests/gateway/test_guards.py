"""What the gateway's configuration guards against: each test fails when its line is taken out or weakened."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from support.gateway import Http, own_certificate
from support.tcp_gate import tcp_gate
from support.treadle import Client, connected
from yarl import URL

from gateway.config import Gateway
from server.embedded.gateway import embedded_gateway
from server.kernel.errors import StoreUnavailable
from server.kernel.sessions import Sessions
from treadle.session.v1 import session_service_pb2 as pb

Make = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture
def gateway(program: Path, passable: Path) -> Make:
    """Makes a gateway with given settings, in `passable / "own"`."""

    @asynccontextmanager
    async def make(upstream: str, **settings: Any) -> AsyncIterator[str]:
        wanted = Gateway(listen="127.0.0.1:0", upstream=upstream, admin="", **settings)
        async with embedded_gateway(program, wanted, passable / "own") as address:
            yield address

    return make


async def test_a_change_that_has_reached_the_server_is_not_sent_twice(
    gateway: Make, treadle: tuple[Any, Client], repository: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection dies after the server has the request, and the server says that a bare retry is right: the client's to decide."""
    _, client = treadle
    arrived: list[str] = []
    async with tcp_gate(int(client.address.rpartition(":")[2])) as tcp:

        async def create(_: Sessions, __: Any, request: Any) -> Any:
            arrived.append(request.title)
            if request.title == "dies":
                await tcp.hang_up()
            raise StoreUnavailable

        monkeypatch.setattr(Sessions, "create", create)
        async with gateway(f"127.0.0.1:{tcp.port}") as address, aiohttp.ClientSession(headers=dict(client.metadata)) as session:
            for title in ("dies", "refused"):
                wanted = {"repositoryUrl": repository["repositoryUrl"], "title": title}
                async with session.post(f"http://{address}/v1/sessions", json=wanted) as answer:
                    assert answer.status == 503
                assert arrived == [title]
                arrived.clear()
                async with connected(address, client.key) as through:
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await through.call("CreateSession", pb.CreateSessionRequest(title=title))
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert arrived == [title]
                arrived.clear()


async def test_a_server_that_drains_gets_no_new_call(http: Http, treadle: tuple[Any, Client]) -> None:
    """It says so to health checks; it would still answer."""
    server, client = treadle
    async with http.session.get(http.base + "/v1/sessions") as answer:
        assert answer.status == 200
    await server.api.drain()
    async with asyncio.timeout(20):
        while answer.status == 200:
            await asyncio.sleep(0.05)
            async with http.session.get(http.base + "/v1/sessions") as answer:
                pass
    async with http.session.get(http.base + "/v1/sessions") as answer:
        assert (answer.status, (await answer.json())["details"][0]["reason"]) == (503, "SERVER_UNREACHABLE")
    await client.call("ListSessions", pb.ListSessionsRequest())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
async def test_old_tls_is_refused(gateway: Make, http: Http, tmp_path: Path) -> None:
    certificate, key = await own_certificate(tmp_path)
    old = ssl.create_default_context(cafile=certificate)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    async with gateway(http.upstream, tls_certificate=certificate, tls_key=key) as address:
        host, _, port = address.rpartition(":")
        # The alert is the gateway's: this client was willing.
        with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
            await asyncio.open_connection(host, int(port), ssl=old)


async def test_only_its_own_user_controls_envoy(http: Http) -> None:
    control = http.home / "run" / "admin.sock"
    assert stat.S_IMODE(control.stat().st_mode) == 0o600
    assert stat.S_IMODE(control.parent.stat().st_mode) == 0o700


async def test_connections_are_bounded(gateway: Make, http: Http) -> None:
    async with gateway(http.upstream, max_connections=2) as address, asyncio.timeout(20):
        host, _, port = address.rpartition(":")
        request = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n"

        async def answered() -> tuple[bytes, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(request)
            try:
                return await reader.read(12), writer
            except ConnectionError:
                return b"", writer

        # Until Envoy has seen the end of the connection that found it ready.
        while (held := [await answered() for _ in range(2)])[1][0] != b"HTTP/1.1 404":
            for _, writer in held:
                writer.close()
        said, late = await answered()
        assert said == b""
        for writer in (late, *(writer for _, writer in held)):
            writer.close()


async def test_strangers_hold_few_deliveries_and_none_for_long(gateway: Make, http: Http) -> None:
    """Unfinished ones: the gateway cannot know whose they are before they are whole."""

    async def unfinished(address: str, source: str) -> int:
        reader, writer = await asyncio.open_connection(*address.split(":"), local_addr=(source, 0))
        try:
            writer.write(
                b"POST /v1/webhooks/github HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900000\r\n\r\n{"
            )
            return int((await reader.readline()).split()[1])
        finally:
            writer.close()

    async with gateway(http.upstream, webhooks_per_second=4, webhook_seconds=2) as address, asyncio.timeout(20):
        started = asyncio.get_running_loop().time()
        one = [asyncio.create_task(unfinished(address, "127.0.0.1")) for _ in range(20)]
        # What it may have for a moment, then half as many in a second; all others are turned away at once.
        await asyncio.wait(one, return_when=asyncio.FIRST_COMPLETED)
        refused = [task for task in one if task.done()]
        assert {task.result() for task in refused} == {429}
        # An address has its own limit, which takes nothing from others.
        other = asyncio.create_task(unfinished(address, "127.0.0.2"))
        answers = await asyncio.gather(*one)
        assert 4 <= answers.count(408) <= 6
        assert answers.count(408) + answers.count(429) == 20
        assert await other == 408
        assert 1.9 <= asyncio.get_running_loop().time() - started < 6


async def test_a_path_has_one_spelling(http: Http) -> None:
    async with http.session.get(http.base + "//v1///sessions") as answer:
        assert answer.status == 200
    async with http.session.get(http.base + "/nothing/../v1/sessions") as answer:
        assert answer.status == 200
    for path in ("/v1%2Fsessions", "/v1%5csessions"):
        async with http.session.get(URL(http.base + path, encoded=True)) as answer:
            assert answer.status == 400
