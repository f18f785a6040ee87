"""Replay of a log of 100,000 events, written by a bursting worker: events per second, time to the first frame, the server's memory."""

from __future__ import annotations

import time

from bench import limits
from bench.report import spread, write
from bench.stack import Stack, stack

EVENTS = 100_000
REPEATS = 5


async def run() -> None:
    """Measure and write."""
    async with stack() as running:
        request = running.repository("replay", {"burst": EVENTS, "text": "x" * 60})
        session_id, last = await _fill(running, request)
        before = running.rss_mb()
        rates, firsts = [], {0: [], last // 2: [], last - 100: []}
        for _ in range(REPEATS):
            rates.append(await _whole(running, session_id, last))
            for after, times in firsts.items():
                times.append(await _first(running, session_id, after))
        grown = running.rss_mb() - before
        echo = await limits.frames_per_second(256 * 1024)
    rows = [("events/s, whole log", spread(rates), "aim 300,000")]
    rows += [(f"first frame after seq {after:,}", f"{spread(times, 1)} ms", "aim 10 ms") for after, times in firsts.items()]
    rows += [
        ("server memory after, more than before", f"{grown:.1f} MB", "flat"),
        ("frames of 256 KiB/s through grpc.aio alone, one process", f"{echo:,.0f}", ""),
    ]
    write("replay", "Replay of 100,000 events", rows, "The client parses every event; server, Postgres and client share two cores.")


async def _fill(running: Stack, request: dict[str, str]) -> tuple[str, int]:
    async with running.client() as stub:
        session_id, last = "", 0
        async for frame in running.execute(stub, **request):
            if frame.events.events:
                session_id, last = frame.events.events[-1].session_id, frame.events.events[-1].seq
        return session_id, last


async def _whole(running: Stack, session_id: str, last: int) -> float:
    async with running.client() as stub:
        await _first_frame(running, stub, session_id, last - 1)
        begun, seen = time.perf_counter(), 0
        async for frame in running.resume(stub, session_id, follow=False):
            seen += len(frame.events.events)
        if seen != last:
            raise AssertionError(f"{seen} events of {last}")
        return seen / (time.perf_counter() - begun)


async def _first(running: Stack, session_id: str, after: int) -> float:
    async with running.client() as stub:
        await _first_frame(running, stub, session_id, after)
        return await _first_frame(running, stub, session_id, after)


async def _first_frame(running: Stack, stub: object, session_id: str, after: int) -> float:
    begun = time.perf_counter()
    stream = running.resume(stub, session_id, after, follow=False)
    async for frame in stream:
        if frame.events.events:
            taken = (time.perf_counter() - begun) * 1000
            stream.cancel()
            return taken
    raise AssertionError("no events")
