"""How `treadle up` is stopped, and what becomes of its turns then."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from server.composition import Server

INTERRUPT_SECONDS = 60.0
"""Limit for the turns' work to be committed and pushed after Ctrl-C."""
_REASON = "the server was stopped"

T = TypeVar("T")


class Stopped(Exception):
    """What was being done was given up for a signal."""


class StopSignals:
    """Ctrl-C asks to end turns in good order; once more, to leave at once. SIGTERM and SIGHUP leave the workers for the next start."""

    def __init__(self, on_ctrl_c: Callable[[], None]) -> None:
        """Takes the signals over from now on; needs a running loop. The first Ctrl-C also calls `on_ctrl_c`."""
        self._on_ctrl_c = on_ctrl_c
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()
        self.keep_workers = False
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._terminate)

    def _interrupt(self) -> None:
        if self.asked.is_set():
            self.at_once.set()
            return
        self.asked.set()
        self._on_ctrl_c()

    def _terminate(self) -> None:
        self.keep_workers = not self.asked.is_set()
        self.asked.set()
        self.at_once.set()


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the event comes first. Errors: Stopped, and those of `work`."""
    task = asyncio.ensure_future(work)
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        raise Stopped
    return task.result()


async def end_turns(server: Server, at_once: asyncio.Event) -> bool:
    """Interrupt all turns and publish their work; when that takes too long, or `at_once` is set, kill their workers: the next start
    publishes what those wrote. Afterwards no worker is left. Returns whether all work was published."""
    try:
        pending = await unless(at_once, server.supervisor.interrupt_all(_REASON, seconds=INTERRUPT_SECONDS))
    except Stopped:
        pending = server.supervisor.active
    await server.supervisor.detach()
    for worker in await server.launcher.leftovers():
        await server.launcher.collect(worker)
    return pending == 0
