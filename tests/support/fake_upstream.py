"""A fake of both model providers at HTTP, for tests of the gateway: it keeps every request as it came, and answers as it is told.

upstream.plays(status(529), message("hello"))     the first request gets a 529, the next one a stream; then `message()` for ever
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

INPUT, OUTPUT, CACHE_READ, CACHE_WRITE = 100, 20, 30, 40
"""What every answer says it used, unless told otherwise."""


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FakeUpstream:
    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    refreshes: list[dict[str, Any]] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client went before its answer was complete."""
    _next: deque[Behaviour] = field(default_factory=deque)
    refresh: Behaviour | None = None
    default: Behaviour | None = None

    def plays(self, *behaviours: Behaviour) -> None:
        self._next.extend(behaviours)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.path_qs, headers, await request.read()))
        behaviour = self._next.popleft() if self._next else self.default or message()
        try:
            return await behaviour(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.hung_up.set()
            raise

    async def renew(self, request: web.Request) -> web.StreamResponse:
        self.refreshes.append(await request.json())
        if self.refresh is not None:
            return await self.refresh(request)
        number = len(self.refreshes)
        return web.json_response(
            {"access_token": f"access-number-{number}", "refresh_token": f"refresh-number-{number}", "expires_in": 3600}
        )


@asynccontextmanager
async def fake_upstream() -> AsyncIterator[FakeUpstream]:
    fake = FakeUpstream()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/oauth/token", fake.renew)
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = "http://{}:{}".format(*runner.addresses[0][:2])
    try:
        yield fake
    finally:
        await runner.cleanup()


def anthropic_events(texts: Sequence[str], *, output: int = OUTPUT) -> list[dict[str, Any]]:
    usage = {"input_tokens": INPUT, "cache_read_input_tokens": CACHE_READ, "cache_creation_input_tokens": CACHE_WRITE, "output_tokens": 1}
    start = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": usage}
    deltas = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts]
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": output}},
        {"type": "message_stop"},
    ]


def openai_events(texts: Sequence[str], *, output: int = OUTPUT) -> list[dict[str, Any]]:
    details = {"input_tokens_details": {"cached_tokens": CACHE_READ}, "output_tokens_details": {"reasoning_tokens": 5}}
    usage = {"input_tokens": INPUT + CACHE_READ, "output_tokens": output, **details}
    return [
        {"type": "response.created", "response": {"usage": None}},
        *({"type": "response.output_text.delta", "delta": text} for text in texts),
        {
            "type": "response.completed",
            "response": {"output": [{"content": [{"type": "output_text", "text": "".join(texts)}]}], "usage": usage},
        },
    ]


def encoded(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def message(
    *texts: str,
    output: int = OUTPUT,
    wait: asyncio.Event | None = None,
    begun: asyncio.Event | None = None,
    cut: bool = False,
    headers: dict[str, str] | None = None,
) -> Behaviour:
    """An answer, streamed if that was asked for. With `wait` the last text comes only when it is set, after `begun` was set; with `cut` the
    connection ends instead."""
    words = texts or ("hello",)

    async def behave(request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        anthropic = request.path.startswith("/v1/messages")
        if request.path.endswith("count_tokens"):
            return web.json_response({"input_tokens": 7})
        if not asked.get("stream"):
            return web.json_response(_whole("".join(words), output=output) if anthropic else _whole_openai("".join(words), output=output))
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "request-id": "req_1", **(headers or {})})
        await response.prepare(request)
        events = (anthropic_events if anthropic else openai_events)(words, output=output)
        last = max(n for n, event in enumerate(events) if "delta" in str(event["type"]) and event["type"] != "message_delta")
        for number, event in enumerate(events):
            if number == last and (wait is not None or cut):
                if begun is not None:
                    begun.set()
                if wait is not None:
                    await wait.wait()
                if cut:
                    assert request.transport is not None
                    request.transport.abort()
                    return response
            await response.write(encoded(event))
        await response.write_eof()
        return response

    return behave


def _whole(text: str, *, output: int) -> dict[str, Any]:
    usage = {
        "input_tokens": INPUT,
        "cache_read_input_tokens": CACHE_READ,
        "cache_creation_input_tokens": CACHE_WRITE,
        "output_tokens": output,
    }
    return {"type": "message", "role": "assistant", "content": [{"type": "text", "text": text}], "usage": usage}


def _whole_openai(text: str, *, output: int) -> dict[str, Any]:
    response: dict[str, Any] = openai_events([text], output=output)[-1]["response"]
    return response


def status(code: int, text: str = "no", *, kind: str = "some_error", headers: dict[str, str] | None = None) -> Behaviour:
    """An error, in a body that both formats' readers understand."""

    async def behave(_: web.Request) -> web.StreamResponse:
        body = {"type": "error", "error": {"type": kind, "message": text}}
        return web.json_response(body, status=code, headers=headers)

    return behave


def silence(begun: asyncio.Event) -> Behaviour:
    """Nothing at all, for ever."""

    async def behave(_: web.Request) -> web.StreamResponse:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    return behave


def hang_up() -> Behaviour:
    """The connection ends before the first byte."""

    async def behave(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return behave
