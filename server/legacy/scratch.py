"""Directories for a while."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from server.workers.slot import delete_tree


@asynccontextmanager
async def scratch_directory(parent: Path) -> AsyncIterator[Path]:
    """An empty one, removed at the end with whatever a stranger made of it. Errors: OSError."""
    directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="legacy-", dir=parent))
    try:
        yield directory
    finally:
        await asyncio.to_thread(delete_tree, directory)
