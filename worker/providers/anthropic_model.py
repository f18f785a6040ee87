"""One question to a model of the Messages API: its answer is told while it comes, and asked for again when it is cut off."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.gateway_words import own_words
from worker.provider import Emitter, ModelAccess, ProviderFailed
from worker.providers.anthropic_tools import DEFINITIONS, Call
from worker.text import plain, plain_json

if TYPE_CHECKING:
    from anthropic.types import Message, RawMessageStreamEvent

PAUSES: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before the second, third, … try."""

_MAX_TOKENS = 32_000
_THINKING_TOKENS = 8_000
_SILENCE_SECONDS = 1800.0
"""The gateway has shorter limits, tells them, and tries again by itself."""
_RAW_CHARS = 16 * 1024
_OLDER = re.compile(r"claude-\w+-4-[0-5]\b|claude-3")
_SYSTEM = """\
You are a coding agent. The current directory is a Git repository, checked out for you; work in it until the user's request is done, then
say in a few sentences what you did. {network} Do not commit or push: what you leave in the working tree is committed and pushed for
you. Check your work by running what the repository has for that."""


@dataclass(frozen=True)
class Reply:
    """What the model said."""

    content: Sequence[dict[str, Any]]
    """Its blocks, as the API takes them back."""
    calls: Sequence[Call]
    stop_reason: str


class CutOff(Exception):
    """The stream ended as if all were well, but not with the end of an answer, or with one that is none."""


class Model:
    """A model behind the server's gateway. An asynchronous context manager; it is used by one task."""

    def __init__(self, access: ModelAccess, name: str, emitter: Emitter, *, network: str) -> None:
        """`network`: what the model is told of it."""
        import anthropic
        import httpx2

        socket = anthropic.DefaultAsyncHttpxClient(transport=httpx2.AsyncHTTPTransport(uds=str(access.socket)))
        # The address is only for the Host header: the transport knows where to go.
        self._client = anthropic.AsyncAnthropic(
            api_key=access.token, base_url="http://models", http_client=socket, max_retries=0, timeout=_SILENCE_SECONDS
        )
        self._status_error = anthropic.APIStatusError
        # In mid-stream the library lets those of its HTTP client through.
        self._errors = (anthropic.APIError, httpx2.HTTPError, CutOff)
        self._name = name
        self._system = _SYSTEM.format(network=network)
        self._emitter = emitter

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._client.close()

    async def answer(self, messages: Sequence[dict[str, Any]]) -> Reply:
        """Errors: ProviderFailed when there is no answer, at once or after the last try."""
        for attempt, pause in enumerate((*PAUSES, None), 1):
            telling = Telling(self._emitter)
            try:
                return await self._ask(messages, telling)
            except self._errors as error:
                await telling.withdraw()
                if pause is None or not self._may_repeat(error):
                    raise ProviderFailed(_sentence(error), type(error).__name__) from error
                told = session.Error(code="PROVIDER_RETRY", message=f"{_sentence(error)}; asked again ({attempt})", retryable=True)
                await self._emitter.emit(WorkerEvent(error=told))
                await asyncio.sleep(pause)
        raise AssertionError("the last try returns or raises")

    async def _ask(self, messages: Sequence[dict[str, Any]], telling: Telling) -> Reply:
        parameters: dict[str, Any] = {
            "model": self._name,
            "max_tokens": _MAX_TOKENS,
            "system": self._system,
            "messages": messages,
            "tools": DEFINITIONS,
            "thinking": _thinking(self._name),
            "cache_control": {"type": "ephemeral"},
        }
        try:
            async with self._client.messages.stream(**parameters) as stream:
                async for event in stream:
                    # The stream also brings events that the library derives from these.
                    if event.type in ("message_start", "content_block_start", "content_block_delta"):
                        await telling.hear(event)
                message = await stream.get_final_message() if telling.begun else None
        except ValueError as error:
            # The library's word for a tool's input that is no JSON to it: half a character is enough.
            raise CutOff(f"the answer cannot be read: {error}") from error
        if message is None or message.stop_reason is None:
            raise CutOff("the answer has no end")
        return await telling.complete(message)

    def _may_repeat(self, error: Exception) -> bool:
        """What the API says about it counts first; else what went wrong on the way, or on its side."""
        if isinstance(error, self._status_error):
            said = error.response.headers.get("x-should-retry")
            if said in ("true", "false"):
                return bool(said == "true")
            # An error inside a stream comes with the stream's status, 200.
            return error.status_code in (200, 408, 409, 429) or error.status_code >= 500
        return True


