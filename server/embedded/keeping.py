"""Keeps a part of `treadle up` going: when its process ends by itself, it is started again, and whoever watches is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import structlog

STEADY_SECONDS = 30.0
"""A part that lived this long is started again at once; one that ends sooner waits, longer each time."""
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 15.0

log = structlog.get_logger()


class Part(Protocol):
    """A process that can be started again in its place.

    `ended` waits for its end, and gives its exit status when that is known; it may be cancelled. `restart` is called after the end
    only, and returns when the part serves again; it may be called again after it failed, with whatever error.
    """

    name: str
    """With its article, as it begins a sentence in lower case: `the gateway`."""

    async def ended(self) -> int | None:
        """See above."""

    async def restart(self) -> None:
        """See above."""


@asynccontextmanager
async def kept(
    part: Part, say: Callable[[str], None], *, give_up: Callable[[str], None] | None = None, tries: int = 5
) -> AsyncIterator[None]:
    """Keep `part` for the time of the context. `say` gets a sentence for each change. A part that all stands on comes with `give_up`,
    which is called once, after so many failed tries; any other one is tried for ever."""
    keeping = asyncio.create_task(_keep(part, say, give_up, tries), name=f"keeper of {part.name}")
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
        if not keeping.cancelled():
            keeping.result()


async def _keep(part: Part, say: Callable[[str], None], give_up: Callable[[str], None] | None, tries: int) -> None:
    delay = 0.0
    while True:
        begun = time.monotonic()
        status = await part.ended()
        delay = 0.0 if time.monotonic() - begun > STEADY_SECONDS else _longer(delay)
        log.error("part.ended", part=part.name, status=status)
        say(f"{part.name} ended by itself{_how(status)}; it is started again")
        failures = 0
        while (error := await _restart(part, delay)) is not None:
            failures, delay = failures + 1, _longer(delay)
            log.error("part.restart_failed", part=part.name, error=error)
            if give_up is not None and failures >= tries:
                give_up(f"{part.name} cannot be started again: {error}")
                return
            if failures == 1:
                say(f"{part.name} cannot be started again yet: {error}")
        log.info("part.restarted", part=part.name)
        say(f"{part.name} serves again")


async def _restart(part: Part, delay: float) -> str | None:
    """What went wrong; None when it serves."""
    await asyncio.sleep(delay)
    try:
        await part.restart()
    except Exception as error:  # noqa: BLE001 - whatever it is, the next try may do better, and it is told
        return str(error) or type(error).__name__
    return None


def _longer(delay: float) -> float:
    return min(max(delay * 2, _FIRST_DELAY), _LONGEST_DELAY)


def _how(status: int | None) -> str:
    if status is None:
        return ""
    return f" (killed by signal {-status})" if status < 0 else f" (exit code {status})"
