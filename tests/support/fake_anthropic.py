"""A fake Anthropic Messages API: an HTTP server that plays scripts, on TCP or on a unix socket. Only this is faked; agents are real.

The script is chosen by the newest text of a user that holds `[[script:NAME key=value ...]]`; its step is the number of assistant
messages since. So the server needs no state, turns in parallel do not meet, and what an agent remembers can be asked for
(`[[script:echo]]` answers with the scripts of the whole conversation). A test adds its own scripts with `plays`.

    fake.plays("fix", [say("On it."), use("Write", file_path="a", content="b")], [say("Done.")])
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

Block = dict[str, Any]

_MARK = re.compile(r"\[\[script:([\w-]+)([^\]]*)\]\]")
_PIECE_CHARS = 10
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "invalid_request_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def say(text: str) -> Block:
    return {"type": "text", "text": text}


def think(text: str) -> Block:
    return {"type": "thinking", "thinking": text, "signature": "ZmFrZXNpZw=="}


def use(name: str, **fields: Any) -> Block:
    return {"type": "tool_use", "name": name, "input": fields}


@dataclass(frozen=True)
class Cut:
    """A step whose stream ends early, so many times (a client that asks again gets the next step): after `blocks` with an in-band
    error, or with the connection when `error` is empty."""

    blocks: Sequence[Block]
    error: str = "overloaded_error"
    times: int = 1
    then: Sequence[Block] = ()


Step = Sequence[Block] | Cut


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def key(self) -> str:
        """The credential that it carries."""
        return self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def script(self) -> str:
        return _choose(self.body)[0]


@dataclass
class FakeAnthropic:
    """The server's memory of what it was asked, and its scripts."""

    asked: list[Asked] = field(default_factory=list)
    scripts: dict[str, Sequence[Step]] = field(default_factory=dict)
    url: str = ""
    answering: Counter[str] = field(default_factory=Counter)
    """Streams that are open now, by script."""
    gone: list[str] = field(default_factory=list)
    """Scripts whose client left in mid-stream."""
    _failures: Counter[str] = field(default_factory=Counter)

    def plays(self, name: str, *steps: Step) -> str:
        """Add a script; returns what a prompt must hold to choose it."""
        self.scripts[name] = steps
        return f"[[script:{name}]]"

    @property
    def messages(self) -> list[Asked]:
        """The requests for messages of agents: those with tools. Titles and the like come without."""
        return [asked for asked in self.asked if asked.path.startswith("/v1/messages") and asked.body.get("tools")]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await request.read() or b"{}")
        except ValueError:
            body = {}
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.method, request.path_qs, headers, body))
        if request.path == "/v1/messages/count_tokens":
            return web.json_response({"input_tokens": _tokens(body.get("messages"))})
        if request.path != "/v1/messages" or request.method != "POST":
            return _error(404, request.path)
        name, arguments, step = _choose(body)
        if refusal := self._refusal(name, arguments, step):
            return refusal
        chosen = self._step(name, arguments, step, body)
        if not body.get("stream"):
            return web.json_response(_message(body, _blocks(chosen)))
        return await self._stream(request, body, name, chosen, float(arguments.get("delay", 0)))

    def _refusal(self, name: str, arguments: dict[str, str], step: int) -> web.Response | None:
        """Scripts `e401` and so on fail; with `times=2` the first two requests only, with `says=no+way` in these words."""
        status = int(name[1:]) if re.fullmatch(r"e\d{3}", name) else 0
        if not status or step:
            return None
        self._failures[str((name, arguments))] += 1
        if self._failures[str((name, arguments))] > int(arguments.get("times", 1_000_000)):
            return None
        said = arguments.get("says", "").replace("+", " ") or f"the fake says {_ERRORS[status]}"
        return _error(status, said, arguments.get("after", "0"))

    def _step(self, name: str, arguments: dict[str, str], step: int, body: dict[str, Any]) -> Step:
        steps = self.scripts.get(name) or _script(name, arguments, body)
        chosen = steps[step] if step < len(steps) else [say("the script is over")]
        if isinstance(chosen, Cut):
            key = f"{name}/{step}"
            self._failures[key] += 1
            if self._failures[key] > chosen.times:
                return chosen.then
        return chosen

    async def _stream(self, request: web.Request, body: dict[str, Any], name: str, step: Step, delay: float) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8", "request-id": f"req_{uuid.uuid4().hex}"})
        await response.prepare(request)
        self.answering[name] += 1
        try:
            for kind, fields in _events(body, step):
                await response.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode())
                if delay and kind == "content_block_delta":
                    await asyncio.sleep(delay)
            if isinstance(step, Cut) and not step.error:
                assert request.transport is not None
                request.transport.abort()
        except (ConnectionError, asyncio.CancelledError):
            self.gone.append(name)
            raise
        finally:
            self.answering[name] -= 1
        return response


