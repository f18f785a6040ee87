"""What the Claude program says, as events."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from claude_agent_sdk import (
    AssistantMessage,
    ConversationResetMessage,
    RateLimitEvent,
    ResultMessage,
    StreamEvent,
    SystemMessage,
    TaskNotificationMessage,
    TaskStartedMessage,
    TaskUpdatedMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.gateway_words import own_words
from worker.provider import Emitter, Inbox, ProviderFailed, out_of_steps
from worker.providers.claude_program import UNKNOWN
from worker.providers.claude_tools import ToolCalls
from worker.text import plain

_RAW_CHARS = 16 * 1024
_SILENT: Final = frozenset(
    {
        "init",
        "status",
        "thinking_tokens",
        "task_progress",
        "background_tasks_changed",
        "session_state_changed",
        "permission_denied",
        "hook_started",
        "hook_response",
        "hook_progress",
    }
)
"""System messages that tell nothing that the log does not say better otherwise."""

_TASKS = {
    "completed": session.SUBAGENT_STATE_COMPLETED,
    "failed": session.SUBAGENT_STATE_FAILED,
    "stopped": session.SUBAGENT_STATE_CANCELLED,
    "killed": session.SUBAGENT_STATE_CANCELLED,
}
_BLOCKS = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})


@dataclass(frozen=True)
class Expected:
    """Something that the user said, on its way to the model."""

    input_id: str
    message_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the program has taken it up."""


