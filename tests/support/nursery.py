"""Servers that begin as forks of one process that has loaded all code already: where many are killed, loading it each time is most of
the work."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest


class Nursery:
    """A process that has loaded all code, and of which each server is a child: half a second less for each."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._child: Child | None = None

    async def bear(self, environment: dict[str, str], log: Path) -> Child:
        """One server at a time: what a test that failed has left is ended."""
        await self.end()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        output = self._folder / f"said.{time.monotonic_ns()}"
        os.mkfifo(output)
        # Held open by this end until the child has opened it.
        held = os.open(output, os.O_RDWR | os.O_NONBLOCK)
        reader = asyncio.StreamReader()
        pipe = os.fdopen(os.open(output, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        asked = {"environment": environment, "output": str(output), "log": str(log)}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        pid = int(await self._process.stdout.readline())
        self._child = Child(pid, reader, self._process.stdout, held)
        return self._child

    async def end(self) -> None:
        """The server that is there, if there is one."""
        if self._child is not None and self._child.returncode is None:
            self._child.kill()
            await self._child.wait()


class Child:
    """As much of asyncio.subprocess.Process as is needed of it."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader, ends: asyncio.StreamReader, held: int) -> None:
        self.pid = pid
        self.stdout = stdout
        self._held = held
        self._waiting = asyncio.create_task(self._wait(ends))

    @property
    def returncode(self) -> int | None:
        return self._waiting.result() if self._waiting.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self._waiting)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    async def _wait(self, ends: asyncio.StreamReader) -> int:
        code = int(await ends.readline())
        # Whoever reads what it said comes to the end of it.
        os.close(self._held)
        return code


@pytest.fixture(scope="session")
async def nursery(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nursery]:
    """One for all tests of a test process. Each leaves it without a server."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "support.killable",
        "--parent",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "GRPC_ENABLE_FORK_SUPPORT": "0"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    nursery = Nursery(process, tmp_path_factory.mktemp("nursery"))
    try:
        yield nursery
    finally:
        await nursery.end()
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(30):
            await process.wait()
