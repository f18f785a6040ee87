"""Directories for what is needed for a moment."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from server.kernel.finish import Finishing


@asynccontextmanager
async def scratch_directory(below: Path) -> AsyncIterator[Path]:
    """A new directory; it is gone at the end, also of who is cancelled while it is made: a thread cannot be stopped. Errors: OSError."""
    finishing = Finishing()
    making = finishing.begin(asyncio.to_thread(tempfile.TemporaryDirectory, dir=below))
    try:
        yield Path((await asyncio.shield(making)).name)
    finally:
        await asyncio.wait({making})
        if not making.cancelled() and making.exception() is None:
            await finishing.run_holding(asyncio.to_thread(making.result().cleanup))
