"""A Postgres of its own that a test restarts, run by a process of its own.

It runs as another user, and for that Python forks with all of gRPC's handlers: next to a busy gRPC server the child may die of them.
`treadle up` starts Postgres before it has a server, so this is a matter of the tests only.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from server.embedded.postgres import EmbeddedPostgres
from server.embedded.postgres_home import DatabaseUrls

SECONDS = 60


class RestartablePostgres:
    """The process that runs it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.urls = DatabaseUrls("", "", "")

    async def ready(self) -> None:
        """Until it accepts connections."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), SECONDS)
        self.urls = DatabaseUrls(*line.decode().split())

    async def stop(self) -> None:
        """All connections are cut, and new ones refused, until `start`."""
        assert self._process.stdout is not None
        self._say(b"stop\n")
        assert await asyncio.wait_for(self._process.stdout.readline(), SECONDS) == b"stopped\n"

    async def start(self) -> None:
        """With what was committed, at the same address."""
        self._say(b"start\n")
        await self.ready()

    def _say(self, word: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word)


@asynccontextmanager
async def restartable_postgres(data_dir: Path) -> AsyncIterator[RestartablePostgres]:
    """Postgres under `data_dir` for the time of the context."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "support.restartable_postgres", data_dir),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    postgres = RestartablePostgres(process)
    try:
        await postgres.ready()
        yield postgres
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), SECONDS)


async def _serve(data_dir: Path) -> None:
    while True:
        async with EmbeddedPostgres(data_dir) as urls:
            print(urls.app, urls.system, urls.owner, flush=True)
            await asyncio.to_thread(sys.stdin.readline)
        print("stopped", flush=True)
        if not await asyncio.to_thread(sys.stdin.readline):
            return


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
