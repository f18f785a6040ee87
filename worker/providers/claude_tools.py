"""The tools of the Claude program: their calls, results, plans, and what they did to files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claude_agent_sdk import ToolResultBlock

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.changes import Look, difference, look
from worker.paths import shown
from worker.provider import Emitter
from worker.text import plain

_KINDS = {
    "AskUserQuestion": session.TOOL_KIND_ASK,
    "Bash": session.TOOL_KIND_EXECUTE,
    "Edit": session.TOOL_KIND_EDIT,
    "Glob": session.TOOL_KIND_SEARCH,
    "Grep": session.TOOL_KIND_SEARCH,
    "NotebookEdit": session.TOOL_KIND_EDIT,
    "Read": session.TOOL_KIND_READ,
    "TodoWrite": session.TOOL_KIND_THINK,
    "WebFetch": session.TOOL_KIND_FETCH,
    "WebSearch": session.TOOL_KIND_FETCH,
    "Write": session.TOOL_KIND_EDIT,
}
_PATHS = ("file_path", "notebook_path", "path")
_ABOUT = ("command", "file_path", "notebook_path", "pattern", "description", "path")
_EXIT_CODE = re.compile(r"Exit code (\d{1,3})\b")
_ERROR_TAGS = re.compile(r"</?tool_use_error>")
"""The program marks with them what it says about a failure, for the model."""
_TODO = ("pending", "in_progress", "completed")
_ASKED_WITHIN_SECONDS = 1.0
"""The program asks for leave 20 to 50 ms after it has told that a call's turn has come (measured). What it runs without is told nowhere."""


@dataclass
class _Open:
    """A call without a result."""

    name: str
    parent: str
    input: dict[str, Any]
    started: float
    whole: bool = False
    """Whether the model has finished writing it."""
    running: bool = False


@dataclass(frozen=True)
class _Before:
    """A file that a call is about to change."""

    path: Path
    seen: Look


