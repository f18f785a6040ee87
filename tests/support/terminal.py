"""A command on a terminal of its own."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

LIMIT_SECONDS = 60


class Terminal:
    """A command on a terminal of its own, which shows what is typed as well as what is written."""

    def __init__(self, controller: int, process: asyncio.subprocess.Process) -> None:
        self.shown = ""
        self.process = process
        self._controller = controller
        self._news = asyncio.Event()

    async def says(self, text: str, *, times: int = 1) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while self.shown.count(text) < times:
                self._news.clear()
                await self._news.wait()

    async def types(self, text: str) -> None:
        """Returns when the terminal has it, whether anybody reads it or not."""
        before = self.shown.count(text.strip())
        os.write(self._controller, text.encode())
        await self.says(text.strip(), times=before + 1)

    def press(self, key: str) -> None:
        """A key that is not shown as it is, such as Ctrl-D."""
        os.write(self._controller, key.encode())

    async def ended(self) -> int:
        """The exit code; all that was said is `shown` then."""
        return await asyncio.wait_for(self.process.wait(), LIMIT_SECONDS)

    def hear(self) -> None:
        try:
            self.shown += os.read(self._controller, 65536).decode().replace("\r\n", "\n")
        except OSError:
            # It is closed when the command has ended.
            asyncio.get_running_loop().remove_reader(self._controller)
        self._news.set()


@asynccontextmanager
async def on_a_terminal(home: Any, *arguments: str, errors: bool = False, code: int = 0) -> AsyncIterator[Terminal]:
    """Runs the command; it has to end with `code`. `errors`: the terminal shows these, too."""
    controller, inner = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "NO_COLOR": "1", "TREADLE_DATA_DIR": str(home.data_dir)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server.cli", *arguments, stdin=inner, stdout=inner, stderr=inner if errors else None, env=environment
    )
    os.close(inner)
    terminal = Terminal(controller, process)
    asyncio.get_running_loop().add_reader(controller, terminal.hear)
    try:
        yield terminal
        assert await terminal.ended() == code, terminal.shown
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(controller)
        os.close(controller)
