"""From ExecuteSession to the first event at the client.

A new session (its repository looked at, or asked for within the last 30 s), and the next turn of a session; alone and 16 at once. Also to
the first event of the agent, which needs fetch, branch, workspace and a worker.
"""

from __future__ import annotations

import asyncio
import time

from bench import limits
from bench.report import spread, write
from bench.stack import Stack, stack

REPEATS = 7
AT_ONCE = 16


async def run() -> None:
    """Measure and write."""
    async with stack() as running:
        request = running.repository("execute", {"say": "hello"})
        cold, _, _ = await _once(running, request)
        alone = [await _once(running, request) for _ in range(REPEATS)]
        following = [await _once(running, {"prompt": "more", "session_id": alone[-1][2], "provider": "replay"}) for _ in range(3)]
        together: list[tuple[float, float, str]] = []
        for _ in range(3):
            together += await asyncio.gather(*[_once(running, request) for _ in range(AT_ONCE)])
        spawn = await limits.spawn_ms()
    write(
        "execute",
        "Execute to the first event",
        [
            ("new session, repository not yet known, ms (one run)", f"{cold:.0f}", "an ls-remote over HTTP"),
            ("new session, ms", spread([first for first, _, _ in alone], 1), "aim 10"),
            ("next turn of a session, ms", spread([first for first, _, _ in following], 1), "aim 10"),
            ("new session, 16 at once, ms", spread([first for first, _, _ in together], 1), "aim 40"),
            ("to the agent's first event, alone, ms", spread([agent for _, agent, _ in alone]), ""),
            ("to the agent's first event, 16 at once, ms", spread([agent for _, agent, _ in together]), ""),
            ("starting an empty Python, ms", f"{spawn:.1f}", "limit of anything that starts a program"),
            ("fdatasync of 8 KiB, ms", f"{limits.fdatasync_ms():.2f}", "two commits are waited for"),
        ],
        "A transaction of four round trips and a statement come before the first event; 16 at once share the cores with each other's Git.",
    )


async def _once(running: Stack, request: dict[str, str]) -> tuple[float, float, str]:
    async with running.client() as stub:
        await stub.ListSessions(_list(), metadata=running.metadata)
        begun, first, agent, session_id = time.perf_counter(), 0.0, 0.0, ""
        async for frame in running.execute(stub, **request):
            for event in frame.events.events:
                session_id = event.session_id
                first = first or (time.perf_counter() - begun) * 1000
                if event.attempt:
                    agent = agent or (time.perf_counter() - begun) * 1000
        return first, agent, session_id


def _list() -> object:
    from treadle.session.v1 import session_service_pb2 as pb

    return pb.ListSessionsRequest(page_size=1)
