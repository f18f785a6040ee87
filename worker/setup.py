"""`.treadle/setup`: what a repository wants to be run in its workspace before an agent starts there, for its dependencies."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import re
import stat
import struct
import time
from pathlib import Path
from typing import BinaryIO

from carrier.tree import pack
from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1 import worker_service_pb2 as wire
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.command import CommandResult, run_command
from worker.notices import Notices
from worker.paths import OutsideWorkspace, within
from worker.provider import Emitter

SCRIPT = ".treadle/setup"
SECONDS = 600.0
ARCHIVE = ".git/treadle-prepared"
"""What was made, for the server to keep: for each directory its path, two bytes of length before it, and its tree (carrier/tree.py)."""
PLACED = ".git/treadle-placed"
"""Is there when the server has put what an earlier run had made into the workspace."""
_KEEP = re.compile(rb"^#[ \t]*keep:(.*)$", re.MULTILINE)
_HEAD_BYTES = 4096
_ARCHIVE_BYTES = 2 * 1024 * 1024 * 1024
_ITEM = "setup"
_LAST_WORD_SECONDS = 0.2


async def set_up(workspace: Path, emitter: Emitter, notices: Notices, *, seconds: float = SECONDS) -> None:
    """Run the script, if there is one, as the agent would run it; told as a tool call. That it fails is told, too, and stops nobody: an
    agent can do much without dependencies, and may find out what is wrong."""
    script = workspace / SCRIPT
    if not _is_file(script):
        return
    call = session.ToolCall(call_id=_ITEM, name="setup", tool_kind=session.TOOL_KIND_EXECUTE, title=SCRIPT, command=SCRIPT)
    call.status = session.TOOL_STATUS_RUNNING
    await emitter.emit(WorkerEvent(item_id=_ITEM, tool_call=call))
    started = time.monotonic()
    if (workspace / PLACED).exists():
        await _tell(emitter, _result(CommandResult(0, 0.0, "kept from an earlier turn\n", truncated=False)), started)
        return
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
    # Told in any case, and before the agent runs: what is told later is not believed.
    notices.tell(wire.WorkerNotice(prepared="" if failed else await asyncio.to_thread(_archived, workspace)))


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


# -- what it made


def _archived(workspace: Path) -> str:
    """Write the archive; its SHA-256, or nothing when there is nothing to keep, or too much."""
    archive = workspace / ARCHIVE
    try:
        directories = _kept(workspace)
        if not directories:
            return ""
        with archive.open("xb") as file:
            sink = _Digesting(file)
            for name, directory in directories:
                sink.write(struct.pack(">H", len(name)) + name)
                pack(directory, sink)
        return sink.digest.hexdigest()
    except OSError:
        archive.unlink(missing_ok=True)
        return ""


def _kept(workspace: Path) -> list[tuple[bytes, Path]]:
    """The directories that the script's head names (`# keep: node_modules .venv`), those that there are."""
    with (workspace / SCRIPT).open("rb") as script:
        found = _KEEP.search(script.read(_HEAD_BYTES))
    directories = []
    for name in found[1].split() if found else []:
        with contextlib.suppress(OutsideWorkspace, ValueError):
            path = within(workspace, name.decode())
            if path.is_dir():
                directories.append((name, path))
    return directories


class _Digesting(io.RawIOBase, BinaryIO):
    """Passes on what is written, and knows its digest. Errors: OSError for more than may be kept."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self._file = file
        self._left = _ARCHIVE_BYTES

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._left -= len(data)
        if self._left < 0:
            raise OSError(errno.EFBIG, "too much to keep")
        self.digest.update(data)
        return self._file.write(data)
