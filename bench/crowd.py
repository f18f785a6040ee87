"""Sixteen turns at once in containers, and what a worker costs that only waits."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import docker

from bench import limits
from bench.report import spread, write
from bench.stack import Stack, stack
from server.config import Settings
from server.spawner.serve import serving
from server.spawner.settings import SpawnerSettings
from server.workers.docker import open_docker_launcher
from server.workers.pool import PREFIX
from server.workers.slot import slots

AT_ONCE = 16
REPEATS = 3
POOLED = 4
IDLE_SECONDS = 30.0
_LABEL = "treadle.slot"
_POLL_SECONDS = 0.05
_MIB = 1024 * 1024


async def run() -> None:
    """Measure and write. Needs an engine, and the images that TREADLE_WORKER_IMAGE names (`make images`)."""
    with TemporaryDirectory(prefix="tb-") as folder:
        spawner = SpawnerSettings(data_dir=Path(folder))
        place = {"launcher": "docker", "worker_root": spawner.slots_dir, "spawner_socket": spawner.spawner_address}
        async with serving(spawner):
            alone, _ = await _turns(1, 7, max_turns=AT_ONCE, **place)
            together, most = await _turns(AT_ONCE, REPEATS, max_turns=AT_ONCE, **place)
            four, _ = await _turns(AT_ONCE, REPEATS, max_turns=4, **place)
            memory, cpu = await _idle(Settings(data_dir=Path(folder), launcher="docker", worker_pool=f"replay={POOLED}"))
        spawn = await limits.spawn_ms()
    write(
        "crowd",
        "Turns at once in containers, and workers that wait",
        [
            ("one turn, Execute to its end, ms", spread([whole for _, whole in alone]), ""),
            ("one turn, to the agent's first event, ms", spread([agent for agent, _ in alone]), ""),
            (f"{AT_ONCE} turns at once, to the agent's first event, ms", spread([agent for agent, _ in together]), ""),
            (f"{AT_ONCE} turns at once, to the end, ms", spread([whole for _, whole in together]), ""),
            (f"{AT_ONCE} turns at once, 4 allowed, to the end, ms", spread([whole for _, whole in four]), "the others wait their turn"),
            (f"containers seen at once, of {AT_ONCE} turns", str(most), str(AT_ONCE)),
            ("memory of a worker that waits, MiB", spread(memory, 1), "an idle Python with gRPC: 15"),
            (f"CPU of a worker that waits, ms per second, over {IDLE_SECONDS:.0f} s", spread(cpu, 2), ""),
            ("starting an empty Python, ms", f"{spawn:.1f}", "limit"),
        ],
        f"A turn fetches, makes a workspace, runs the replay agent in a container of its own (one message, one file), commits and pushes. "
        f"{REPEATS} rounds of {AT_ONCE}. Memory and CPU by the engine's own count of {POOLED} containers.",
    )


async def _turns(at_once: int, rounds: int, **settings: object) -> tuple[list[tuple[float, float]], int]:
    taken: list[tuple[float, float]] = []
    async with stack(**settings) as running:
        request = running.repository("crowd", {"say": "hello"}, {"write": "made.txt", "content": "made\n"})
        await _once(running, request)
        counting = asyncio.create_task(_most())
        for _ in range(rounds):
            taken += await asyncio.gather(*[_once(running, request) for _ in range(at_once)])
        counting.cancel()
        (most,) = await asyncio.gather(counting)
    return taken, most


async def _most() -> int:
    """How many workers there were at most, until cancelled."""
    client, most = docker.from_env(), 0
    try:
        while True:
            found = await asyncio.to_thread(client.containers.list, filters={"label": _LABEL}, ignore_removed=True)
            most = max(most, len(found))
            await asyncio.sleep(_POLL_SECONDS)
    except asyncio.CancelledError:
        return most
    finally:
        client.close()


async def _once(running: Stack, request: dict[str, str]) -> tuple[float, float]:
    async with running.client() as stub:
        begun, agent = time.perf_counter(), 0.0
        async for frame in running.execute(stub, **request):
            for event in frame.events.events:
                if event.attempt:
                    agent = agent or (time.perf_counter() - begun) * 1000
                if event.HasField("turn_completed"):
                    return agent, (time.perf_counter() - begun) * 1000
    raise AssertionError("the turn did not complete")


async def _idle(settings: Settings) -> tuple[list[float], list[float]]:
    """Memory in MiB and milliseconds of CPU per second, of each worker that waits."""
    client = docker.from_env()
    try:
        async with open_docker_launcher(settings):
            while sum(slot.is_ready for slot in slots(settings.slots_dir) if slot.path.name.startswith(PREFIX)) < POOLED:
                await asyncio.sleep(_POLL_SECONDS)
            waiting = [one for one in client.containers.list(filters={"label": _LABEL}) if one.labels[_LABEL].startswith(PREFIX)]
            assert len(waiting) == POOLED
            # The imports' last pages and threads settle.
            await asyncio.sleep(5)
            before = [_cpu_ns(one) for one in waiting]
            await asyncio.sleep(IDLE_SECONDS)
            after = [_cpu_ns(one) for one in waiting]
            memory = [_memory(one) / _MIB for one in waiting]
    finally:
        client.close()
    return memory, [(late - early) / 1e6 / IDLE_SECONDS for early, late in zip(before, after, strict=True)]


def _cpu_ns(container: docker.models.containers.Container) -> int:
    return int(container.stats(stream=False, one_shot=True)["cpu_stats"]["cpu_usage"]["total_usage"])


def _memory(container: docker.models.containers.Container) -> int:
    """Without the page cache, which the kernel takes back."""
    found = container.stats(stream=False, one_shot=True)["memory_stats"]
    cache = found["stats"].get("total_inactive_file", found["stats"].get("inactive_file", 0))
    return int(found["usage"]) - int(cache)
