"""`python -m support.killable`: the real server, which kills itself when it passes a named point for the nth time.

It prints its address when it listens. The composition root tells `mark` of every named point; nothing else differs from `python -m server`,
but for launcher `docker`, of which some calls are points as well (`around_the_launcher`). With `--parent` it starts nothing itself, but
forks a server for each line that it reads (`Nursery`): where very many are killed, loading the same code each time would take most of it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from support.model_script import recordings_reach_models

from server.composition import compose
from server.config import Settings
from server.identity.local_user import ensure_local_user
from server.serve import stop_signals
from server.telemetry import configure_logging
from server.workers import client, docker, local, pool, spawner

Mark = Callable[[str], None]


def main() -> None:
    if "--parent" in sys.argv:
        _bear()
    else:
        asyncio.run(_serve())


def _bear() -> None:
    """A line asks for a child: its environment, and where its output goes. The answer is its pid, and later how it ended."""
    for line in sys.stdin:
        asked = json.loads(line)
        if (pid := os.fork()) == 0:
            os.environ.clear()
            os.environ.update(asked["environment"])
            for number, path in ((1, asked["output"]), (2, asked["log"])):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            asyncio.run(_serve())
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


async def _serve() -> None:
    if os.environ.get("RECORDINGS_REACH_MODELS"):
        recordings_reach_models(setattr)
    settings = Settings()
    configure_logging(log_format="json", level="debug", secrets=lambda: ())
    mark = _killer()
    if settings.launcher == "docker":
        around_the_launcher(mark)
    async with compose(settings, mark=mark) as server:
        await ensure_local_user(server.stores.keys, settings.data_dir)
        print(server.api.address, flush=True)
        stop = asyncio.create_task(stop_signals().wait())
        await asyncio.wait([stop, server.failed], return_when=asyncio.FIRST_COMPLETED)


def _killer() -> Mark:
    point, left = os.environ["KILL_AT"], [int(os.environ["KILL_NTH"])]

    def mark(name: str) -> None:
        if name == point:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return mark


def around_the_launcher(mark: Mark) -> None:
    """What lies between the points of the kernel when workers are containers: taking one that waits, furnishing it, the spawner's calls,
    and the way to the worker's socket."""
    for where, name, point in (
        (pool.Pool, "prepare", "claim"),
        (docker.DockerLauncher, "furnished", "furnish"),
        (spawner.SpawnerClient, "start", "start"),
        (local, "dial", "dial"),
        (client.WorkerLink, "_open", "execute"),
        (docker.DockerLauncher, "collect", "collect"),
        (spawner.SpawnerClient, "kill", "kill"),
        (docker.DockerLauncher, "remove", "discard"),
        (spawner.SpawnerClient, "remove", "release"),
    ):
        setattr(where, name, _marked(getattr(where, name), point, mark))


def _marked(work: Callable[..., Any], point: str, mark: Mark) -> Callable[..., Any]:
    """The second point is passed only on success, as with the kernel's."""
    if not inspect.iscoroutinefunction(work):

        @functools.wraps(work)
        def called(*arguments: Any, **options: Any) -> Any:
            mark(f"{point}.before")
            result = work(*arguments, **options)
            mark(f"{point}.after")
            return result

        return called

    @functools.wraps(work)
    async def awaited(*arguments: Any, **options: Any) -> Any:
        mark(f"{point}.before")
        result = await work(*arguments, **options)
        mark(f"{point}.after")
        return result

    return awaited


if __name__ == "__main__":
    main()
