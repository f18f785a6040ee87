"""What the model gateway adds to the time to the first byte: the same request, to the provider directly and through a turn's door."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from pydantic import SecretStr

from bench.report import percentile, spread, write

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.fake_upstream import fake_upstream
from support.model_door import RecordingBill

from server.config import Settings
from server.kernel.ports.launcher import ModelDoor
from server.models.gateway import open_models

TOKEN = "t" * 64
BODY_BYTES = 42_000
"""What Claude Code sends at the least."""
LARGE_BYTES = 1_000_000
REQUESTS = 300
REPEATS = 5
AT_ONCE = 8


async def run() -> None:
    """Measure and write. Provider and gateway are processes of their own, as they are in life."""
    with tempfile.TemporaryDirectory(prefix="treadle-bench-") as folder:
        door = Path(folder) / "model.sock"
        async with (
            _process("upstream") as (url,),
            _process("gateway", str(door), url),
            aiohttp.ClientSession(url) as direct,
            aiohttp.ClientSession("http://gateway", connector=_unix(door)) as through,
        ):
            one = [await _pair(direct, through, _body(BODY_BYTES), REQUESTS, at_once=1) for _ in range(REPEATS)]
            large = [await _pair(direct, through, _body(LARGE_BYTES), REQUESTS // 10, at_once=1) for _ in range(REPEATS)]
            many = [await _pair(direct, through, _body(BODY_BYTES), REQUESTS, at_once=AT_ONCE) for _ in range(REPEATS)]
    write(
        "models",
        "Time to the first byte through the model gateway",
        [
            ("42 kB, directly: p50, ms", _figure(one, 0.5, side=0), "the provider's part"),
            ("42 kB, through the gateway: p50, ms", _figure(one, 0.5, side=1), ""),
            ("42 kB, added: p50, ms", _added(one, 0.5), "aim 3"),
            ("42 kB, p99 through less p99 directly, ms", _added(one, 0.99), ""),
            ("1 MB, added: p50, ms", _added(large, 0.5), ""),
            (f"42 kB, {AT_ONCE} at once, added: p50, ms", _added(many, 0.5), ""),
        ],
        f"{REPEATS} runs of {REQUESTS} requests each, directly and through the gateway by turns. The fake provider answers at once; "
        "without a budget or database, so what a request's use costs is not in it (it is written after the answer).",
    )


Pair = tuple[list[float], list[float]]


def _figure(runs: list[Pair], part: float, *, side: int) -> str:
    return spread([percentile(each[side], part) for each in runs], 2)


def _added(runs: list[Pair], part: float) -> str:
    return spread([percentile(through, part) - percentile(direct, part) for direct, through in runs], 2)


def _body(size: int) -> bytes:
    text = "some words of a prompt, as many as it takes. " * (size // 45)
    body = {"model": "claude-sonnet-4-5", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": text}]}
    return json.dumps(body).encode()


async def _pair(direct: aiohttp.ClientSession, through: aiohttp.ClientSession, body: bytes, count: int, *, at_once: int) -> Pair:
    sides: Pair = ([], [])

    async def ask() -> None:
        for _ in range(count // at_once):
            for http, times in zip((direct, through), sides, strict=True):
                times.append(await _first_byte(http, body))

    await asyncio.gather(*[ask() for _ in range(at_once)])
    return sides


async def _first_byte(http: aiohttp.ClientSession, body: bytes) -> float:
    begun = time.perf_counter()
    async with http.post("/v1/messages", data=io.BytesIO(body), headers={"x-api-key": TOKEN}) as answer:
        await answer.content.readany()
        taken = time.perf_counter() - begun
        await answer.read()
    return taken * 1000


def _unix(path: Path) -> aiohttp.UnixConnector:
    return aiohttp.UnixConnector(str(path))


@asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[list[str]]:
    """This file as a program; what it says when it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.models", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            yield (await process.stdout.readline()).decode().split()
    finally:
        process.terminate()
        await process.wait()


async def _upstream() -> None:
    async with fake_upstream() as fake:
        print(fake.url, flush=True)
        while True:
            await asyncio.sleep(1)
            fake.seen.clear()


async def _gateway(socket: str, url: str) -> None:
    settings = Settings(anthropic_url=url, anthropic_api_key=SecretStr("sk-bench"))
    door = ModelDoor(Path(socket), TOKEN, None)
    async with open_models(settings) as models, models.gateway.open(door, provider="claude", bill=RecordingBill()):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_upstream() if sys.argv[1] == "upstream" else _gateway(*sys.argv[2:]))
