"""The steps of a recording, carried out."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from google.protobuf.json_format import ParseDict, ParseError

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.changes import difference, look
from worker.command import run_command
from worker.paths import within
from worker.provider import Emitter, ProviderFailed, Request
from worker.recording import Step, kind_of

_PLACES = re.compile(r"\{(?:prompt|turn|answer|note|input)\}")
_WORDS_SECONDS = 0.05
_STAMP_EVERY = 64
_STATUS = {"done": "completed", "now": "in_progress"}
_LEAVES = {
    "allow": session.APPROVAL_OPTION_KIND_ALLOW_ONCE,
    "allow_all": session.APPROVAL_OPTION_KIND_ALLOW_SESSION,
    "reject": session.APPROVAL_OPTION_KIND_REJECT_ONCE,
}


class Player:
    """Plays steps in order. `open_call` names the tool call that has no result yet, for one that is cut off."""

    def __init__(self, request: Request, emitter: Emitter) -> None:
        self.open_call = ""
        self._request = request
        self._emitter = emitter
        self._items = 0
        self._said = {"{prompt}": request.prompt, "{turn}": str(request.turn_number), "{answer}": "", "{note}": "", "{input}": ""}
        self._leave_for_all = False
        self._steps: dict[str, Callable[[Step], Awaitable[None]]] = {
            "say": self._say,
            "think": self._think,
            "plan": self._plan,
            "write": self._write,
            "edit": self._edit,
            "delete": self._delete,
            "run": self._run,
            "usage": self._usage,
            "burst": self._burst,
            "approve": self._approve,
            "ask": self._ask,
            "listen": self._listen,
            "fail": self._fail,
        }

    async def play(self, steps: Iterable[Step]) -> None:
        """Carry out all steps. Errors: ProviderFailed."""
        for step in steps:
            if "if" in step and step["if"] != self._said["{answer}"]:
                continue
            if wait := step.get("wait_ms"):
                await asyncio.sleep(wait / 1000)
            if kind := kind_of(step):
                await self._steps[kind](step)

    async def _say(self, step: Step) -> None:
        item, text = self._item("message"), self._text(step["say"])
        pieces = _slices(text, step.get("ms", 0) / 1000)
        for position, piece in enumerate(pieces):
            await self._emitter.delta(item, session.CHANNEL_TEXT, piece)
            if position < len(pieces) - 1:
                await asyncio.sleep(_WORDS_SECONDS)
        message = session.Message(role=session.ROLE_ASSISTANT, parts=[session.Part(text=text)], final=True)
        await self._emitter.emit(WorkerEvent(item_id=item, message=message))

    async def _think(self, step: Step) -> None:
        reasoning = session.Reasoning(text=self._text(step["think"]))
        await self._emitter.emit(WorkerEvent(item_id=self._item("reasoning"), reasoning=reasoning))

    async def _plan(self, step: Step) -> None:
        plan = session.PlanUpdated(plan_id="plan")
        for number, entry in enumerate(step["plan"], 1):
            status, _, text = str(entry).rpartition(": ")
            plan.entries.add(id=str(number), text=self._text(text), status=_STATUS.get(status, "pending"))
        await self._emitter.emit(WorkerEvent(item_id="plan", plan_updated=plan))

    async def _write(self, step: Step) -> None:
        path = self._path(step["write"])
        await self._change("Write", path, self._text(step["content"]), session.TOOL_KIND_EDIT)

    async def _edit(self, step: Step) -> None:
        path = self._path(step["edit"])
        old, new = self._text(step["old"]), self._text(step["new"])
        before = (await asyncio.to_thread(look, path)).content.decode(errors="replace")
        if old not in before:
            raise ProviderFailed(f"the recording edits {step['edit']!r}, but the text to replace is not there")
        await self._change("Edit", path, before.replace(old, new, 1), session.TOOL_KIND_EDIT)

    async def _delete(self, step: Step) -> None:
        await self._change("Delete", self._path(step["delete"]), None, session.TOOL_KIND_DELETE)

    async def _change(self, name: str, path: Path, content: str | None, kind: session.ToolKind) -> None:
        """Give the file new content (None removes it), as a tool call with its result and the change."""
        relative = str(path.relative_to(self._request.workspace.resolve()))
        call = session.ToolCall(name=name, tool_kind=kind, title=f"{name} {relative}", locations=[relative])
        call.input_json = json.dumps({"path": relative})
        item, started = await self._begin(call), time.monotonic()
        before = await asyncio.to_thread(look, path)
        try:
            await asyncio.to_thread(_put, path, content)
        except OSError as error:
            await self._end(item, session.TOOL_OUTCOME_FAILED, started, f"{relative}: {error.strerror}")
            return
        await self._end(item, session.TOOL_OUTCOME_COMPLETED, started, f"{name}: {relative}")
        change = difference(relative, before, await asyncio.to_thread(look, path))
        if change is not None:
            await self._emitter.emit(WorkerEvent(item_id=item, file_changed=session.FileChanged(call_id=item, changes=[change])))

    async def _run(self, step: Step) -> None:
        argv = ["sh", "-c", self._text(step["run"])] if isinstance(step["run"], str) else [self._text(str(word)) for word in step["run"]]
        line = argv[-1] if argv[:2] == ["sh", "-c"] else " ".join(argv)
        call = session.ToolCall(name="Bash", tool_kind=session.TOOL_KIND_EXECUTE, title=line[:200], command=line)
        call.input_json = json.dumps({"command": line})
        item, started = await self._begin(call), time.monotonic()
        ended = await run_command(argv, workspace=self._request.workspace, item_id=item, emitter=self._emitter)
        status = session.TOOL_OUTCOME_COMPLETED if ended.exit_code == 0 else session.TOOL_OUTCOME_FAILED
        await self._end(item, status, started, ended.output, exit_code=ended.exit_code, truncated=ended.truncated)

    async def _usage(self, step: Step) -> None:
        try:
            usage = ParseDict(step["usage"], session.UsageUpdated())
        except ParseError as error:
            raise ProviderFailed(f"the recording's usage: {error}") from error
        await self._emitter.emit(WorkerEvent(usage_updated=usage))

    async def _burst(self, step: Step) -> None:
        text, pace = self._text(step["text"]), step.get("per_second", 0)
        # One message, changed for each event: building it anew would cost more than all the rest of its way.
        event = WorkerEvent(item_id=self._item("burst"), content_delta=session.ContentDelta(channel=session.CHANNEL_TEXT, data=text))
        delta, size, started = event.content_delta, len(text), time.monotonic()
        for number in range(step["burst"]):
            if pace and (ahead := number / pace - (time.monotonic() - started)) > 0:
                await asyncio.sleep(ahead)
            if pace or number % _STAMP_EVERY == 0:
                event.ClearField("occurred_at")
            delta.offset = number * size
            await self._emitter.emit(event)

    async def _approve(self, step: Step) -> None:
        if self._leave_for_all or self._request.approvals != session.APPROVALS_ASK:
            self._said["{answer}"] = "allow"
            return
        line = self._text(str(step.get("command", "")))
        call = session.ToolCall(
            name="Bash", tool_kind=session.TOOL_KIND_EXECUTE, title=line, command=line, status=session.TOOL_STATUS_PENDING
        )
        asked = session.ApprovalRequested(tool=call if line else None, title=self._text(step["approve"]))
        for leave, kind in _LEAVES.items():
            asked.options.add(id=leave, kind=kind)
        resolved = await self._request.desk.approve(asked)
        self._hear(resolved, resolved.option_id)
        self._leave_for_all = resolved.option_id == "allow_all"

    async def _ask(self, step: Step) -> None:
        choices = [str(choice) for choice in step.get("choices", [])]
        asked = session.QuestionRequested()
        question = asked.questions.add(id="question", text=self._text(step["ask"]), multi=bool(step.get("multi")), free_text=not choices)
        for choice in choices:
            question.options.add(id=choice, label=choice)
        resolved = await self._request.desk.ask(asked)
        self._hear(resolved, ", ".join(text for answer in resolved.answers for text in (*answer.option_ids, answer.text) if text))

    def _hear(self, resolved: session.RequestResolved, answer: str) -> None:
        outcome = session.RequestOutcome.Name(resolved.outcome).removeprefix("REQUEST_OUTCOME_").lower()
        self._said |= {"{answer}": answer or outcome, "{note}": resolved.note}

    async def _listen(self, step: Step) -> None:
        for _ in range(step["listen"]):
            message = await self._request.inbox.next()
            await self._request.inbox.taken(message.input_id)
            self._said["{input}"] = message.text

    async def _fail(self, step: Step) -> None:
        raise ProviderFailed(self._text(step["fail"]))

    async def _begin(self, call: session.ToolCall) -> str:
        call.call_id, call.status = self._item("call"), session.TOOL_STATUS_RUNNING
        self.open_call = call.call_id
        await self._emitter.emit(WorkerEvent(item_id=call.call_id, tool_call=call))
        return call.call_id

    async def _end(
        self, item: str, status: session.ToolOutcome, started: float, text: str, *, exit_code: int | None = None, truncated: bool = False
    ) -> None:
        result = session.ToolResult(call_id=item, status=status, exit_code=exit_code, truncated=truncated)
        result.duration.FromNanoseconds(int((time.monotonic() - started) * 1e9))
        if text:
            result.parts.add(text=text)
        self.open_call = ""
        await self._emitter.emit(WorkerEvent(item_id=item, tool_result=result))

    def _item(self, kind: str) -> str:
        self._items += 1
        return f"{kind}-{self._items}"

    def _path(self, name: str) -> Path:
        return within(self._request.workspace, self._text(name))

    def _text(self, text: str) -> str:
        return _PLACES.sub(lambda place: self._said[place[0]], text)


def _slices(text: str, seconds: float) -> list[str]:
    """The text in as many pieces as are told over that time."""
    count = max(1, min(len(text), round(seconds / _WORDS_SECONDS)))
    size = math.ceil(len(text) / count) or 1
    return [text[start : start + size] for start in range(0, len(text), size)]


def _put(path: Path, content: str | None) -> None:
    if content is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
