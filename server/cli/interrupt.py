"""`treadle interrupt`: stop a turn early; its work so far is kept."""

from __future__ import annotations

import argparse
import asyncio

from server.cli.connection import connect, find_target
from server.cli.failure import ExitCode


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    turn_id = asyncio.run(_interrupt(options))
    print("the turn is being stopped; what it has changed, if anything, is committed and pushed" if turn_id else "no turn is active")
    return ExitCode.DONE


async def _interrupt(options: argparse.Namespace) -> str:
    async with connect(find_target(options)) as connection:
        return await connection.treadle.interrupt(options.session)
