"""Directories for what is needed for a moment."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


async def to_its_end(work: Awaitable[T]) -> T:
    """What it returns. Whoever is cancelled meanwhile waits for its end all the same: a thread cannot be stopped, and what it makes must
    be known to whoever deletes it, what it holds let go of afterwards."""
    done = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait({done})
        if not done.cancelled():
            done.exception()  # nobody is left to hear it
        raise


@asynccontextmanager
async def scratch_directory(below: Path) -> AsyncIterator[Path]:
    """A new directory; it is gone at the end, also of who is cancelled while it is made. Errors: OSError."""
    making = asyncio.ensure_future(asyncio.to_thread(tempfile.TemporaryDirectory, dir=below))
    try:
        folder = await to_its_end(making)
        yield Path(folder.name)
    finally:
        if making.done() and not making.cancelled() and making.exception() is None:
            await to_its_end(asyncio.to_thread(making.result().cleanup))
