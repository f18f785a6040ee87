"""Events per second from 16 sandboxed workers through the journal (durable) to a client that follows all 16.

Each worker bursts events of about 270 bytes as stored; the time runs from the first event at the client to the last.
"""

from __future__ import annotations

import asyncio
import time

from bench import limits
from bench.report import spread, write
from bench.stack import Stack, stack

SESSIONS = 16
EVENTS = 15_000
REPEATS = 2


async def run() -> None:
    """Measure and write."""
    async with stack() as running:
        # The wait lets all workers be there before the first event: what is measured is the relay, not the start.
        request = running.repository("relay", {"say": "ready"}, {"wait_ms": 12_000}, {"burst": EVENTS, "text": "x" * 60})
        rates, sizes = [], []
        for _ in range(REPEATS):
            rate, size = await _once(running, request)
            rates.append(rate)
            sizes.append(size)
        echo = await limits.frames_per_second(128 * 1024)
    write(
        "relay",
        "Relay: 16 sessions, durable, worker to client",
        [
            ("events/s", spread(rates), "aim 60,000; the system it replaces: 1,076"),
            ("bytes per event on the wire", spread(sizes), ""),
            ("frames of 128 KiB/s through grpc.aio alone, one process", f"{echo:,.0f}", f"{echo * 128 * 1024 / sizes[0]:,.0f} events/s"),
            ("fdatasync of 8 KiB", f"{limits.fdatasync_ms():.2f} ms", ""),
        ],
        "Workers, server, Postgres and the client share the two cores: the CPU holds it back, not the disk.",
    )


async def _once(running: Stack, request: dict[str, str]) -> tuple[float, float]:
    async with running.client() as stub:
        first, last, count, size = [], [], [0], [0]

        async def follow() -> None:
            stream = running.execute(stub, **request)
            own = 0
            async for frame in stream:
                number = len(frame.events.events)
                own += number
                if own > 20 and number:
                    now = time.perf_counter()
                    first.append(now)
                    last.append(now)
                    del first[1:]
                    del last[:-1]
                    count[0] += number
                    size[0] += frame.ByteSize()

        await asyncio.gather(*[follow() for _ in range(SESSIONS)])
    return count[0] / (last[0] - first[0]), size[0] / count[0]
