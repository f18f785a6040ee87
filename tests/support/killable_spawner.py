"""`python -m support.killable_spawner`: the real spawner, which kills itself with SIGKILL when it first passes the point KILL_AT."""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import docker

from server.spawner.__main__ import main
from server.spawner.containers import Containers
from server.spawner.engine import Engine
from server.spawner.kernel import FirstProcess
from server.workers.slot import Slot

STEPS = (
    (Engine, "create", "create"),
    (Slot, "hold", "hold"),
    (Engine, "start", "start"),
    (docker.APIClient, "start", "run"),
    (Containers, "start", "answer"),
    (Containers, "wait", "wait"),
    (FirstProcess, "kill", "kill"),
    # Where a spawner has just begun, it may be asked to end a container before it has seen its first process.
    (Engine, "kill", "kill"),
    (Slot, "record", "record"),
    (Engine, "remove", "remove"),
)


def _marked(work: Callable[..., Any], point: str) -> Callable[..., Any]:
    def mark(side: str, arguments: tuple[Any, ...]) -> None:
        # Not those of the container by which it tries its wall.
        if os.environ["KILL_AT"] == f"{point}.{side}" and not any(isinstance(each, str) and "-probe-" in each for each in arguments):
            os.kill(os.getpid(), signal.SIGKILL)

    if inspect.iscoroutinefunction(work):

        @functools.wraps(work)
        async def awaited(*arguments: Any, **options: Any) -> Any:
            mark("before", arguments)
            result = await work(*arguments, **options)
            mark("after", arguments)
            return result

        return awaited

    @functools.wraps(work)
    def called(*arguments: Any, **options: Any) -> Any:
        mark("before", arguments)
        result = work(*arguments, **options)
        mark("after", arguments)
        return result

    return called


if __name__ == "__main__":
    for where, name, point in STEPS:
        setattr(where, name, _marked(getattr(where, name), point))
    sys.exit(main())
