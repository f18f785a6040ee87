"""From the worker's stamp to the client's receipt: 10 sessions at 100 events/s each; and 1,000 followers of one session at 100 events/s."""

from __future__ import annotations

import asyncio
import time

import grpc

from bench import limits
from bench.report import percentile, spread, write
from bench.stack import CHANNEL, Stack, stack

FOLLOWERS = 1000
TIMED = 50
"""How many of them decode what they get and look at the clock."""
PACE = 100
REPEATS = 3


async def run() -> None:
    """Measure and write."""
    async with stack() as running:
        request = running.repository("latency", {"say": "ready"}, {"wait_ms": 8000}, {"burst": 1000, "text": "x" * 60, "per_second": PACE})
        ten = [await _paced(running, request) for _ in range(REPEATS)]
        before = running.rss_mb()
        many: list[list[float]] = []
        grown = 0.0
        for _ in range(REPEATS):
            delays, memory = await _fan_out(running, request)
            many.append(delays)
            grown = grown or memory
    write(
        "latency",
        "Latency, worker to client",
        [
            ("10 sessions x 100 events/s: p50, ms", _spread(ten, 0.5, 1), "aim 4"),
            ("10 sessions x 100 events/s: p99, ms", _spread(ten, 0.99, 1), "aim 10"),
            ("1,000 followers of one session: p50, ms", _spread(many, 0.5), ""),
            ("1,000 followers of one session: p99, ms", _spread(many, 0.99), "aim 250"),
            ("server memory per follower, KiB", f"{(grown - before) * 1024 / FOLLOWERS:.0f}", "F11: 100"),
            ("fdatasync of 8 KiB, ms", f"{limits.fdatasync_ms():.2f}", "limit of each commit"),
        ],
        f"{REPEATS} runs each. A message is one event with its text. All share two cores: most of it is waiting for one.",
    )


def _spread(runs: list[list[float]], share: float, digits: int = 0) -> str:
    return spread([percentile(delays, share) for delays in runs], digits)


async def _paced(running: Stack, request: dict[str, str]) -> list[float]:
    async with running.client() as stub:
        streams = [running.execute(stub, **request) for _ in range(10)]
        return [late for each in await asyncio.gather(*[_delays(stream) for stream in streams]) for late in each]


async def _fan_out(running: Stack, request: dict[str, str]) -> tuple[list[float], float]:
    async with running.client() as stub, grpc.aio.insecure_channel(running.address, options=CHANNEL) as channel:
        first = running.execute(stub, **request)
        session_id = ""
        async for frame in first:
            if frame.events.events:
                session_id = frame.events.events[0].session_id
                break
        first.cancel()
        tasks = [asyncio.create_task(_delays(running.resume(stub, session_id, 1))) for _ in range(TIMED)]
        # The others read and drop: decoding what 1,000 followers get takes more than the one core that is left for the client.
        others = [asyncio.create_task(running.drain(channel, session_id, 1)) for _ in range(FOLLOWERS - TIMED)]
        await asyncio.sleep(12)
        grown = running.rss_mb()
        delays = [late for each in await asyncio.gather(*tasks) for late in each]
        await asyncio.gather(*others)
        return delays, grown


async def _delays(stream: object) -> list[float]:
    """Milliseconds of every live event of the agent."""
    delays: list[float] = []
    synced = False
    async for frame in stream:  # type: ignore[attr-defined]
        now = time.time()
        synced = synced or frame.HasField("synced")
        if synced:
            events = frame.events.events
            # The oldest and the newest of a frame: the client shares the machine, and must not be what is measured.
            for event in (events[0], events[-1])[: len(events)] if events else ():
                if event.HasField("content_delta") and len(event.content_delta.data) == 60:
                    stamp = event.occurred_at
                    delays.append((now - stamp.seconds - stamp.nanos / 1e9) * 1000)
    return delays