class ToolCalls:
    """All calls of one run. `asks`: the program asks for leave where it thinks that it needs some, so a call waits until that is decided.
    What is decided may be heard of before the call itself: it comes on another way."""

    def __init__(self, workspace: Path, emitter: Emitter, *, asks: bool = False) -> None:
        self._workspace = workspace
        self._emitter = emitter
        self._asks = asks
        self._open: dict[str, _Open] = {}
        self._may_run: set[str] = set()
        self._decided: dict[str, asyncio.Event] = {}
        self._waiting: set[asyncio.Task[None]] = set()
        self._before: dict[str, _Before] = {}
        self.declined: set[str] = set()
        """Calls that a person did not allow."""
        self.stopped = False
        """Whether the program was asked to stop: what fails then was cut off."""

    async def announce(self, call_id: str, name: str, parent: str) -> None:
        """The model has begun to write a call."""
        self._open[call_id] = _Open(name, parent, {}, time.monotonic())
        call = session.ToolCall(call_id=call_id, name=plain(name), title=plain(name)[:200], status=session.TOOL_STATUS_PENDING)
        call.tool_kind = _KINDS.get(name, session.TOOL_KIND_OTHER)
        await self._emitter.emit(WorkerEvent(item_id=call_id, parent_item_id=parent, tool_call=call))

    async def begin(self, call_id: str, name: str, given: dict[str, Any], parent: str) -> None:
        """A whole call. Where nobody is asked it runs now."""
        call = self._open[call_id] = _Open(name, parent, given, time.monotonic(), whole=True)
        call.running = not self._asks or call_id in self._may_run
        await self._tell(call_id, call)

    def due(self, call_id: str) -> None:
        """The call's turn has come: the program asks for leave now, or runs it without."""
        if self._asks:
            decided = self._decided[call_id] = asyncio.Event()
            waiting = asyncio.create_task(self._run_unasked(call_id, decided))
            self._waiting.add(waiting)
            waiting.add_done_callback(self._waiting.discard)

    async def hold(self, call_id: str) -> None:
        """A person is asked whether it may run."""
        self._decide(call_id)
        self._may_run.discard(call_id)
        if (call := self._open.get(call_id)) is not None and call.running:
            # The program took its time to ask.
            call.running = False
            await self._tell(call_id, call)

    async def run(self, call_id: str) -> None:
        """It may run, and does."""
        self._decide(call_id)
        self._may_run.add(call_id)
        call = self._open.get(call_id)
        if call is not None and call.whole and not call.running:
            call.running, call.started = True, time.monotonic()
            await self._tell(call_id, call)

    async def look_before(self, call_id: str, name: str, given: dict[str, Any]) -> None:
        """Remember the file that the call is about to change, if it is an edit. The program waits for this, so it is as the call finds
        it."""
        if _KINDS.get(name) != session.TOOL_KIND_EDIT:
            return
        named = given.get("notebook_path" if name == "NotebookEdit" else "file_path")
        if isinstance(named, str) and "\0" not in named:
            path = self._workspace / named
            self._before[call_id] = _Before(path, await asyncio.to_thread(look, path))

    async def end(self, block: ToolResultBlock, details: object) -> None:
        """A result."""
        call_id = block.tool_use_id
        self._decide(call_id)
        call = self._open.pop(call_id, None) or _Open("", "", {}, time.monotonic())
        if self.stopped and block.is_error:
            # The program writes its model that the user does not want to go on; it may have been a budget, or a limit of time.
            self._open[call_id] = call
            await self._cancel([call_id])
            return
        text = _ERROR_TAGS.sub("", _text(block.content)) if block.is_error else _text(block.content)
        status = session.TOOL_OUTCOME_DECLINED if call_id in self.declined else _outcome(block, details)
        if status != session.TOOL_OUTCOME_DECLINED and call.whole and not call.running:
            # It needed no leave, and is done before that was clear.
            call.running = True
            await self._tell(call_id, call)
        result = session.ToolResult(call_id=call_id, status=status)
        result.duration.FromNanoseconds(int((time.monotonic() - call.started) * 1e9))
        if text:
            result.parts.add(text=text)
        if (code := _exit_code(call.name, block, text)) is not None:
            result.exit_code = code
        await self._emitter.emit(WorkerEvent(item_id=call_id, parent_item_id=call.parent, tool_result=result))
        if call.name == "TodoWrite" and result.status == session.TOOL_OUTCOME_COMPLETED:
            await self._tell_plan(call)
        await self._tell_change(call_id, call.parent)

    async def close_pending(self, parent: str) -> None:
        """Calls that the model did not finish writing will never run."""
        await self._cancel([call_id for call_id, call in self._open.items() if not call.whole and call.parent == parent])

    async def close(self) -> None:
        """Nothing runs any more."""
        for waiting in self._waiting:
            waiting.cancel()
        await self._cancel([*self._open])

    async def _run_unasked(self, call_id: str, decided: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(decided.wait(), _ASKED_WITHIN_SECONDS)
        if not decided.is_set():
            await self.run(call_id)

    def _decide(self, call_id: str) -> None:
        if (decided := self._decided.pop(call_id, None)) is not None:
            decided.set()

    async def _tell(self, call_id: str, call: _Open) -> None:
        told = pending_call(call_id, call.name, call.input, self._workspace)
        if call.running:
            told.status = session.TOOL_STATUS_RUNNING
        await self._emitter.emit(WorkerEvent(item_id=call_id, parent_item_id=call.parent, tool_call=told))

    async def _cancel(self, call_ids: list[str]) -> None:
        for call_id in call_ids:
            call = self._open.pop(call_id)
            result = session.ToolResult(call_id=call_id, status=session.TOOL_OUTCOME_CANCELLED)
            await self._emitter.emit(WorkerEvent(item_id=call_id, parent_item_id=call.parent, tool_result=result))
            await self._tell_change(call_id, call.parent)

    async def _tell_change(self, call_id: str, parent: str) -> None:
        before = self._before.pop(call_id, None)
        if before is None:
            return
        after = await asyncio.to_thread(look, before.path)
        path = plain(shown(self._workspace, str(before.path)))
        change = await asyncio.to_thread(difference, path, before.seen, after)
        if change is not None:
            changed = session.FileChanged(call_id=call_id, changes=[change])
            await self._emitter.emit(WorkerEvent(item_id=call_id, parent_item_id=parent, file_changed=changed))

    async def _tell_plan(self, call: _Open) -> None:
        plan_id = f"plan/{call.parent}" if call.parent else "plan"
        plan = session.PlanUpdated(plan_id=plan_id)
        todos = call.input.get("todos")
        for number, todo in enumerate(todos if isinstance(todos, list) else [], 1):
            if isinstance(todo, dict):
                status = todo.get("status")
                plan.entries.add(id=str(number), text=plain(todo.get("content", "")), status=status if status in _TODO else "pending")
        await self._emitter.emit(WorkerEvent(item_id=plan_id, parent_item_id=call.parent, plan_updated=plan))


def pending_call(call_id: str, name: str, given: dict[str, Any], workspace: Path) -> session.ToolCall:
    """A whole call that does not run yet."""
    call = session.ToolCall(
        call_id=call_id,
        name=plain(name),
        tool_kind=_KINDS.get(name, session.TOOL_KIND_OTHER),
        title=_title(name, given, workspace),
        input_json=json.dumps(given),
        locations=[plain(shown(workspace, given[key])) for key in _PATHS if isinstance(given.get(key), str)],
        status=session.TOOL_STATUS_PENDING,
    )
    if name == "Bash":
        call.command = plain(given.get("command", ""))
    return call


def _title(name: str, given: dict[str, Any], workspace: Path) -> str:
    about = next((given[key] for key in _ABOUT if isinstance(given.get(key), str)), "")
    if name == "Bash":
        return plain(about)[:200]
    return plain(f"{name} {shown(workspace, about)}".strip())[:200]


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if content is None or isinstance(content, str):
        return plain(content or "")
    return plain("\n".join(part["text"] if part.get("type") == "text" else f"[{part.get('type')}]" for part in content))


def _outcome(block: ToolResultBlock, details: object) -> session.ToolOutcome:
    if isinstance(details, dict) and details.get("interrupted") is True:
        return session.TOOL_OUTCOME_CANCELLED
    return session.TOOL_OUTCOME_FAILED if block.is_error else session.TOOL_OUTCOME_COMPLETED


def _exit_code(name: str, block: ToolResultBlock, text: str) -> int | None:
    """The program tells the code of a command that failed in its text, and of one that did not, not at all."""
    if name != "Bash":
        return None
    if not block.is_error:
        return 0
    found = _EXIT_CODE.match(text)
    return int(found[1]) if found else None
