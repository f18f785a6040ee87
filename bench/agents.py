"""From ExecuteSession to what an agent says first, with the real Claude program and with `anthropic`, their model faked at HTTP.

Cold: the first turn of a server that has just started, on a repository that it does not know, over a new channel. Connected: a further
new session of the same repository, over the open channel. The worker and the agent are started anew in both.
"""

from __future__ import annotations

import time
from typing import Any

from bench import limits
from bench.report import spread, write
from bench.stack import Stack, stack

from support.fake_anthropic import fake_anthropic  # isort: skip  (bench.stack puts tests/ on the path)

AGENTS = ("replay", "anthropic", "claude")
COLD = 3
CONNECTED = 5
Times = tuple[float, float]


async def run() -> None:
    """Measure and write. Errors: KeyError when a turn says nothing."""
    rows = []
    async with fake_anthropic() as model:
        for agent in AGENTS:
            cold: list[Times] = []
            connected: list[Times] = []
            for _ in range(COLD):
                async with stack(anthropic_url=model.url, anthropic_api_key="sk-bench", naming=False) as running:
                    request = _request(running, agent)
                    cold.append(await _first(running, request))
                    connected += await _over_one_channel(running, request)
            rows += _rows(agent, cold, connected)
        spawn = await limits.spawn_ms()
    write(
        "agents",
        "Execute to the agent's first event",
        [*rows, ("starting an empty Python, ms", f"{spawn:.1f}", "limit of anything that starts a program")],
        f"{COLD} servers, {CONNECTED} further turns on each, one at a time. The event is the first that comes from the worker, the word "
        "the first piece of text; the fake model answers at once. Agents that are connected before their turn come with the warm pool.",
    )


def _request(running: Stack, agent: str) -> dict[str, str]:
    request = running.repository(f"first-{agent}", {"say": "hello"})
    return request if agent == "replay" else request | {"provider": agent, "model": "", "prompt": "say hello"}


def _rows(agent: str, cold: list[Times], connected: list[Times]) -> list[tuple[str, str, str]]:
    return [
        (f"{agent}, {how}: {what}, ms", spread([each[index] for each in times]), "")
        for how, times in (("cold", cold), ("connected", connected))
        for index, what in enumerate(("first event", "first word"))
    ]


async def _over_one_channel(running: Stack, request: dict[str, str]) -> list[Times]:
    async with running.client() as stub:
        return [await _timed(running, stub, request) for _ in range(CONNECTED)]


async def _first(running: Stack, request: dict[str, str]) -> Times:
    async with running.client() as stub:
        return await _timed(running, stub, request)


async def _timed(running: Stack, stub: Any, request: dict[str, str]) -> Times:
    begun = time.perf_counter()
    seen: dict[str, float] = {}
    async for frame in running.execute(stub, **request):
        now = (time.perf_counter() - begun) * 1000
        for event in frame.events.events:
            if event.attempt:
                seen.setdefault("event", now)
            if event.HasField("content_delta") or (event.HasField("message") and event.attempt):
                seen.setdefault("word", now)
    return seen["event"], seen["word"]
