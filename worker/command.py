"""Runs a command for an agent: in the workspace, in its own process group, its output told as it comes."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from treadle.session.v1 import event_pb2 as session
from worker.oom import first_to_go
from worker.provider import Emitter

_READ_BYTES = 16 * 1024
_KEPT_CHARS = 32 * 1024
_SILENCE_SECONDS = 0.5


@dataclass(frozen=True)
class CommandResult:
    """How a command ended."""

    exit_code: int
    """128 + n when signal n ended it; 127 when it could not be started."""
    seconds: float
    output: str
    """Standard output and error as they came, at most the first 32 Ki characters."""
    truncated: bool


async def run_command(argv: Sequence[str], *, workspace: Path, item_id: str, emitter: Emitter) -> CommandResult:
    """Run it to its end and tell its output as deltas of `item_id`.

    Its process group ends with it, also when this call is cancelled.
    """
    started = time.monotonic()
    output = _Output(item_id, emitter)
    try:
        # Not in a thread: a cancel would come back before the process, and nobody would own it. asyncio's own spawn does the same.
        process = _start(argv, workspace)
    except OSError as error:
        return CommandResult(127, 0.0, f"{argv[0]}: {error.strerror}", truncated=False)
    try:
        async with _tellers(process, output) as tellers:
            await _exited(process)
            _kill_group(process)
            await output.drained(tellers)
    finally:
        _kill_group(process)
        code = process.wait()
    seconds = time.monotonic() - started
    return CommandResult(code if code >= 0 else 128 - code, seconds, output.kept, truncated=output.truncated)


def _start(argv: Sequence[str], workspace: Path) -> subprocess.Popen[bytes]:
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with first_to_go():
        return subprocess.Popen(list(argv), cwd=workspace, stdin=null, stdout=pipe, stderr=pipe, start_new_session=True)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The leader is not reaped before this, so the number is still its own.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _exited(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end without reaping."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    pidfd = os.pidfd_open(process.pid)
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


@asynccontextmanager
async def _tellers(process: subprocess.Popen[bytes], output: _Output) -> AsyncIterator[set[asyncio.Task[None]]]:
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    pipes = ((process.stdout, session.CHANNEL_STDOUT), (process.stderr, session.CHANNEL_STDERR))
    tasks = {asyncio.create_task(output.tell(pipe, channel)) for pipe, channel in pipes}
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class _Output:
    """What a command prints: told as deltas, its beginning kept."""

    def __init__(self, item_id: str, emitter: Emitter) -> None:
        self.kept = ""
        self.truncated = False
        self._item_id = item_id
        self._emitter = emitter
        self._chunks = 0
        self._telling = 0

    async def tell(self, pipe: IO[bytes], channel: session.Channel) -> None:
        """Read one pipe to its end."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while chunk := await reader.read(_READ_BYTES):
                self._chunks += 1
                self._telling += 1
                await self._add(decoder.decode(chunk), channel)
                self._telling -= 1
        finally:
            transport.close()

    async def drained(self, tellers: set[asyncio.Task[None]]) -> None:
        """Wait for the ends of the pipes. One that a process outside the group still holds open counts as ended after some silence."""
        seen, left = -1, tellers
        while left and (self._telling or self._chunks != seen):
            seen = self._chunks
            _, left = await asyncio.wait(left, timeout=_SILENCE_SECONDS)

    async def _add(self, text: str, channel: session.Channel) -> None:
        if not text:
            return
        room = _KEPT_CHARS - len(self.kept)
        self.truncated |= len(text) > room
        self.kept += text[:room]
        await self._emitter.delta(self._item_id, channel, text)
