"""What a server does beside its callers, until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog

AGAIN_SECONDS = 60.0
"""After a defect; it may come again at once."""

Run = Callable[[], Coroutine[Any, Any, None]]

log = structlog.get_logger()


@asynccontextmanager
async def running(
    parts: Mapping[str, Run], *, chores: Mapping[str, Run], at_the_end: Callable[[], Awaitable[None]], again_seconds: float = AGAIN_SECONDS
) -> AsyncIterator[asyncio.Future[None]]:
    """Gives what fails when one of `parts` ends: a server without it is none. A chore that ends, by whatever it did not expect, is begun
    again after a pause: turns need none of them. At the end turns are let go, not ended: their workers go on."""
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    begun: dict[str, Run] = {name: partial(_again_and_again, name, run, again_seconds) for name, run in chores.items()}
    tasks = [asyncio.create_task(run(), name=name) for name, run in [*parts.items(), *begun.items()]]
    for task in tasks:
        task.add_done_callback(lambda done: _tell(done, failed))
    try:
        yield failed
    finally:
        await at_the_end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        failed.cancel()


async def _again_and_again(name: str, run: Run, seconds: float) -> None:
    while True:
        try:
            await run()
        except Exception:  # the chore's owner: a defect of it is logged, and ends no turn of anybody
            log.exception("server.chore_failed", chore=name, again_seconds=seconds)
        await asyncio.sleep(seconds)


def _tell(task: asyncio.Task[None], failed: asyncio.Future[None]) -> None:
    if task.cancelled() or failed.done():
        return
    error = task.exception() or RuntimeError("it returned")
    log.critical("server.part_ended", part=task.get_name(), error=str(error), exc_info=error)
    failed.set_exception(RuntimeError(f"the {task.get_name()} ended: {error}"))
