"""Directories for a while."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from server.workers.slot import delete_tree

_PREFIX = "legacy-"
_LONGEST_SECONDS = 24 * 3600.0


def sweep(parent: Path) -> None:
    """Remove those of whoever was killed. Blocks."""
    for directory in parent.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):  # somebody else sweeps, too
            if time.time() - directory.lstat().st_mtime > _LONGEST_SECONDS:
                delete_tree(directory)


@asynccontextmanager
async def scratch_directory(parent: Path) -> AsyncIterator[Path]:
    """An empty one, removed at the end with whatever a stranger made of it. Errors: OSError."""
    directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=_PREFIX, dir=parent))
    try:
        yield directory
    finally:
        await asyncio.to_thread(delete_tree, directory)
