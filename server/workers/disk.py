"""How much of the disk a hostile tree takes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from server.kernel.ports.launcher import Occupied

LIMIT_SECONDS = 45.0
"""A million files take two or three."""


async def occupied(root: Path) -> Occupied:
    """A file with several names counts once; what may not be read is not counted. `du` does it: it walks a tree of any depth that
    somebody changes meanwhile, and not in this process."""
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            size, files = await asyncio.gather(_summed("--block-size=1", root), _summed("--inodes", root))
    except TimeoutError:
        return Occupied(0, 0, counted=False)
    return Occupied(size, files)


async def _summed(what: str, root: Path) -> int:
    process = await asyncio.create_subprocess_exec(
        "du",
        "--summarize",
        "--one-file-system",
        what,
        "--",
        root,
        env={"PATH": os.defpath},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    return int(output.split(b"\t")[0] or 0)
