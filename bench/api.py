"""Unary calls while ten turns run: what a page waits for that lists sessions while agents work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from bench import limits
from bench.report import percentile, spread, write
from bench.stack import CHANNEL, Stack, stack
from treadle.session.v1 import session_service_pb2 as pb

TURNS = 10
PACE = 50
"""Events per second of each turn: about what a model's deltas come at."""
SECONDS = 20
CALLS_PER_SECOND = 50
REPEATS = 3
Call = Callable[[], Awaitable[Any]]


async def run() -> None:
    """Measure and write."""
    idle: list[dict[str, list[float]]] = []
    busy: list[dict[str, list[float]]] = []
    async with stack() as running:
        request = running.repository("api", {"say": "ready"}, {"burst": PACE * SECONDS, "text": "x" * 60, "per_second": PACE})
        for _ in range(REPEATS):
            await _under(running, request, idle, busy)
    rows = []
    for name in busy[0]:
        for what, runs in (("nothing runs", idle), (f"{TURNS} turns run", busy)):
            for share, word in ((0.5, "p50"), (0.99, "p99")):
                aim = "aim 15" if runs is busy and share == 0.99 else ""
                rows.append((f"{name}, {what}: {word}, ms", spread([percentile(run[name], share) for run in runs], 1), aim))
    write(
        "api",
        "Unary calls while turns run",
        [*rows, ("fdatasync of 8 KiB, ms", f"{limits.fdatasync_ms():.2f}", "limit of each commit")],
        f"{REPEATS} runs; {TURNS} turns at {PACE} events/s, each with a follower; {CALLS_PER_SECOND} calls per second, one after the "
        "other, over gRPC directly. Agents, workers, Postgres, server and callers share the two cores.",
    )


async def _under(running: Stack, request: dict[str, str], idle: list[dict[str, list[float]]], busy: list[dict[str, list[float]]]) -> None:
    async with running.client() as stub, grpc.aio.insecure_channel(running.address, options=CHANNEL) as channel:
        turns = [running.execute(stub, **request) for _ in range(TURNS)]
        sessions = await asyncio.gather(*[_started(turn) for turn in turns])
        followers = [asyncio.create_task(running.drain(channel, session, 1)) for session in sessions]
        try:
            busy.append(await _call(running, stub, sessions[0], SECONDS / 2))
            assert not any(follower.done() for follower in followers), "a turn was over before the measurement"
        finally:
            await asyncio.gather(*followers)
        idle.append(await _call(running, stub, sessions[0], 5))


async def _started(turn: Any) -> str:
    """The session's name, once its agent speaks."""
    async for frame in turn:
        for event in frame.events.events:
            if event.HasField("content_delta"):
                turn.cancel()
                return str(event.session_id)
    raise AssertionError("the turn ended")


async def _call(running: Stack, stub: Any, session_id: str, seconds: float) -> dict[str, list[float]]:
    calls: dict[str, Call] = {
        "GetSession": lambda: stub.GetSession(pb.GetSessionRequest(session_id=session_id), metadata=running.metadata),
        "ListSessions (20)": lambda: stub.ListSessions(pb.ListSessionsRequest(page_size=20), metadata=running.metadata),
        "ListEvents (100)": lambda: stub.ListEvents(pb.ListEventsRequest(session_id=session_id, page_size=100), metadata=running.metadata),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, call in calls.items():
            begun = time.perf_counter()
            await call()
            times[name].append((time.perf_counter() - begun) * 1000)
            await asyncio.sleep(1 / CALLS_PER_SECOND)
    return times
