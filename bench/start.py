"""Start of the main server on a migrated database, and its memory when idle."""

from __future__ import annotations

import asyncio

from bench import limits
from bench.report import spread, write
from bench.stack import serving, stack

REPEATS = 5


async def run() -> None:
    """Measure and write."""
    times, memory = [], []
    async with stack() as running:
        running.process.terminate()
        await running.process.wait()
        for _ in range(REPEATS):
            async with serving(running.settings) as (process, ready):
                times.append(ready)
                await asyncio.sleep(1)
                running.process = process
                memory.append(running.rss_mb())
        spawn = await limits.spawn_ms()
    write(
        "start",
        "Start and idle memory of the main server",
        [
            ("python -m server to listening, s", spread(times, 2), "aim 1.5 s"),
            ("resident memory when idle, MB", spread(memory), "aim 100 MB"),
            ("starting an empty Python, ms", f"{spawn:.1f}", "limit"),
        ],
        "Imports (grpc, pydantic, asyncpg, minio) are most of the start; the sandbox is probed by running it (0.1 s).",
    )
