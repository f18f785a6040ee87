"""The agent's way to its model while servers come and go."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from worker.model_relay import relayed
from worker.provider import ModelAccess

Answer = Callable[[web.Request], AsyncIterator[bytes]]


@pytest.fixture
def door(tmp_path: Path) -> ModelAccess:
    return ModelAccess(tmp_path / "door", "token")


@asynccontextmanager
async def server(door: ModelAccess, answer: Answer) -> AsyncIterator[None]:
    """A server's door. Its end leaves a socket that refuses, as `kill -9` does."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in answer(request):
            await response.write(piece)
        return response

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0)
    await runner.setup()
    new = door.socket.with_suffix(".new")
    await web.UnixSite(runner, str(new)).start()
    new.rename(door.socket)
    try:
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def agent(models: ModelAccess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession("http://models", connector=aiohttp.UnixConnector(str(models.socket), force_close=True)) as session:
        yield session


async def echo(request: web.Request) -> AsyncIterator[bytes]:
    yield await request.content.read()


async def ask(session: aiohttp.ClientSession, body: bytes = b"hello") -> bytes:
    async with session.post("/v1/messages", data=io.BytesIO(body)) as answer:
        return await answer.read()


async def test_a_request_waits_for_a_server_that_is_away(door: ModelAccess) -> None:
    async with relayed(door, door.socket.with_name("relay"), away_seconds=30) as models, agent(models) as session:
        asked = asyncio.create_task(ask(session))
        # A server at its start, one after it was killed, and one that has come back.
        for _ in range(3):
            async with server(door, echo):
                assert await asked == b"hello"
            asked = asyncio.create_task(ask(session))
        asked.cancel()


async def test_a_socket_that_refuses_is_waited_for_too(door: ModelAccess) -> None:
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(relayed(door, door.socket.with_name("relay"), away_seconds=30))
        session = await stack.enter_async_context(agent(models))
        # Nobody listens there any more, as after a kill.
        stale = await asyncio.start_unix_server(lambda *_: None, door.socket)
        stale.close()
        assert door.socket.exists()
        asked = asyncio.create_task(ask(session))
        await stack.enter_async_context(server(door, echo))
        assert await asked == b"hello"


async def test_large_requests_and_answers_pass_whole(door: ModelAccess) -> None:
    body = bytes(range(256)) * 40_000
    async with server(door, echo), relayed(door, door.socket.with_name("relay"), away_seconds=5) as models, agent(models) as session:
        assert await asyncio.gather(*[ask(session, body) for _ in range(4)]) == [body] * 4


async def test_an_answer_comes_piece_by_piece(door: ModelAccess) -> None:
    more = asyncio.Event()

    async def slow(_: web.Request) -> AsyncIterator[bytes]:
        yield b"one"
        await more.wait()
        yield b"two"

    async with (
        server(door, slow),
        relayed(door, door.socket.with_name("relay"), away_seconds=5) as models,
        agent(models) as session,
        session.post("/v1/messages") as answer,
    ):
        assert await answer.content.readany() == b"one"
        more.set()
        assert await answer.content.readany() == b"two"


async def test_an_answer_that_breaks_off_breaks_off_for_the_agent(door: ModelAccess) -> None:
    async def cut(request: web.Request) -> AsyncIterator[bytes]:
        yield b"one"
        assert request.transport is not None
        request.transport.abort()

    async with relayed(door, door.socket.with_name("relay"), away_seconds=30) as models, agent(models) as session:
        async with server(door, cut):
            with pytest.raises(aiohttp.ClientPayloadError):
                await ask(session)
        again = asyncio.create_task(ask(session))
        async with server(door, echo):
            assert await again == b"hello"


async def test_an_agent_that_hangs_up_hangs_up_on_the_server(door: ModelAccess) -> None:
    gone = asyncio.Event()

    async def endless(_: web.Request) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"more" * 1000
                await asyncio.sleep(0)
        finally:
            gone.set()

    async with server(door, endless), relayed(door, door.socket.with_name("relay"), away_seconds=5) as models:
        async with agent(models) as session, session.post("/v1/messages") as answer:
            assert await answer.content.readany()
        async with asyncio.timeout(10):
            await gone.wait()


async def test_what_an_agent_that_has_left_asked_for_is_asked_of_nobody(door: ModelAccess) -> None:
    asked: list[bytes] = []

    async def remember(request: web.Request) -> AsyncIterator[bytes]:
        asked.append(await request.content.read())
        yield b"answer"

    async with relayed(door, door.socket.with_name("relay"), away_seconds=30) as models:
        for size in (10, 1_000_000):
            async with agent(models) as session:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(ask(session, b"x" * size), 0.3)
        async with agent(models) as session, server(door, remember):
            assert await ask(session, b"last") == b"answer"
    assert asked == [b"last"]


async def test_a_server_that_stays_away_is_a_closed_connection(door: ModelAccess) -> None:
    async with relayed(door, door.socket.with_name("relay"), away_seconds=0.2) as models, agent(models) as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await ask(session)


async def test_its_end_closes_what_is_under_way(door: ModelAccess) -> None:
    over = asyncio.Event()

    async def waiting(_: web.Request) -> AsyncIterator[bytes]:
        yield b"one"
        await over.wait()

    async with server(door, waiting), AsyncExitStack() as stack:
        models = await stack.enter_async_context(relayed(door, door.socket.with_name("relay"), away_seconds=60))
        async with agent(models) as session, session.post("/v1/messages") as answer:
            assert await answer.content.readany() == b"one"
            await stack.aclose()
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        over.set()
