"""`.treadle/setup`: what a repository wants to be run in its workspace before an agent starts there, for its dependencies."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import time
from pathlib import Path

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.command import CommandResult, run_command
from worker.provider import Emitter

SCRIPT = ".treadle/setup"
SECONDS = 600.0
_ITEM = "setup"
_LAST_WORD_SECONDS = 0.2


async def set_up(workspace: Path, emitter: Emitter, *, seconds: float = SECONDS) -> None:
    """Run the script, if there is one, as the agent would run it; told as a tool call. That it fails is told, too, and stops nobody: an
    agent can do much without dependencies, and may find out what is wrong."""
    script = workspace / SCRIPT
    if not _is_file(script):
        return
    call = session.ToolCall(call_id=_ITEM, name="setup", tool_kind=session.TOOL_KIND_EXECUTE, title=SCRIPT, command=SCRIPT)
    call.status = session.TOOL_STATUS_RUNNING
    await emitter.emit(WorkerEvent(item_id=_ITEM, tool_call=call))
    started = time.monotonic()
    ended: CommandResult | None = None
    try:
        async with asyncio.timeout(seconds):
            ended = await run_command([str(script)], workspace=workspace, item_id=_ITEM, emitter=emitter)
    except TimeoutError:
        pass  # told below
    except asyncio.CancelledError:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await _tell(emitter, session.ToolResult(status=session.TOOL_OUTCOME_CANCELLED), started)
        raise
    await _tell(emitter, _result(ended), started)
    if failed := _what_failed(ended, seconds):
        message = f"{SCRIPT} {failed}; the agent starts without what it should have made"
        await emitter.emit(WorkerEvent(error=session.Error(code="SETUP_FAILED", message=message)))


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _result(ended: CommandResult | None) -> session.ToolResult:
    if ended is None:
        return session.ToolResult(status=session.TOOL_OUTCOME_TIMED_OUT)
    outcome = session.TOOL_OUTCOME_FAILED if ended.exit_code else session.TOOL_OUTCOME_COMPLETED
    result = session.ToolResult(status=outcome, exit_code=ended.exit_code, truncated=ended.truncated)
    if ended.output:
        result.parts.add(text=ended.output)
    return result


def _what_failed(ended: CommandResult | None, seconds: float) -> str:
    if ended is None:
        return f"took more than {seconds:g} s and was ended"
    return f"failed with code {ended.exit_code}" if ended.exit_code else ""


async def _tell(emitter: Emitter, result: session.ToolResult, started: float) -> None:
    result.call_id = _ITEM
    result.duration.FromNanoseconds(int((time.monotonic() - started) * 1e9))
    await emitter.emit(WorkerEvent(item_id=_ITEM, tool_result=result))
