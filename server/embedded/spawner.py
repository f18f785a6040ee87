"""The spawner as a part of `treadle up`: a process that has the engine's socket, so that the server need not, and none of its secrets."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from server.embedded.keeping import kept
from server.embedded.postgres_process import WatchedProcess, open_private
from server.refusal import SettingsUnfit

if TYPE_CHECKING:
    from server.config import Settings

START_SECONDS = 60.0
STOP_SECONDS = 5.0
_POLL_SECONDS = 0.02
_LOG_TAIL = 2000
_MARK = "spawner: "


@asynccontextmanager
async def embedded_spawner(settings: Settings, say: Callable[[str], None]) -> AsyncIterator[None]:
    """The spawner for the time of the context, started again when it dies, which `say` is told. Containers are left alone at the end.
    Errors: SettingsUnfit when it does not come up, with what it says."""
    spawner = _Spawner(settings)
    try:
        await spawner.start()
        async with kept(spawner, say):
            yield
    finally:
        await spawner.stop()


def spawner_environment(settings: Settings) -> dict[str, str]:
    """What the spawner's own settings are read from, and nothing else of this process's environment: no credential."""
    from server.spawner.settings import SpawnerSettings

    names = {"PATH", "DOCKER_HOST", *(f"TREADLE_{name.upper()}" for name in SpawnerSettings.model_fields)}
    given = {name: value for name, value in os.environ.items() if name.upper() in names}
    return given | {"TREADLE_DATA_DIR": str(settings.data_dir), "TREADLE_SPAWNER_SOCKET": str(settings.spawner_address.absolute())}


class _Spawner:
    """A Part."""

    name = "the spawner"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = settings.data_dir / "spawner.log"
        self._process: WatchedProcess | None = None

    async def start(self) -> None:
        """Until it serves, which it does when it has seen that containers can be made. Errors: SettingsUnfit."""
        begun, child = self._spawn()
        self._process = WatchedProcess(child.pid, child)
        await self._until_ready(child, begun)

    def _spawn(self) -> tuple[int, subprocess.Popen[bytes]]:
        """Where in the log its words begin, and the process."""
        command = [sys.executable, "-I", "-m", "server.spawner", "--with", str(os.getpid())]
        environment, home = spawner_environment(self._settings), self._settings.data_dir
        with open_private(self._log) as log:
            # From this thread, which lives as long as the server: `--with` takes effect when the thread that started a process ends.
            return log.tell(), subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment, cwd=home
            )

    async def ended(self) -> int | None:
        """See Part."""
        assert self._process is not None  # noqa: S101 - it was started
        return await self._process.wait()

    async def restart(self) -> None:
        """See Part."""
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        """Its containers go on."""
        if self._process is not None:
            process, self._process = self._process, None
            try:
                await process.stop([signal.SIGTERM], seconds_each=STOP_SECONDS)
            finally:
                process.close()

    async def _until_ready(self, child: subprocess.Popen[bytes], begun: int) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                while child.poll() is None:
                    if self._answers():
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise SettingsUnfit(f"the spawner does not answer after {START_SECONDS:g} s; its log is {self._log}") from None
        said = self._log.read_bytes()[begun:].decode(errors="replace").strip()
        # What it refuses is told after this mark; anything else is a failure of its own.
        raise SettingsUnfit(said.rpartition(_MARK)[2] if _MARK in said else f"the spawner does not start: {said[-_LOG_TAIL:]}")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._settings.spawner_address))
            except OSError:
                return False
        return True
