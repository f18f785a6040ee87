"""Run the main server until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext

import structlog
from prometheus_client import start_http_server

from server import telemetry
from server.composition import Server, compose
from server.config import Settings
from server.listening import require_free
from server.secrets import known_secrets
from server.serving import told_others

log = structlog.get_logger()


def serve_until_signal(settings: Settings, *, mark: Callable[[str], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT: streams end with a hint to resume, workers go on for the next process."""
    return asyncio.run(_serve(settings, mark))


async def _serve(settings: Settings, mark: Callable[[str], None] | None) -> int:
    async with running(settings, mark=mark) as server:
        keep_what_stays()
        log.info("server.ready", address=server.api.address, launcher=server.launcher.capability.name)
        stopped = asyncio.ensure_future(_until(stop_signals()))
        await asyncio.wait([stopped, server.failed], return_when=asyncio.FIRST_COMPLETED)
        failed = server.failed.done()
        stopped.cancel()
        log.info("server.draining", failed=failed)
    return 1 if failed else 0


def keep_what_stays() -> None:
    """What was made until now stays for the process's life. Not looking at it again takes 25 ms of silence, for every stream, out of
    each full garbage collection."""
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def running(settings: Settings, *, mark: Callable[[str], None] | None = None) -> AsyncIterator[Server]:
    """The server with its logs and its metrics page. Errors: StartRefused, and those of `compose`."""
    require_free({"TREADLE_LISTEN": settings.listen, "TREADLE_METRICS_LISTEN": settings.metrics_listen})
    with logs(settings):
        async with compose(settings, mark=mark) as server:
            with metrics_page(settings.metrics_listen), told_others(settings, server):
                yield server


@contextmanager
def logs(settings: Settings) -> Iterator[None]:
    """Structured logs, to where the settings say. Errors: OSError when the file cannot be written."""
    with open(settings.log_file, "a", encoding="utf-8", opener=_private) if settings.log_file else nullcontext(sys.stderr) as output:
        telemetry.configure_logging(
            log_format=settings.log_format, level=settings.log_level, secrets=known_secrets(settings, os.environ), output=output
        )
        try:
            with telemetry.standard_logs():
                yield
        finally:
            structlog.reset_defaults()


def _private(path: str, flags: int) -> int:
    """The log names repositories and what users ask for: for the server's own user only."""
    return os.open(path, flags, 0o600)


@contextmanager
def metrics_page(listen: str) -> Iterator[str]:
    """Serve the metrics on `listen`, and tell the URL; empty for none. Errors: OSError when the address is taken."""
    if not listen:
        yield ""
        return
    host, _, port = listen.rpartition(":")
    page, thread = start_http_server(int(port), host.strip("[]"))
    try:
        yield f"http://{host}:{page.server_port}/metrics"
    finally:
        page.shutdown()
        thread.join(timeout=5)
        page.server_close()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


def stop_signals() -> asyncio.Event:
    """Set at the first SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
