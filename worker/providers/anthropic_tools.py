"""The tools of the agent `anthropic`: commands and files of the workspace."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.changes import difference, look
from worker.command import CommandResult, run_command
from worker.paths import OutsideWorkspace, shown, within
from worker.provider import Emitter
from worker.providers.anthropic_people import Leave

_COMMAND_SECONDS, _MAX_COMMAND_SECONDS = 120, 1800
_SEARCH_SECONDS = 30
_READ_LINES, _READ_CHARS = 2000, 100_000
_FOUND = 500


def _tool(name: str, description: str, required: Sequence[str] = (), **properties: str) -> dict[str, Any]:
    kinds = {"timeout_seconds": "integer", "offset": "integer", "limit": "integer", "replace_all": "boolean"}
    fields = {key: {"type": kinds.get(key, "string"), "description": text} for key, text in properties.items()}
    return {"name": name, "description": description, "input_schema": {"type": "object", "properties": fields, "required": [*required]}}


DEFINITIONS = [
    _tool(
        "bash",
        "Run a shell command in the workspace. Answers with its output and exit code. Each call is a shell of its own.",
        ["command"],
        command="The command line.",
        timeout_seconds=f"When to give it up; {_COMMAND_SECONDS} unless said, at most {_MAX_COMMAND_SECONDS}.",
    ),
    _tool(
        "read",
        f"Read a text file, with line numbers; {_READ_LINES} lines unless said.",
        ["file_path"],
        file_path="Path in the workspace.",
        offset="The first line, from 1.",
        limit="How many lines.",
    ),
    _tool(
        "write",
        "Write a file: a new one, or all of an existing one. Missing directories are made.",
        ["file_path", "content"],
        file_path="Path in the workspace.",
        content="All of it.",
    ),
    _tool(
        "edit",
        "Replace a text in a file. It must occur exactly once, unless replace_all is set.",
        ["file_path", "old_string", "new_string"],
        file_path="Path in the workspace.",
        old_string="The text as it is.",
        new_string="The text as it shall be.",
        replace_all="Replace every occurrence.",
    ),
    _tool("glob", "List files whose path matches a pattern, for example `src/**/*.py`.", ["pattern"], pattern="The pattern."),
    _tool(
        "grep",
        "Search the content of files. Answers with path, line number and line.",
        ["pattern"],
        pattern="An extended regular expression.",
        path="File or directory; the workspace unless said.",
    ),
]

_FIELDS = {tool["name"]: frozenset(tool["input_schema"]["properties"]) for tool in DEFINITIONS}

_KINDS = {
    "bash": session.TOOL_KIND_EXECUTE,
    "read": session.TOOL_KIND_READ,
    "write": session.TOOL_KIND_EDIT,
    "edit": session.TOOL_KIND_EDIT,
    "glob": session.TOOL_KIND_SEARCH,
    "grep": session.TOOL_KIND_SEARCH,
}


@dataclass(frozen=True)
class Call:
    """What the model wants."""

    id: str
    name: str
    input: dict[str, Any]


class ToolError(Exception):
    """The tool could not do it; the message is for the model."""


@dataclass(frozen=True)
class _Done:
    text: str
    outcome: session.ToolOutcome = session.TOOL_OUTCOME_COMPLETED
    exit_code: int | None = None
    truncated: bool = False
    changes: Sequence[session.FileChange] = ()


class Tools:
    """Carries out calls, one at a time, and tells them. `open_call` names the one that has no result yet."""

    def __init__(self, workspace: Path, emitter: Emitter, leave: Leave) -> None:
        self.open_call = ""
        self._workspace = workspace
        self._emitter = emitter
        self._leave = leave
        self._tools: dict[str, Callable[[Call], Awaitable[_Done]]] = {
            "bash": self._bash,
            "read": self._read,
            "write": self._write,
            "edit": self._edit,
            "glob": self._glob,
            "grep": self._grep,
        }

    async def use(self, call: Call) -> dict[str, Any]:
        """Do it; returns `content` and `is_error` of the tool_result block."""
        self.open_call = call.id
        told = self.told(call)
        # What will not be done anyway is nothing to ask a person for.
        refused = "" if _unknown(call) else await self._leave.refused(told, call.input)
        started = time.monotonic()
        done = _Done(refused, session.TOOL_OUTCOME_DECLINED) if refused else await self._done(call, told)
        await self._tell(call, done, time.monotonic() - started)
        self.open_call = ""
        return {"content": done.text or "(no output)", "is_error": done.outcome != session.TOOL_OUTCOME_COMPLETED}

    async def _done(self, call: Call, told: session.ToolCall) -> _Done:
        await self._emitter.emit(WorkerEvent(item_id=call.id, tool_call=told))
        try:
            tool = self._tools.get(call.name)
            if tool is None:
                raise ToolError(f"there is no tool {call.name!r}; there are: {', '.join(self._tools)}")
            if unknown := _unknown(call):
                raise ToolError(f"{call.name} has no field {', '.join(unknown)}; it has: {', '.join(sorted(_FIELDS[call.name]))}")
            return await tool(call)
        except (ToolError, OutsideWorkspace) as error:
            return _Done(str(error), session.TOOL_OUTCOME_FAILED)
        except OSError as error:
            return _Done(f"{error.strerror}: {error.filename}", session.TOOL_OUTCOME_FAILED)
        except (UnicodeError, ValueError) as error:
            return _Done(f"that does not work: {error}", session.TOOL_OUTCOME_FAILED)

    # -- the tools ----------------------------------------------------------------------------------------------------------

    async def _bash(self, call: Call) -> _Done:
        command = _text(call, "command")
        seconds = min(_number(call, "timeout_seconds", _COMMAND_SECONDS), _MAX_COMMAND_SECONDS)
        try:
            ended = await self._run(["bash", "-c", command], call, seconds)
        except TimeoutError:
            return _Done(f"it was stopped after {seconds} s", session.TOOL_OUTCOME_TIMED_OUT)
        text = ended.output + (f"\n[exit code {ended.exit_code}]" if ended.exit_code else "")
        outcome = session.TOOL_OUTCOME_FAILED if ended.exit_code else session.TOOL_OUTCOME_COMPLETED
        return _Done(text, outcome, ended.exit_code, ended.truncated)

    async def _read(self, call: Call) -> _Done:
        path = self._path(call)
        first, count = max(1, _number(call, "offset", 1)), _number(call, "limit", _READ_LINES)
        seen = await asyncio.to_thread(look, path)
        if not seen.exists or not (seen.whole or seen.content):
            raise ToolError(f"there is no file {_text(call, 'file_path')!r}")
        lines = seen.content.decode(errors="replace").splitlines()[first - 1 : first - 1 + count]
        text = "\n".join(f"{number:6}\t{line}" for number, line in enumerate(lines, first))
        return _Done(text[:_READ_CHARS], truncated=len(text) > _READ_CHARS or not seen.whole)

    async def _write(self, call: Call) -> _Done:
        return await self._change(call, lambda _: _text(call, "content"))

    async def _edit(self, call: Call) -> _Done:
        old, new = _text(call, "old_string"), _text(call, "new_string")

        def replaced(before: str | None) -> str:
            count = before.count(old) if before is not None and old else 0
            if before is None or not count:
                raise ToolError("old_string does not occur in the file; read it first")
            if count > 1 and call.input.get("replace_all") is not True:
                raise ToolError(f"old_string occurs {count} times; make it longer, or set replace_all")
            return before.replace(old, new)

        return await self._change(call, replaced)

    async def _glob(self, call: Call) -> _Done:
        pattern = _text(call, "pattern")
        if pattern.startswith("/") or ".." in pattern.split("/"):
            raise ToolError("the pattern must stay in the workspace")
        found = await asyncio.to_thread(self._matching, pattern)
        return _Done("\n".join(found[:_FOUND]) or "(nothing matches)", truncated=len(found) > _FOUND)

    async def _grep(self, call: Call) -> _Done:
        path = str(within(self._workspace, call.input.get("path") or ".").relative_to(self._workspace.resolve()))
        search = ["grep", "-rnIE", "--exclude-dir=.git", "-e", _text(call, "pattern"), "--", path]
        try:
            ended = await self._run(search, call, _SEARCH_SECONDS)
        except TimeoutError:
            return _Done(f"it was stopped after {_SEARCH_SECONDS} s", session.TOOL_OUTCOME_TIMED_OUT)
        if ended.exit_code > 1:
            raise ToolError(ended.output)
        return _Done(ended.output or "(nothing matches)", truncated=ended.truncated)

    # -- their parts --------------------------------------------------------------------------------------------------------

    async def _run(self, argv: Sequence[str], call: Call, seconds: float) -> CommandResult:
        async with asyncio.timeout(seconds):
            return await run_command(argv, workspace=self._workspace, item_id=call.id, emitter=self._emitter)

    async def _change(self, call: Call, content: Callable[[str | None], str]) -> _Done:
        path = self._path(call)
        before = await asyncio.to_thread(look, path)
        if before.exists and not before.whole:
            raise ToolError("it is no file, or too large to be edited like this")
        text = content(before.content.decode() if before.exists else None)
        await asyncio.to_thread(_put, path, text)
        relative = str(path.relative_to(self._workspace.resolve()))
        change = difference(relative, before, await asyncio.to_thread(look, path))
        return _Done(f"written: {relative}", changes=[change] if change else [])

    def _matching(self, pattern: str) -> list[str]:
        found = (path.relative_to(self._workspace) for path in self._workspace.glob(pattern) if path.is_file())
        return sorted(str(path) for path in found if ".git" not in path.parts)

    def _path(self, call: Call) -> Path:
        return within(self._workspace, _text(call, "file_path"))

    def told(self, call: Call) -> session.ToolCall:
        """The call as an event has it."""
        named = call.input.get("file_path") or call.input.get("path")
        locations = [shown(self._workspace, named)] if isinstance(named, str) else []
        command = call.input.get("command") if call.name == "bash" else None
        about = command or call.input.get("pattern") or " ".join(locations)
        told = session.ToolCall(
            call_id=call.id,
            name=call.name,
            tool_kind=_KINDS.get(call.name, session.TOOL_KIND_OTHER),
            title=f"{call.name} {about}"[:200],
            input_json=json.dumps(call.input),
            locations=locations,
            status=session.TOOL_STATUS_RUNNING,
        )
        if isinstance(command, str):
            told.command, told.title = command, command[:200]
        return told

    async def _tell(self, call: Call, done: _Done, seconds: float) -> None:
        result = session.ToolResult(call_id=call.id, status=done.outcome, exit_code=done.exit_code, truncated=done.truncated)
        result.duration.FromNanoseconds(int(seconds * 1e9))
        if done.text:
            result.parts.add(text=done.text)
        await self._emitter.emit(WorkerEvent(item_id=call.id, tool_result=result))
        if done.changes:
            changed = session.FileChanged(call_id=call.id, changes=done.changes)
            await self._emitter.emit(WorkerEvent(item_id=call.id, file_changed=changed))


def _unknown(call: Call) -> list[str]:
    """Fields that the tool does not have: nothing would come of them, but a person who is asked would see them."""
    return sorted(call.input.keys() - _FIELDS.get(call.name, call.input.keys()))


def _text(call: Call, name: str) -> str:
    value = call.input.get(name)
    if not isinstance(value, str):
        raise ToolError(f"{name} is missing, or no text")
    return value


def _number(call: Call, name: str, default: int) -> int:
    value = call.input.get(name, default)
    if not isinstance(value, int) or value < 1:
        raise ToolError(f"{name} is a number from 1")
    return value


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
