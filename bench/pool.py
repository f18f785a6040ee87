"""From a turn's wish for a worker to the worker's first answer: containers that are made for it, and containers that wait."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import limits
from bench.report import percentile, spread, write
from server.config import Settings
from server.kernel.ports.launcher import WorkerId, WorkerSpec
from server.spawner.serve import serving
from server.spawner.settings import SpawnerSettings
from server.workers.docker import DockerLauncher, open_docker_launcher
from server.workers.pool import PREFIX
from server.workers.slot import slots

COLD, WARM, POOLED = 7, 60, 4
_POLL_SECONDS = 0.05


async def run() -> None:
    """Measure and write. Needs an engine, and the images that TREADLE_WORKER_IMAGE names (`make images`)."""
    with TemporaryDirectory(prefix="tb-") as folder:
        home = Path(folder)
        async with serving(SpawnerSettings(data_dir=home)):
            cold = await _measure(Settings(data_dir=home, launcher="docker"), COLD, pooled=0)
            warm = await _measure(Settings(data_dir=home, launcher="docker", worker_pool=f"replay={POOLED}"), WARM, pooled=POOLED)
        spawn = await limits.spawn_ms()
    write(
        "pool",
        "A worker in a container: from the wish to its first answer",
        [
            ("container made for the turn, ms", spread(cold), "was 600 to 900"),
            ("container that waited, ms", spread(warm, 1), "aim p50 20"),
            ("container that waited, 99 of 100, ms", f"{percentile(warm, 0.99):.1f}", "aim 100"),
            ("starting an empty Python, ms", f"{spawn:.1f}", "limit"),
        ],
        f"What a turn does besides building its workspace, which is empty here: workspace, furnished, launch. {COLD} and {WARM} times, "
        f"one at a time; the second with {POOLED} that wait, after the pool is full again.",
    )


async def _measure(settings: Settings, times: int, *, pooled: int) -> list[float]:
    taken = []
    async with open_docker_launcher(settings) as launcher:
        for _ in range(times):
            while sum(slot.is_ready for slot in slots(settings.slots_dir) if slot.path.name.startswith(PREFIX)) < pooled:
                await asyncio.sleep(_POLL_SECONDS)
            taken.append(await _one(launcher))
    return taken


async def _one(launcher: DockerLauncher) -> float:
    worker = WorkerId(str(uuid.uuid4()), 1)
    begun = time.perf_counter()
    await launcher.workspace(WorkerSpec(worker, session_id="bench", tenant_id="bench", provider="replay"))
    await launcher.furnished(worker)
    link = await launcher.launch(worker)
    taken = (time.perf_counter() - begun) * 1000
    await link.close()
    await launcher.remove(worker)
    return taken
