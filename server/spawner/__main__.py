"""`python -m server.spawner`: makes containers for workers. `treadle up` starts it; other deployments run it beside the server."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.spawner.settings import SpawnerSettings

_DONE, _FAILED, _REFUSED = 0, 1, 2
_PR_SET_PDEATHSIG = 1
_HEALTH_SECONDS = 5.0


def main() -> int:
    """Exit code 0 after SIGTERM or SIGINT, 1 when it could not go on, 2 when it cannot start like this."""
    parser = argparse.ArgumentParser(
        prog="python -m server.spawner",
        description="Makes containers for workers: the only program of Treadle that speaks to the container engine.",
        epilog="Every setting is an environment variable, listed in docs/configuration.md.",
    )
    parser.add_argument("--check", action="store_true", help="only look whether it could serve, say what was found, and end")
    parser.add_argument("--healthy", action="store_true", help="only look whether one serves here")
    words = "when it is stopped and no server is there any more, end all workers: then nothing of a deployment is left"
    parser.add_argument("--end-workers", action="store_true", help=words)
    parser.add_argument("--with", type=int, metavar="PID", dest="parent", help="end with the process that started it, which is this one")
    options = parser.parse_args()
    if options.healthy:
        return _healthy()
    if options.parent is not None and not _tied_to(options.parent):
        return _DONE
    # Read when grpc is imported. We fork only to run other programs; gRPC's own preparations for a fork print warnings then.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from server.environment import spawner_settings_of_environment
    from server.refusal import StartRefused

    try:
        settings = spawner_settings_of_environment()
        return asyncio.run(_check(settings) if options.check else _serve(settings, end_workers=options.end_workers))
    except StartRefused as error:
        return _complain(str(error))


def _healthy() -> int:
    """It listens when it has seen a wall that holds, and no sooner. Asked often, so nothing is loaded that this does not need."""
    from server.data_dir import chosen_data_dir

    address: str | tuple[str, int] = os.environ.get("TREADLE_SPAWNER_SOCKET") or str(chosen_data_dir(None) / "spawner.sock")
    family = socket.AF_UNIX
    if tcp := os.environ.get("TREADLE_SPAWNER_TCP"):
        family, address = socket.AF_INET, ("127.0.0.1", int(tcp.rpartition(":")[2]))
    with socket.socket(family) as probe:
        probe.settimeout(_HEALTH_SECONDS)
        error = probe.connect_ex(address)
    return _DONE if not error else _complain(f"nobody answers at {address}: {os.strerror(error)}", _FAILED)


async def _check(settings: SpawnerSettings) -> int:
    from server.spawner.serve import STALE, checked

    ready = await checked(settings)
    print(f"{', '.join(ready.providers)}: {ready.detail}")
    if ready.stale:
        print(f"images of another version of the worker than this ({', '.join(ready.stale)}): {STALE}")
    return _DONE


async def _serve(settings: SpawnerSettings, *, end_workers: bool) -> int:
    from server.spawner.serve import serving
    from server.telemetry import configure_logging

    configure_logging(log_format=settings.log_format, level=settings.log_level, secrets=lambda: (), output=sys.stderr)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings, end_workers=end_workers) as failed:
        stopped = asyncio.create_task(stop.wait())
        watched: list[asyncio.Future[Any]] = [stopped, failed]
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if failed.done():
            failed.result()
    return _DONE


def _tied_to(parent: int) -> bool:
    """Whether the parent is still there, with which this process ends from now on."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return os.getppid() == parent


def _complain(words: str, exit_code: int = _REFUSED) -> int:
    from server.refusal import tell

    tell("spawner", words)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