class Narrator:
    """Tells one run of the program. `result` is its last word on how it went. `asks`: whether the program asks before it acts."""

    def __init__(self, workspace: Path, emitter: Emitter, inbox: Inbox, *, asks: bool = False) -> None:
        self.result: ResultMessage | None = None
        self.workspace = workspace
        self._inbox = inbox
        self._expected: dict[str, Expected] = {}
        self._emitter = emitter
        self._calls = ToolCalls(workspace, emitter, asks=asks)
        self._streams: dict[str, _Stream] = {}
        self._subagents: dict[str, session.SubagentUpdated] = {}
        self._complaint = ""

    def expect_input(self, input_id: str) -> Expected:
        """The program will be told something, and repeat it when it takes it up."""
        expected = Expected(input_id)
        self._expected[expected.message_id] = expected
        return expected

    async def asked(self, call_id: str) -> None:
        """A person is asked whether this call may run."""
        await self._calls.hold(call_id)

    async def allowed(self, call_id: str) -> None:
        """This call may run."""
        await self._calls.run(call_id)

    def declined(self, call_id: str) -> None:
        """A person did not allow this call."""
        self._calls.declined.add(call_id)

    def stopping(self) -> None:
        """The program is asked to stop."""
        self._calls.stopped = True

    async def before_tool(self, call_id: str, name: str, given: dict[str, Any]) -> None:
        """A tool is about to run, or leave for it to be asked for; that waits for this."""
        self._calls.due(call_id)
        await self._calls.look_before(call_id, name, given)

    async def hear(self, message: object) -> None:
        """One message of the SDK."""
        match message:
            case StreamEvent():
                await self._stream(message.parent_tool_use_id or "").hear(message.event)
            case AssistantMessage():
                await self._assistant(message)
            case UserMessage():
                await self._user(message)
            case ResultMessage():
                self.result = message
            case TaskStartedMessage() | TaskNotificationMessage() | TaskUpdatedMessage():
                await self._task(message)
            case ConversationResetMessage():
                reset = session.ContextCompacted(trigger=session.COMPACTION_TRIGGER_RESET)
                await self._emitter.emit(WorkerEvent(context_compacted=reset))
            case RateLimitEvent():
                await self._rate_limit(message)
            case SystemMessage():
                await self._system(message)
            case _:
                await self._raw(type(message).__name__, repr(message))

    def outcome(self, *, max_steps: int) -> str:
        """Why it stopped, after the last message. Errors: ProviderFailed."""
        result = self.result
        if result is None:
            raise ProviderFailed("the Claude program ended without a result", "no_result")
        if result.subtype == "error_max_turns":
            raise ProviderFailed(out_of_steps(max_steps), "max_turns")
        # Not the subtype: that is "success" also when the API failed.
        if result.is_error:
            said = result.result or "; ".join(result.errors or []) or self._complaint or result.subtype
            raise ProviderFailed(own_words(plain(said))[:1000], result.terminal_reason or result.subtype)
        return result.stop_reason or result.subtype

    async def close(self) -> None:
        """What was cut off gets its end: answers, calls without a result, sub-agents that were at work."""
        for stream in self._streams.values():
            await stream.withdraw()
        await self._calls.close()
        for subagent in self._subagents.values():
            if subagent.state == session.SUBAGENT_STATE_RUNNING:
                subagent.state = session.SUBAGENT_STATE_CANCELLED
                await self._tell_subagent(subagent)

    # -- messages -----------------------------------------------------------------------------------------------------------

    async def _assistant(self, message: AssistantMessage) -> None:
        if message.error:
            # The program's own words about a failure, not the model's; how the turn ends says the result.
            self._complaint = " ".join(block.text for block in message.content if isinstance(block, TextBlock))
            return
        parent, message_id = message.parent_tool_use_id or "", message.message_id or message.uuid or "message"
        stream = self._stream(parent)
        await stream.enter(message_id)
        for block in message.content:
            item = stream.item_of(message_id)
            match block:
                case TextBlock():
                    said = session.Message(role=session.ROLE_ASSISTANT, parts=[session.Part(text=plain(block.text))], final=True)
                    await self._emitter.emit(WorkerEvent(item_id=item, parent_item_id=parent, message=said))
                case ThinkingBlock():
                    thought = session.Reasoning(text=plain(block.thinking))
                    await self._emitter.emit(WorkerEvent(item_id=item, parent_item_id=parent, reasoning=thought))
                case ToolUseBlock():
                    await self._calls.begin(block.id, block.name, block.input, parent)
                case _:
                    await self._raw(type(block).__name__, json.dumps(vars(block), default=str))

    async def _user(self, message: UserMessage) -> None:
        """Results of tools, and what the user said meanwhile. What else comes as a user's is the program talking to itself (its prompts,
        its commands' output)."""
        if (expected := self._expected.pop(message.uuid or "", None)) is not None:
            await self._inbox.taken(expected.input_id)
            expected.seen.set()
        if isinstance(message.content, str):
            return
        for block in message.content:
            if isinstance(block, ToolResultBlock):
                await self._calls.end(block, message.tool_use_result)

    async def _system(self, message: SystemMessage) -> None:
        data = message.data
        if message.subtype == UNKNOWN:
            unknown = data.get("message") or {}
            kind = ".".join(str(unknown[key]) for key in ("type", "subtype") if key in unknown)
            await self._raw(kind, json.dumps(unknown), parsed=unknown.get("type") not in ("user", "assistant", "system", "result"))
        elif message.subtype == "api_retry":
            text = f"{_trouble(data)}; asked again ({data.get('attempt')})"
            await self._emitter.emit(WorkerEvent(error=session.Error(code="PROVIDER_RETRY", message=plain(text), retryable=True)))
        elif message.subtype == "compact_boundary":
            about = data.get("compact_metadata") or {}
            trigger = session.COMPACTION_TRIGGER_MANUAL if about.get("trigger") == "manual" else session.COMPACTION_TRIGGER_AUTO
            compacted = session.ContextCompacted(trigger=trigger, tokens_before=_count(about.get("pre_tokens")))
            compacted.tokens_after = _count(about.get("post_tokens"))
            await self._emitter.emit(WorkerEvent(context_compacted=compacted))
        elif message.subtype not in _SILENT:
            await self._raw(f"system.{message.subtype}", json.dumps(data))

    async def _task(self, message: TaskStartedMessage | TaskNotificationMessage | TaskUpdatedMessage) -> None:
        known = self._subagents.get(message.task_id)
        if isinstance(message, TaskStartedMessage):
            if message.task_type not in (None, "local_agent"):
                return
            known = session.SubagentUpdated(agent_id=message.task_id, name=plain(message.description)[:200])
            known.parent_call_id, known.state = message.tool_use_id or "", session.SUBAGENT_STATE_RUNNING
            self._subagents[message.task_id] = known
        elif known is None or (state := _TASKS.get(message.status or "")) is None:
            return
        else:
            summary = plain(message.summary)[:2000] if isinstance(message, TaskNotificationMessage) else known.summary
            if (known.state, known.summary) == (state, summary):
                return
            known.state, known.summary = state, summary
        await self._tell_subagent(known)

    async def _tell_subagent(self, subagent: session.SubagentUpdated) -> None:
        await self._emitter.emit(WorkerEvent(item_id=subagent.agent_id, parent_item_id=subagent.parent_call_id, subagent_updated=subagent))

    async def _rate_limit(self, message: RateLimitEvent) -> None:
        info = message.rate_limit_info
        if info.status != "allowed":
            which = f" ({info.rate_limit_type})" if info.rate_limit_type else ""
            text = f"the model's API limits the rate: {info.status}{which}"
            await self._emitter.emit(WorkerEvent(error=session.Error(code="RATE_LIMIT", message=plain(text), retryable=True)))

    async def _raw(self, kind: str, payload: str, *, parsed: bool = True) -> None:
        raw = session.ProviderRaw(provider="claude", native_type=plain(kind)[:200], payload=plain(payload[:_RAW_CHARS]))
        raw.truncated = len(payload) > _RAW_CHARS
        raw.reason = session.RAW_REASON_UNKNOWN_TYPE if parsed else session.RAW_REASON_PARSE_ERROR
        await self._emitter.emit(WorkerEvent(provider_raw=raw))

    def _stream(self, parent: str) -> _Stream:
        return self._streams.setdefault(parent, _Stream(parent, self._emitter, self._calls, self._raw))


