"""The physical limits that figures are read beside, measured in the same run."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time

import grpc

ECHO = "/bench/Echo"


def fdatasync_ms() -> float:
    """Median time of writing 8 KiB and fdatasync, on the disk that the database is on."""
    times = []
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        for _ in range(200):
            begun = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 8192, 0)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


async def frames_per_second(size: int, count: int = 400) -> float:
    """Frames of `size` bytes that one grpc.aio process streams to itself: bytes in, bytes out, nothing else."""
    payload = b"x" * size

    async def stream(_: bytes, context: grpc.aio.ServicerContext) -> None:
        for _number in range(count):
            await context.write(payload)

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("bench", {"Echo": grpc.unary_stream_rpc_method_handler(stream)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            begun = time.perf_counter()
            async for _frame in channel.unary_stream(ECHO)(b""):
                pass
            return count / (time.perf_counter() - begun)
    finally:
        await server.stop(0)


async def spawn_ms() -> float:
    """Median time of starting a Python that imports nothing."""
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", "pass")
        await process.wait()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000