@asynccontextmanager
async def fake_anthropic(socket: Path | None = None) -> AsyncIterator[FakeAnthropic]:
    """A started server: on a free port of loopback (`url`), and on `socket` if one is given."""
    fake = FakeAnthropic()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        if socket is not None:
            await web.UnixSite(runner, str(socket)).start()
        yield fake
    finally:
        await runner.cleanup()


def _choose(body: dict[str, Any]) -> tuple[str, dict[str, str], int]:
    """(script, arguments, step)."""
    messages = body.get("messages", [])
    for position in range(len(messages) - 1, -1, -1):
        if messages[position]["role"] != "user":
            continue
        for text in reversed(_texts(messages[position])):
            if marks := [*_MARK.finditer(text)]:
                step = sum(1 for message in messages[position + 1 :] if message["role"] == "assistant")
                return marks[-1][1], dict(word.split("=", 1) for word in marks[-1][2].split() if "=" in word), step
    return "", {}, 0


def _texts(message: dict[str, Any]) -> list[str]:
    content = message["content"]
    return [content] if isinstance(content, str) else [block["text"] for block in content if block["type"] == "text"]


def _script(name: str, arguments: dict[str, str], body: dict[str, Any]) -> Sequence[Step]:
    """Scripts that need no test's preparation."""
    match name:
        case "echo":
            texts = [text for message in body["messages"] if message["role"] == "user" for text in _texts(message)]
            return [[say(f"history: {','.join(mark[0] for text in texts for mark in _MARK.findall(text))}")]]
        case "slow":
            return [[say("tick " * int(arguments.get("n", 200)))]]
        case "bash":
            return [[use(arguments.get("tool", "Bash"), command=arguments["cmd"].replace("+", " "))], [say("bash done")]]
        case "loop":
            return [[use(arguments.get("tool", "Bash"), command=f"echo {number}")] for number in range(50)]
        case "tools":
            return [[say("tools: " + ",".join(tool.get("name", tool.get("type", "?")) for tool in body.get("tools", [])))]]
        case "":
            return [[say("Fake answer")]]
    return [[say(f"there is no script {name}")]]


def _blocks(step: Step) -> list[Block]:
    blocks = step.blocks if isinstance(step, Cut) else step
    return [block | {"id": f"toolu_{uuid.uuid4().hex[:20]}"} if block["type"] == "tool_use" else block for block in blocks]


def _tokens(anything: object) -> int:
    return max(1, len(json.dumps(anything)) // 4)


def _message(body: dict[str, Any], blocks: list[Block]) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex[:20]}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", ""),
        "content": blocks,
        "stop_reason": "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": _tokens(body.get("messages")),
            "output_tokens": _tokens(blocks),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }


def _events(body: dict[str, Any], step: Step) -> Sequence[tuple[str, dict[str, Any]]]:
    blocks = _blocks(step)
    message = _message(body, blocks)
    begun = message | {"content": [], "stop_reason": None, "usage": message["usage"] | {"output_tokens": 1}}
    events: list[tuple[str, dict[str, Any]]] = [("message_start", {"message": begun})]
    for index, block in enumerate(blocks):
        start, deltas = _block_events(block)
        events.append(("content_block_start", {"index": index, "content_block": start}))
        events += [("content_block_delta", {"index": index, "delta": delta}) for delta in deltas]
        if not (isinstance(step, Cut) and index == len(blocks) - 1):
            events.append(("content_block_stop", {"index": index}))
    if isinstance(step, Cut):
        return [*events, ("error", {"error": {"type": step.error, "message": "Overloaded"}})] if step.error else events
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    return [
        *events,
        ("message_delta", {"delta": ended, "usage": {"output_tokens": message["usage"]["output_tokens"]}}),
        ("message_stop", {}),
    ]


def _block_events(block: Block) -> tuple[Block, list[dict[str, Any]]]:
    if block["type"] == "text":
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"])]
        return {"type": "thinking", "thinking": "", "signature": ""}, [
            *deltas,
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    if block["type"] == "tool_use":
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _pieces(json.dumps(block["input"]))]
        return block | {"input": {}}, deltas
    return block, []


def _pieces(text: str) -> list[str]:
    return [text[start : start + _PIECE_CHARS] for start in range(0, len(text), _PIECE_CHARS)]


def _error(status: int, message: str, retry_after: str = "0") -> web.Response:
    body = {"type": "error", "error": {"type": _ERRORS.get(status, "not_found_error"), "message": message}, "request_id": "req_fake"}
    return web.json_response(body, status=status, headers={"retry-after": retry_after} if status in (429, 529) else {})