class _Stream:
    """The answer that the model is giving: to the agent, or to one sub-agent. Names its blocks, and tells their pieces."""

    def __init__(self, parent: str, emitter: Emitter, calls: ToolCalls, raw: Any) -> None:
        self._parent = parent
        self._emitter = emitter
        self._calls = calls
        self._raw = raw
        self._message_id = ""
        self._open: dict[int, str] = {}
        self._texts: set[str] = set()
        self._told: dict[str, int] = {}

    async def hear(self, event: dict[str, Any]) -> None:
        """One event of the Messages API."""
        match event.get("type"):
            case "message_start":
                await self.enter(event["message"]["id"])
            case "content_block_start":
                await self._begin(event["index"], event["content_block"])
            case "content_block_delta":
                await self._grow(self._open.get(event["index"], ""), event["delta"])
            case "content_block_stop":
                self._open.pop(event["index"], None)

    async def enter(self, message_id: str) -> None:
        """An answer of this id comes now. If another one has not come to its end, it was cut off."""
        if message_id != self._message_id:
            await self.withdraw()
            self._message_id = message_id

    def item_of(self, message_id: str) -> str:
        """The item of the block that has just been completed: blocks come one by one, and in order."""
        if self._open:
            item = self._open[min(self._open)]
            self._texts.discard(item)
            return item
        # Not streamed: what sub-agents say comes whole.
        number = self._told.get(message_id, 0)
        self._told[message_id] = number + 1
        return f"{message_id}/{number}"

    async def withdraw(self) -> None:
        """The answer was cut off: what was told of it and has not come to its end is replaced by nothing."""
        texts, self._texts = self._texts, set()
        self._open.clear()
        for item in sorted(texts):
            empty = session.Message(role=session.ROLE_ASSISTANT, final=True)
            await self._emitter.emit(WorkerEvent(item_id=item, parent_item_id=self._parent, message=empty))
        await self._calls.close_pending(self._parent)

    async def _begin(self, index: int, block: dict[str, Any]) -> None:
        kind = block.get("type", "")
        item = block["id"] if kind == "tool_use" else f"{self._message_id}/{index}"
        self._open[index] = item
        if kind == "tool_use":
            await self._calls.announce(item, block["name"], self._parent)
        elif kind == "text":
            self._texts.add(item)
        elif kind not in _BLOCKS:
            await self._raw(f"block.{kind}", json.dumps(block))

    async def _grow(self, item: str, delta: dict[str, Any]) -> None:
        match delta.get("type"):
            case "text_delta":
                await self._emitter.delta(item, session.CHANNEL_TEXT, plain(delta["text"]))
            case "thinking_delta":
                await self._emitter.delta(item, session.CHANNEL_REASONING, plain(delta["thinking"]))
            case "input_json_delta":
                await self._emitter.delta(item, session.CHANNEL_TOOL_INPUT, plain(delta["partial_json"]))


def _trouble(retry: dict[str, Any]) -> str:
    """Why the program asks again, in words. Its own are one of a list, and "unknown" wherever no API has spoken."""
    status, kind = retry.get("error_status"), str(retry.get("error") or "unknown").replace("_", " ")
    if status:
        return f"the model's API answered {status}" + (f" ({kind})" if kind != "unknown" else "")
    if retry.get("no_response"):
        return "the model did not answer in time"
    return "the connection to the model failed" if kind == "unknown" else f"the model cannot be reached ({kind})"


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 63 else 0
