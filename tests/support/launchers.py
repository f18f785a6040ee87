"""Every launcher of this machine, so that what is true of one is asked of all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.containers import spawning
from support.sandbox import require_sandbox
from support.swarm import swarm_spawning
from support.workers import launcher_in

from server.spawner.settings import SpawnerSettings
from server.workers.local import LocalLauncher

ALL_KINDS = ("process", "docker", "swarm")
KINDS = ("process", "docker")


@asynccontextmanager
async def opened(kind: str, folder: Path, **settings: Any) -> AsyncIterator[LocalLauncher]:
    """The launcher, with what it needs beside it, for a server whose data directory is `folder`."""
    if kind == "process":
        require_sandbox()
        async with launcher_in(folder, **settings) as launcher:
            yield launcher
    elif kind == "swarm":
        async with swarm_spawning(folder, **settings), launcher_in(folder, "swarm", **settings) as launcher:
            yield launcher
    else:
        spawners = {name: value for name, value in settings.items() if name in SpawnerSettings.model_fields}
        async with spawning(folder, **spawners), launcher_in(folder, "docker", **settings) as launcher:
            yield launcher
