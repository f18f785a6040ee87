"""Ten thousand sessions of which nobody wants anything: what they cost the server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench.report import spread, write
from bench.stack import Stack, stack
from treadle.session.v1 import session_service_pb2 as pb

SESSIONS = 10_000
AT_ONCE = 16
SETTLE_SECONDS = 20.0


async def run() -> None:
    """Measure and write."""
    async with stack() as running:
        request = running.repository("idle", {"say": "hello"})
        # What the first calls of any kind load is no session's cost.
        await _create(running, request, 200)
        before = await _cost(running)
        begun = time.perf_counter()
        created = await _create(running, request, SESSIONS)
        seconds = time.perf_counter() - begun
        after = await _cost(running)
        listed = await _listed(running)
    write(
        "idle",
        f"{SESSIONS:,} idle sessions",
        [
            ("resident memory of the server before, MB", f"{before[0]:.0f}", ""),
            ("resident memory of the server after, MB", f"{after[0]:.0f}", "the same"),
            ("processes of the server's before / after", f"{before[1]} / {after[1]}", "the same"),
            ("open files of the server before / after", f"{before[2]} / {after[2]}", "the same"),
            (f"its CPU over {SETTLE_SECONDS:.0f} s, ms per second, before / after", f"{before[3]:.1f} / {after[3]:.1f}", "the same"),
            (f"CreateSession, {AT_ONCE} at once, ms", spread(created, 1), ""),
            ("sessions created per second", f"{SESSIONS / seconds:,.0f}", ""),
            ("the first page of 50 in the list, ms", spread(listed, 1), ""),
        ],
        "Sessions are rows; nothing of the server or of a worker waits for them. Memory after includes what the calls themselves left in "
        "the allocator.",
    )


async def _create(running: Stack, request: dict[str, str], count: int) -> list[float]:
    taken: list[float] = []
    left = iter(range(count))

    async def some() -> None:
        async with running.client() as stub:
            for _ in left:
                begun = time.perf_counter()
                await stub.CreateSession(pb.CreateSessionRequest(repository_url=request["repository_url"]), metadata=running.metadata)
                taken.append((time.perf_counter() - begun) * 1000)

    await asyncio.gather(*[some() for _ in range(AT_ONCE)])
    return taken


async def _listed(running: Stack) -> list[float]:
    taken = []
    async with running.client() as stub:
        for _ in range(20):
            begun = time.perf_counter()
            answer = await stub.ListSessions(pb.ListSessionsRequest(page_size=50), metadata=running.metadata)
            taken.append((time.perf_counter() - begun) * 1000)
            assert len(answer.sessions) == 50
    return taken


async def _cost(running: Stack) -> tuple[float, int, int, float]:
    """Memory in MB, processes, open files and milliseconds of CPU per second, after a rest."""
    await asyncio.sleep(5)
    early = _cpu_ms(running.process.pid)
    await asyncio.sleep(SETTLE_SECONDS)
    busy = (_cpu_ms(running.process.pid) - early) / SETTLE_SECONDS
    return running.rss_mb(), 1 + _children(running.process.pid), len(list(Path(f"/proc/{running.process.pid}/fd").iterdir())), busy


def _children(pid: int) -> int:
    direct = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return len(direct) + sum(_children(child) for child in direct)


def _cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 10.0
