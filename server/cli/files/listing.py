"""`treadle files ls`."""

from __future__ import annotations

import argparse
import asyncio

from server.cli.connection import connected
from server.cli.failure import ExitCode
from server.cli.files.entries import entry, tell
from treadle_client import NotADirectory


def ls(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    asyncio.run(_ls(options))
    return ExitCode.DONE


async def _ls(options: argparse.Namespace) -> None:
    async with connected(options) as connection:
        files = connection.treadle.files(options.session)
        try:
            async for file in files.list(options.path, at=options.at, recursive=options.recursive):
                tell(file, entry(file, etag=options.long), as_json=options.json)
        except NotADirectory:
            file = await files.stat(options.path, at=options.at)
            tell(file, entry(file, etag=options.long), as_json=options.json)