class Telling:
    """Tells one answer while it comes."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._message_id = ""
        self._blocks: dict[int, Any] = {}

    @property
    def begun(self) -> bool:
        """Whether anything came."""
        return bool(self._message_id)

    async def hear(self, event: RawMessageStreamEvent) -> None:
        """One event of the stream."""
        if event.type == "message_start":
            self._message_id = event.message.id
        elif event.type == "content_block_start":
            block = self._blocks[event.index] = event.content_block
            if block.type == "tool_use":
                name = plain(block.name)
                call = session.ToolCall(call_id=block.id, name=name, status=session.TOOL_STATUS_PENDING, title=name)
                await self._emitter.emit(WorkerEvent(item_id=block.id, tool_call=call))
        elif event.type == "content_block_delta":
            item, delta = self._item(event.index), event.delta
            if delta.type == "text_delta":
                await self._emitter.delta(item, session.CHANNEL_TEXT, plain(delta.text))
            elif delta.type == "thinking_delta":
                await self._emitter.delta(item, session.CHANNEL_REASONING, plain(delta.thinking))
            elif delta.type == "input_json_delta" and self._blocks[event.index].type == "tool_use":
                await self._emitter.delta(item, session.CHANNEL_TOOL_INPUT, plain(delta.partial_json))

    async def complete(self, message: Message) -> Reply:
        """The whole answer: each block is told as it is in the end."""
        content: list[dict[str, Any]] = []
        calls: list[Call] = []
        for index, block in enumerate(message.content):
            item = self._item(index)
            match block.type:
                case "text":
                    text = plain(block.text)
                    said = session.Message(role=session.ROLE_ASSISTANT, parts=[session.Part(text=text)], final=True)
                    await self._emitter.emit(WorkerEvent(item_id=item, message=said))
                    content.append({"type": "text", "text": text})
                case "thinking":
                    await self._emitter.emit(WorkerEvent(item_id=item, reasoning=session.Reasoning(text=plain(block.thinking))))
                    content.append({"type": "thinking", "thinking": plain(block.thinking), "signature": block.signature})
                case "redacted_thinking":
                    content.append({"type": "redacted_thinking", "data": block.data})
                case "tool_use":
                    name, given = plain(block.name), plain_json(block.input)
                    calls.append(Call(block.id, name, given if isinstance(given, dict) else {}))
                    content.append({"type": "tool_use", "id": block.id, "name": name, "input": given})
                case _:
                    # A block that no tool of ours asked for. It is told, and not sent back.
                    await self._tell_raw(item, block.type, block.to_dict(mode="json"))
        return Reply([block for block in content if block != {"type": "text", "text": ""}], calls, message.stop_reason or "")

    async def withdraw(self) -> None:
        """The answer was cut off, and what was told of it does not count: its messages and calls are replaced by nothing."""
        for index, block in self._blocks.items():
            item = self._item(index)
            if block.type == "tool_use":
                result = session.ToolResult(call_id=block.id, status=session.TOOL_OUTCOME_CANCELLED)
                await self._emitter.emit(WorkerEvent(item_id=item, tool_result=result))
            elif block.type == "text":
                await self._emitter.emit(WorkerEvent(item_id=item, message=session.Message(role=session.ROLE_ASSISTANT, final=True)))

    def _item(self, index: int) -> str:
        block = self._blocks.get(index)
        return block.id if block is not None and block.type == "tool_use" else f"{self._message_id}/{index}"

    async def _tell_raw(self, item: str, kind: str, block: dict[str, Any]) -> None:
        payload = json.dumps(block)
        raw = session.ProviderRaw(provider="anthropic", native_type=kind, reason=session.RAW_REASON_UNKNOWN_TYPE)
        raw.payload, raw.truncated = payload[:_RAW_CHARS], len(payload) > _RAW_CHARS
        await self._emitter.emit(WorkerEvent(item_id=item, provider_raw=raw))


def _thinking(model: str) -> dict[str, Any]:
    """How a model is asked to think: older ones know a budget only."""
    if _OLDER.match(model):
        return {"type": "enabled", "budget_tokens": _THINKING_TOKENS}
    return {"type": "adaptive", "display": "summarized"}


def _sentence(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None)
    inner = body.get("error") if isinstance(body, dict) else None
    said = inner.get("message") if isinstance(inner, dict) else None
    kind = inner.get("type", "") if isinstance(inner, dict) else ""
    if isinstance(error, CutOff):
        return f"the model did not answer as it should: {error}"
    if status is None:
        return f"the connection to the model failed: {error}"
    if said and (reason := own_words(said)) != said:
        return reason
    return f"the model's API answered {f'{status} ' if status != 200 else ''}{kind or 'an error'}: {said or error}"
